"""The log of a run: whole lines only, whatever happens to the process or the disk."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import signal
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stm_models.errors import InputError
from tracking import leftovers, liveness, spool
from tracking.spool import Spool

START = {"time": 1, "store": "sqlite:///nowhere.db", "experiment": "e", "name": "n", "parent": None, "attach": None,
         "owner": "", "tags": {}}  # fmt: skip
LOG = "log.jsonl"


def records(folder):
    return [record for record, _ in spool.read(folder, limit=10**9)]


def test_what_is_appended_is_read_back_exactly():
    made = Spool(START)
    values = {"a": 0.1 + 0.2, "b": math.nan, "c": -math.inf, "ü": 5e-324}
    made.append({"kind": "metrics", "time": 2, "step": 3, "values": values})
    found = records(made.folder)[1]
    assert {key: repr(value) for key, value in found["values"].items()} == {k: repr(v) for k, v in values.items()}
    (_, first), *_ = spool.read(made.folder, limit=1)
    assert [record["kind"] for record, _ in spool.read(made.folder, first)] == ["metrics"]


def test_lines_of_several_threads_do_not_mix():
    made = Spool(START)

    def work(number):
        for step in range(300):
            made.append({"kind": "metrics", "time": step, "step": number, "values": {"x" * (1 + number * 40): 1.0}})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = records(made.folder)[1:]
    assert sorted((record["step"], record["time"]) for record in found) == [
        (n, t) for n in range(6) for t in range(300)
    ]


@given(cut=st.integers(0, 400), junk=st.binary(max_size=40).filter(lambda junk: b"\n" not in junk))
def test_a_torn_end_is_left_out_and_cut_off(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.mktemp("torn")
    lines = [spool._line({"kind": "metrics", "time": step, "step": step, "values": {"a": 1 / 3}}) for step in range(5)]
    whole = b"".join(lines)
    kept = whole[: min(cut, len(whole))]
    (folder / LOG).write_bytes(kept + junk)
    complete = kept.count(b"\n")
    assert [record["step"] for record in records(folder)] == list(range(complete))
    spool.add(folder, {"kind": "end"})
    assert [record["kind"] for record in records(folder)] == ["metrics"] * complete + ["end"]


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_is_noticed_and_spoils_one_line(tmp_path_factory, position, flip):
    folder = tmp_path_factory.mktemp("changed")
    whole = b"".join(spool._line({"kind": "metrics", "step": step, "values": {"a": 0.5}}) for step in range(4))
    position %= len(whole)
    changed = bytearray(whole)
    changed[position] ^= flip
    (folder / LOG).write_bytes(changed)
    found = records(folder)
    right = [record["step"] for record in found if record["kind"] != "damaged"]
    assert right == sorted(set(right) & set(range(4)))
    assert len(right) >= 2, "more than the line and what it ran into is lost"
    assert len(right) < 4 or changed == whole


def test_a_killed_process_loses_nothing_that_it_recorded(tmp_path, start_script):
    code = (
        "import sys\nfrom tracking.spool import Spool\nmade = Spool("
        + repr(START)
        + ")\nprint(made.folder, flush=True)\n"
        "step = 0\nwhile True:\n"
        "    made.append({'kind': 'metrics', 'time': step, 'step': step, 'values': {'a': step / 7}})\n"
        "    print(step, flush=True); step += 1"
    )
    process = start_script(code, folder=tmp_path)
    folder = tmp_path / process.stdout.readline().strip()
    for _ in range(200):
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    last = int((process.communicate()[0].split() or [last])[-1])
    found = records(folder)[1:]
    assert len(found) >= last + 1
    assert [(record["step"], record["values"]["a"]) for record in found] == [(n, n / 7) for n in range(len(found))]


def test_a_full_disk_leaves_the_log_whole(tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    monkeypatch.setenv("STM_SPOOL", str(small))
    try:
        made = Spool(START)
        written = 0

        def fill():
            nonlocal written
            while True:
                made.append({"kind": "tags", "values": {"a": "x" * 999}})
                written += 1

        with pytest.raises(OSError, match="No space left"):
            fill()
        assert len(records(made.folder)) == written + 1
        assert (made.folder / LOG).read_bytes().endswith(b"\n")
        os.close(made.lock)
        made.close()
    finally:
        subprocess.run(["umount", small], check=True)


def test_nothing_is_recorded_after_the_end_nor_written_into_the_file_that_comes_next(tmp_path):
    made = Spool(START)
    made.close()
    other = tmp_path / "other.txt"
    with other.open("wb"):  # has the number that the log's descriptor had
        with pytest.raises(InputError, match="has ended"):
            made.append({"kind": "tags", "values": {}})
        with pytest.raises(InputError, match="has ended"), made.place("late.txt"):
            pass
        made.sync()
    assert other.read_bytes() == b""
    assert [record["kind"] for record in records(made.folder)] == ["start"]
    assert made.file("late.txt") is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STM_SPOOL", str(tmp_path / "file"))
    with pytest.raises(InputError, match="STM_SPOOL"):
        Spool(START)


@pytest.mark.parametrize("name", ["../out", "/etc/x", "a/../../b", "", "a\0b"])
def test_files_stay_in_the_spool(name):
    made = Spool(START)
    with pytest.raises(InputError, match="cannot be called"), made.place(name):
        pass
    assert made.file("a") is None


def test_a_file_is_recorded_when_it_is_whole():
    made = Spool(START)

    def half():
        with made.place("a/b.txt") as path:
            path.write_text("half")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        half()
    assert len(records(made.folder)) == 1
    assert made.file("a/b.txt") is None
    with made.place("a/b.txt") as path:
        path.write_text("whole")
    assert made.file("a/b.txt").read_text() == "whole"
    assert made.file("a").is_dir()
    (record,) = records(made.folder)[1:]
    assert (record["name"], record["size"]) == ("a/b.txt", 5)


def test_one_process_at_a_time():
    made = Spool(START)
    assert list(leftovers.take(spool.root())) == []
    with pytest.raises(BlockingIOError):
        spool.claim(made.folder)
    os.close(made.lock)
    (parcel,) = leftovers.take(spool.root())
    assert parcel.id == made.id
    parcel.release()


def test_what_was_not_begun_is_tidied_away_and_an_empty_folder_too():
    base = spool.root()
    living = base / f".{'1' * 32}"
    lock = spool._made(base, living)
    (base / f".{'2' * 32}" / "files").mkdir(parents=True)
    spool.tidy(base)
    assert [path.name for path in base.iterdir()] == [living.name]
    with spool._locked(base, fcntl.LOCK_SH):  # another process makes one
        os.close(lock)
        spool.tidy(base)
        assert living.exists()
    spool.tidy(base)
    assert not base.exists()
    spool.tidy(base)
    made = Spool(START)
    spool.tidy(base)
    assert made.folder.exists()
    os.close(made.lock)


def test_folders_of_others_are_not_tidied_away():
    base = spool.root()
    own = base / ".ssh" / "key"
    own.parent.mkdir(parents=True)
    own.write_text("secret")
    (base / f".{'3' * 32}" / "files").mkdir(parents=True)
    spool.tidy(base)
    assert [path.name for path in base.iterdir()] == [".ssh"]
    assert [path.name for path in own.parent.iterdir()] == ["key"]


def test_the_reason_of_a_refusal_is_there_before_the_spool_moves(monkeypatch):
    made = Spool(START)

    def killed(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(spool.Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        spool.remove(made.folder, made.lock, ["metric a: refused"])
    os.close(made.lock)
    assert (made.folder / "refused.txt").read_text() == "metric a: refused\n"


def test_only_the_dead_are_closed():
    gone = liveness.identity().rpartition("/")[0] + "/0"
    now = 2_000_000_000_000  # ms; far away, so that no clock says that it is silent
    for owner, time, closed in (
        (gone, now, True), (liveness.identity(), now, False), ("machine/1/1", now, False), ("machine/1/1", 1, True),
    ):  # fmt: skip
        made = Spool({**START, "owner": owner, "time": time})
        made.append({"kind": "metrics", "time": time + 5, "step": 0, "values": {"a": 1.0}})
        os.close(made.lock)
        (parcel,) = leftovers.take(made.folder)
        assert leftovers.close_abandoned(parcel) is closed
        last = records(made.folder)[-1]
        assert (last["kind"] == "end") is closed
        if closed:
            assert (last["status"], last["time"], last["tags"]) == ("KILLED", time + 5, {"outcome": "killed"})
            assert leftovers.close_abandoned(parcel) is True
            assert [record["kind"] for record in records(made.folder)].count("end") == 1
        parcel.release()


def test_a_spool_that_cannot_be_begun_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("STM_SPOOL", str(tmp_path / "spools"))

    def full(handle, line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spool.os, "write", full)
    with pytest.raises(InputError, match="No space left on device"):
        spool.Spool({"name": "one"})
    assert list((tmp_path / "spools").iterdir()) == []
