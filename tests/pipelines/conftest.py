"""A small data set, and the command that imports and converts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from pipelines.cli import main

sys.path.insert(0, str(Path(__file__).parents[1]))
random_ldos = importlib.import_module("random_ldos")


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
