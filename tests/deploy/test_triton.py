"""The model repository, read as Triton reads it: by its own message definitions, and by onnxruntime."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format

from deploy.exporting.triton import write_repository
from deploy.model.session import Session
from stm_models.errors import InputError

definitions = pytest.importorskip("tritonclient.grpc.model_config_pb2")
TYPES = {"tensor(float)": definitions.TYPE_FP32}


@pytest.fixture(scope="module")
def repository(tmp_path_factory, model_file, map_file):
    folder = tmp_path_factory.mktemp("repository")
    return {name: (path, write_repository(path, folder, name)) for name, path in (("n", model_file), ("m", map_file))}


def read(path):
    return text_format.Parse(path.read_text(), definitions.ModelConfig())


@pytest.mark.parametrize("name", ["n", "m"])
def test_triton_can_read_it(repository, name):
    _, written = repository[name]
    assert [path.parent.name for path in written] == [name, f"{name}-gradient"]
    for path in written:
        config = read(path)
        assert config.name == path.parent.name
        assert config.backend == "onnxruntime"
        assert config.max_batch_size > 1
        assert config.HasField("dynamic_batching")
        assert config.parameters["data_digest"].string_value == "d" * 8
        (version,) = [one for one in path.parent.iterdir() if one.is_dir()]
        assert version.name == "1"
        onnx.checker.check_model(onnx.load(version / "model.onnx"), full_check=True)


@pytest.mark.parametrize("name", ["n", "m"])
def test_shapes_and_numbers_are_the_models(repository, toy, name):
    source, written = repository[name]
    images = toy.images(3)
    session = Session(source, provider="cpu", threads=1)
    for path in written:
        config = read(path)
        part = onnxruntime.InferenceSession(path.parent / "1" / "model.onnx", providers=["CPUExecutionProvider"])
        assert [one.name for one in config.input] == [one.name for one in part.get_inputs()] == ["image"]
        assert list(config.input[0].dims) == list(images.shape[1:])
        assert {one.name for one in config.output} == {one.name for one in part.get_outputs()}
        assert ("gradient" in {one.name for one in config.output}) is path.parent.name.endswith("-gradient")
        expected = session.run(images, [one.name for one in config.output])
        for one in config.output:
            (found,) = part.run([one.name], {"image": images})
            np.testing.assert_allclose(found, expected[one.name], rtol=1e-5, atol=1e-6)
            dims = [] if one.HasField("reshape") else list(one.dims)
            assert all(said in (-1, is_) for said, is_ in zip(dims, found.shape[1:], strict=True))
            assert one.data_type == TYPES[next(o.type for o in part.get_outputs() if o.name == one.name)]


def test_it_can_be_served_by_us_too(repository):
    """Its metadata fit what is left in it."""
    _, (plain, explained) = repository["n"]
    assert Session(plain.parent / "1" / "model.onnx", provider="cpu").metadata.explanations == ()
    assert Session(explained.parent / "1" / "model.onnx", provider="cpu").metadata.explanations == ("gradient",)


def test_explanations_of_the_model_before_are_removed(model_file, toy, tmp_path):
    folder = tmp_path / "repository"
    write_repository(model_file, folder, "n")
    plain = toy.write(tmp_path / "plain.onnx", change={"explanations": []})
    others = [write_repository(model_file, folder, "n-small"), write_repository(plain, folder, "n-large")]
    for name in ("n-foreign", "n-empty"):  # of somebody else
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text('parameters { key: "task" value { string_value: "toy" } }')
    (folder / "n-foreign" / "1" / "model.onnx").write_bytes(b"no model")
    kept = {path.parent.name for written in others for path in written} | {"n", "n-foreign", "n-empty"}
    assert {path.name for path in folder.iterdir()} == kept | {"n-gradient"}
    assert [path.parent.name for path in write_repository(plain, folder, "n")] == ["n"]
    assert {path.name for path in folder.iterdir()} == kept
    # What one has added oneself stays, without a model.
    write_repository(model_file, folder, "n")
    (folder / "n-gradient" / "labels.txt").write_text("mine")
    write_repository(plain, folder, "n")
    assert [path.name for path in (folder / "n-gradient").rglob("*")] == ["labels.txt"]


def test_what_cannot_be_written_is_said(model_file, tmp_path):
    with pytest.raises(InputError, match="cannot be a folder"):
        write_repository(model_file, tmp_path, "../x")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        write_repository(model_file, tmp_path / "file", "x")
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == '["file"]'
