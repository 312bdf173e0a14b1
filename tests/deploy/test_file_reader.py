"""The process that reads files for the page: what it survives, and what it knows."""

import contextlib
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from deploy.model.metadata import ModelMetadata
from deploy.model.questions import Reading, read_file
from deploy.model.session import Session
from deploy.serving.reading.process import FileReader
from stm_models.errors import InputError
from support import impurity_model


@pytest.fixture(scope="module")
def about(tmp_path_factory, toy):
    """What the model file of a number says of itself."""
    ft = {"kind": "ft_ldos", "channels": 2, "height": 4, "width": 5, "unit": "1", "kx_max": 1.5, "ky_max": 2.0,
          "energies": [0.0, 0.1], "energy_tolerance": 0.03, "envelope": 0.4, "radius": 8.0}  # fmt: skip
    path = toy.write(tmp_path_factory.mktemp("reader") / "n.onnx", change={"task": "hubbard", "input": ft})
    return Session(path, provider="cpu", threads=1).metadata


def test_a_reader_in_trouble_is_an_error_and_no_more(about, tmp_path):
    bomb = tmp_path / "bomb.npz"
    np.savez_compressed(bomb, data=np.zeros((40, 1000, 1000)))
    assert bomb.stat().st_size < 2**20
    small = FileReader(memory=450 * 2**20)
    with pytest.raises(InputError, match="memory"):
        small.read(bomb, about, Reading())
    long = tmp_path / "long.txt"
    long.write_text("0.1 0.2 0.3\n" * 2_000_000)
    quick = FileReader(seconds=0)  # how much a second is differs between machines
    with pytest.raises(InputError, match="too much time or memory"):
        quick.read(long, about, Reading())
    killed = FileReader()
    killed.prepare()
    killed._spare.kill()
    killed._spare.wait()
    good = tmp_path / "good.npy"
    np.save(good, np.ones((2, 4, 5)))
    assert killed.read(good, about, Reading()).images.shape == (1, 2, 4, 5)


def test_a_file_is_read_beside_a_thousand_connections(about, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this machine allows no process 2048 open files")
    good = tmp_path / "good.npy"
    np.save(good, np.ones((2, 4, 5)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while stack.enter_context(open(os.devnull)).fileno() < 1024:
            pass
        assert FileReader().read(good, about, Reading()).images.shape == (1, 2, 4, 5)


def test_a_reader_that_says_something_else(about, monkeypatch):
    reader = FileReader()
    for said in (b"", b"\x00" * 40, b"\x05\x00\x00\x00\x00\x00\x00\x00{}{}{", b"\x02" + b"\x00" * 7 + b"{}"):
        monkeypatch.setattr(reader, "_ask", lambda process, line, said=said: said)
        monkeypatch.setattr("deploy.serving.reading.process._start", lambda: _Nothing())
        with pytest.raises(InputError, match="could not be read"):
            reader.read(Path("x.npy"), about, Reading())


class _Nothing:
    stdin = stdout = None

    def kill(self):
        pass

    def wait(self):
        pass

    def poll(self):
        return None


def test_a_reader_knows_nothing_of_the_server(monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_THE_SERVER", "word")
    reader = FileReader()
    reader.prepare()
    process = reader._spare
    names = {entry.split(b"=")[0] for entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")}
    assert b"A_SECRET_OF_THE_SERVER" not in names
    reader.prepare()
    assert reader._spare is process  # one waits, not two
    process.stdin.close()  # as when the server ends
    assert process.wait(30) == 0
    process.stdout.close()


def test_metadata_survive_the_way_to_the_reader(about, tmp_path):
    places = Session(impurity_model.write(tmp_path / "p.onnx"), provider="cpu", threads=1).metadata
    for one in (about, places):
        assert ModelMetadata.model_validate(one.as_dict()).as_dict() == one.as_dict()


def test_a_task_without_a_direction_turns_no_map(tmp_path):
    places = Session(impurity_model.write(tmp_path / "p.onnx"), provider="cpu", threads=1).metadata
    field = impurity_model.write_field(tmp_path / "field.npz", [(20, 20)])
    with pytest.raises(InputError, match=r"--rotate is 3: task impurity takes maps as they are, leave it out"):
        read_file(field, places, Reading(rotate=3.0))
    with pytest.raises(InputError, match=r"--atom-width is 0: task impurity takes maps as they are, leave it out"):
        read_file(field, places, Reading(atom_width=0.0))
