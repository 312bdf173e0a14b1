"""What a killed process was making is removed by the next one; what a living one makes is left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stm_models import unfinished
from stm_models.files import atomic_path
from stm_models.unfinished import scratch

MAKING = """
import os, sys, time
from pathlib import Path
from stm_models.files import atomic_path
from stm_models.unfinished import scratch
with scratch() as folder, atomic_path(Path(sys.argv[1])) as part:
    (folder / "half").write_text("half")
    part.write_text("half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def making(tmp_path, monkeypatch):
    """Start a process that is writing ``a.txt``, with a scratch folder; all in ``tmp_path``."""
    monkeypatch.setattr(unfinished, "_swept", set())
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    started = subprocess.Popen([sys.executable, "-c", MAKING, tmp_path / "a.txt"], stdout=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "ready\n"
    yield started
    started.kill()
    started.wait()
    started.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_beside(folder):
    with scratch() as made:
        assert made.is_dir()
        with atomic_path(folder / "b.txt") as part:
            part.write_text("whole")


def test_what_a_living_process_makes_is_left_alone(making, tmp_path):
    before = names(tmp_path)
    assert len(before) == 2
    write_beside(tmp_path)
    assert names(tmp_path) == sorted([*before, "b.txt"])


def test_what_a_killed_process_made_is_removed(making, tmp_path):
    (tmp_path / ".a.txt.swp").write_text("an editor's")
    (tmp_path / "stm-notes").mkdir()
    making.kill()
    making.wait()
    assert len(names(tmp_path)) == 4
    write_beside(tmp_path)
    assert names(tmp_path) == [".a.txt.swp", "b.txt", "stm-notes"]


def test_parts_of_other_machines_are_left_alone(making, tmp_path, monkeypatch):
    making.kill()
    making.wait()
    left = names(tmp_path)
    monkeypatch.setattr(unfinished, "_PART", unfinished.re.compile("another machine's"))
    monkeypatch.setattr(unfinished, "_SCRATCH", unfinished.re.compile("another machine's"))
    write_beside(tmp_path)
    assert names(tmp_path) == sorted([*left, "b.txt"])


def test_one_that_was_swept_before_it_was_locked_is_made_again(tmp_path):
    made = []

    def make():
        made.append(tmp_path / f"{len(made)}")
        made[-1].touch()
        return str(made[-1])

    def swept_twice(path, flags, *mode):
        if path == tmp_path / "0" and not mode:
            made[0].unlink()  # before it is opened, and after
        handle = opened(path, flags, *mode)
        if path == tmp_path / "1" and not mode:
            made[1].unlink()
        return handle

    opened = unfinished.os.open
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unfinished.os, "open", swept_twice)
        path, lock = unfinished._locked(make)
    unfinished.os.close(lock)
    assert path == tmp_path / "2"
