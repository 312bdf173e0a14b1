"""A small data set, and the command that imports and converts."""

from __future__ import annotations

import pytest

from pipelines.cli import main
from support import random_ldos


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten states, two samples each."""
    return random_ldos.make(tmp_path_factory.mktemp("data") / "ours.zarr", random_ldos.config_of(bottom_layer=0.3))


@pytest.fixture
def stm(capsys):
    """Run a command in this process: exit code, stdout, stderr."""

    def call(*arguments):
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert (code == 0) == bool(said.out)
        return code, said.out, said.err

    return call
