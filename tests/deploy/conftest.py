"""Tiny model files of known arithmetic, and small networks exported."""

import pytest

from deploy.model.session import Session
from support.toy_models import MapToy, Toy


@pytest.fixture(scope="session")
def map_toy():
    return MapToy()


@pytest.fixture(scope="session")
def map_file(tmp_path_factory, map_toy):
    return map_toy.write(tmp_path_factory.mktemp("maps") / "maps.onnx")


@pytest.fixture(scope="session")
def toy():
    return Toy()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory, toy):
    return toy.write(tmp_path_factory.mktemp("model") / "toy.onnx")


@pytest.fixture(scope="module")
def session(model_file):
    """A session of the toy's file, one for each module of tests."""
    return Session(model_file, provider="cpu", threads=1)


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Exported networks by name."""
    from support import exported_models  # not above: toys need no torch

    return exported_models.make_and_export(tmp_path_factory.mktemp("exports"))
