import hashlib
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from deploy.model import provider
from deploy.model.metadata import InputSpec, parse
from deploy.model.session import Session
from stm_models.errors import InputError


@pytest.mark.parametrize("rows", [1, 3, 17])
def test_outputs_are_the_arithmetic_of_the_file(session, toy, rows):
    images = toy.images(rows)
    got = session.run(images, ("prediction", "gradient", "distance"))
    for name, values in toy.expected(images).items():
        assert got[name].dtype == np.float32
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4)


def test_explanations_that_are_not_asked_for_are_not_computed(tmp_path, toy):
    change = {"explanations": ["gradient", "trap"]}
    session = Session(toy.write(tmp_path / "trap.onnx", trap=True, change=change), provider="cpu", threads=1)
    images = toy.images(2)
    assert list(session.run(images)) == ["prediction"]
    assert list(session.run(images, ["distance"])) == ["distance"]
    got = session.run(images, ["gradient", "prediction"])
    assert list(got) == ["gradient", "prediction"]
    np.testing.assert_allclose(got["gradient"], toy.expected(images)["gradient"], rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="reshape"):
        session.run(images, ["trap"])


def test_metadata_is_read(session, model_file, toy):
    about = session.metadata
    assert about.task == "toy"
    assert about.input.shape == toy.shape
    assert about.input.model_dump()["kx_max"] == 1.5
    assert [t.name for t in about.targets] == ["U", "gap"]
    assert about.sha256 == hashlib.sha256(model_file.read_bytes()).hexdigest()
    assert {**toy.describe(), "sha256": about.sha256}.items() <= json.loads(
        json.dumps({**about.as_dict(), "input": toy.describe()["input"], "targets": toy.describe()["targets"]})
    ).items()
    assert session.output_names == ("prediction", "gradient", "distance")
    session.warm_up()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 4, 5), np.float32), r"\(batch, 2, 4, 5\); give one image as a batch of one"),
        (np.zeros((1, 2, 5, 4), np.float32), r"\(1, 2, 5, 4\), expected \(batch, 2, 4, 5\)"),
        (np.zeros((0, 2, 4, 5), np.float32), "no rows"),
        (np.zeros((1, 2, 4, 5), complex), "complex128, expected an array of float32"),
        (np.full((1, 2, 4, 5), "a"), "expected an array of float32"),
        ([[1.0]], "list, expected an array of float32"),
        (np.full((1, 2, 4, 5), np.nan, np.float32), "row 0 has 40 values that are NaN"),
        (np.full((1, 2, 4, 5), 1e300), "beyond float32"),
        (np.full((1, 2, 4, 5), 1e30, np.float32), "prediction of image row 0 is not a finite number"),
    ],
)
def test_bad_images_are_refused(session, image, message):
    with pytest.raises(InputError, match=message):
        session.run(image)


def test_the_row_that_is_wrong_is_named(session, toy):
    images = toy.images(5)
    images[3, 1, 2, 2] = np.inf
    with pytest.raises(InputError, match="row 3 has 1 values"):
        session.run(images)


def test_other_numbers_and_layouts_are_converted(session, toy):
    images = toy.images(3)
    reference = session.run(images)["prediction"]
    strided = np.asfortranarray(images.astype(np.float64))
    np.testing.assert_array_equal(session.run(strided)["prediction"], reference)


@pytest.mark.parametrize("outputs", [("gradient",), ("prediction", "gradient", "distance")])
def test_the_pixel_that_is_explained_can_be_chosen(map_toy, map_file, toy, outputs):
    session, images = Session(map_file, provider="cpu", threads=1), toy.images(3)
    session.warm_up()
    assert session.metadata.focusable
    for focus in ([0, 19, 7], np.array([5], np.int32), np.array([-1, 3, -1])):
        found = session.run(images, outputs, focus)
        want = map_toy.expected(images, np.broadcast_to(focus, 3))
        np.testing.assert_allclose(found["gradient"], want, rtol=1e-6)
    strongest = map_toy.expected(images, [-1] * 3)
    np.testing.assert_allclose(session.run(images, outputs)["gradient"], strongest, rtol=1e-6)
    plain = session.run(images, ("prediction", "distance"), [4])
    np.testing.assert_array_equal(plain["prediction"], session.run(images)["prediction"])


@pytest.mark.parametrize(
    ("focus", "message"),
    [
        ([20], r"focus is 20: expected .* from 0 to 19 for maps of 4 x 5 pixels"),
        ([0, -2, 1], "focus is -2"),
        ([0, 1], r"shape \(2,\): expected integers of shape \(3,\)"),
        (4, r"shape \(\)"),
        ([[1, 2, 3]], r"shape \(1, 3\)"),
        ([1.0], "float64"),
        ([True], "bool"),
        ([], "shape"),
        (np.array([2**63], np.uint64), "focus is 9223372036854775808"),
        ("3", "expected integers"),
    ],
)
@pytest.mark.parametrize("outputs", [("prediction",), ("gradient",)])
def test_a_focus_that_is_no_pixel_is_refused(map_file, toy, focus, message, outputs):
    with pytest.raises(InputError, match=message):
        Session(map_file, provider="cpu", threads=1).run(toy.images(3), outputs, focus)


def test_a_focus_is_refused_by_models_without_one(session, toy):
    assert not session.metadata.focusable
    with pytest.raises(InputError, match="cannot be chosen: leave focus out"):
        session.run(toy.images(1), ["gradient"], [0])


def test_a_file_must_have_the_focus_that_its_metadata_promise(tmp_path, toy, map_toy):
    with pytest.raises(InputError, match="no optional int64 input 'focus'"):
        Session(toy.write(tmp_path / "a.onnx", change={"focusable": True}), provider="cpu")
    with pytest.raises(InputError, match="expected one float input 'image'"):
        Session(map_toy.write(tmp_path / "b.onnx", optional=False), provider="cpu")


def test_unknown_output_lists_those_that_exist(session, toy):
    with pytest.raises(InputError, match=r"gradient.*did you mean 'gradient'"):
        session.run(toy.images(1), ["gradients"])


def test_runs_from_threads_do_not_mix(session, toy):
    def ask(seed):
        images = toy.images(1 + seed % 4, seed)
        return np.allclose(session.run(images)["prediction"], toy.expected(images)["prediction"], atol=1e-3)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(200)))


def _damaged(toy, folder):
    path = toy.write(folder / "whole.onnx")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def _text(toy, folder):
    path = folder / "text.onnx"
    path.write_text("not a model")
    return path


def _written(path, content):
    path.write_bytes(content)
    return path


def _empty(toy, folder):
    path = folder / "empty.onnx"
    path.touch()
    return path


def _wider(toy, folder):
    path = toy.write(folder / "wide.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda toy, folder: folder / "absent.onnx", "cannot read the model file .*No such file"),
        (lambda toy, folder: folder, "cannot read the model file"),
        (_empty, "is empty"),
        (_text, "damaged or no ONNX model"),
        (_damaged, "damaged or no ONNX model"),
        (_wider, r"expected one float input 'image' of shape \(-1, 2, 4, 5\)"),
        (lambda toy, f: toy.write(f / "a.onnx", metadata=False), "without the metadata entry 'stm'"),
        (lambda toy, f: toy.write(f / "a.onnx", metadata="{"), "no valid JSON"),
        (lambda toy, f: toy.write(f / "a.onnx", metadata="[" * 9999), "no valid JSON"),
        (lambda toy, f: toy.write(f / "a.onnx", metadata="[1]"), "no JSON object"),
        (lambda toy, f: toy.write(f / "a.onnx", metadata="{}"), "schema None, expected 2"),
        (lambda toy, f: toy.write(f / "a.onnx", change={"schema": 3}), "schema 3, .*upgrade"),
        (lambda toy, f: toy.write(f / "a.onnx", change={"schema": 1}), "schema 1, .*train the model again"),
        (lambda toy, f: toy.write(f / "a.onnx", change={"task": None}), "incomplete: task"),
        (lambda toy, f: toy.write(f / "a.onnx", change={"input": {"kind": "x"}}), "input.channels"),
        (lambda toy, f: toy.write(f / "a.onnx", change={"metrics": {"mae": np.nan}}), "NaN is no JSON"),
        (lambda toy, f: toy.write(f / "a.onnx", change={"explained": 5}), "explained is 5"),
        (
            lambda toy, f: toy.write(f / "a.onnx", change={"targets": [{"name": "U"}], "explained": 0}),
            "2 columns for 1",
        ),
        (lambda toy, f: toy.write(f / "a.onnx", change={"explanations": ["cam"]}), "no float output 'cam'"),
        *(
            (lambda toy, f, names=names: toy.write(f / "a.onnx", change={"answers": names}), message)
            for names, message in (
                (["distance"], "answers with distance, but .* are prediction, distance: write"),
                (["prediction"], "answers with prediction, but"),
                ([], "answers with nothing, but"),
                (["prediction", "distance", "novelty"], "answers with prediction, distance, novelty, but"),
            )
        ),
        *(
            (lambda toy, f, groups=groups: toy.write(f / "a.onnx", change={"novelty": {"groups": groups}}), message)
            for groups, message in (
                ("many", "novelty: groups is 'many': expected a number of states"),
                (0, "groups is 0"),
                (2.5, "groups is 2.5"),
                (True, "groups is True"),
                (None, "groups is None"),
            )
        ),
    ],
)
def test_files_that_are_not_ours_are_refused_in_one_line(tmp_path, toy, make, message):
    with pytest.raises(InputError) as caught:
        Session(make(toy, tmp_path), provider="cpu")
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [_text, _damaged, lambda toy, f: _written(f / "zeros.onnx", bytes(2**20))])
@pytest.mark.parametrize("devices", [0, 1])
def test_a_damaged_file_is_not_laid_at_the_door_of_cuda(tmp_path, toy, monkeypatch, make, devices):
    monkeypatch.setattr(provider, "cuda_devices", lambda: devices)
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    for kind in ("cuda", "auto"):
        with pytest.raises(InputError, match="damaged or no ONNX model") as caught:
            Session(make(toy, tmp_path), provider=kind)
        assert "CUDA" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{}, {"answers": ["prediction", "distance"]}, {"novelty": {"sets": ["clean"]}}, {"novelty": {"groups": 1}}],
)
def test_files_that_name_their_answers_and_those_of_before_open(tmp_path, toy, change):
    path = toy.write(tmp_path / "a.onnx", change=change)
    assert Session(path, provider="cpu").answer_names == ("prediction", "distance")


def test_metadata_keys_of_a_later_exporter_are_kept(toy):
    text = json.dumps({**toy.describe(), "colour": "blue"})
    assert parse({"stm": text}, sha256="00", source="x").as_dict()["colour"] == "blue"


@pytest.mark.parametrize(("name", "threads"), [("gpu", None), ("cpu", 0)])
def test_bad_options_are_refused(model_file, name, threads):
    with pytest.raises(InputError, match=r"choose from auto, cpu, cuda|threads is 0"):
        Session(model_file, provider=name, threads=threads)


def test_without_a_device_cuda_is_refused_and_auto_says_so(model_file, monkeypatch):
    monkeypatch.setattr(provider, "cuda_devices", lambda: 0)
    with pytest.raises(InputError, match=r"'cuda' asked for, but (no CUDA device|.*has no CUDA)") as caught:
        Session(model_file, provider="cuda")
    assert "use --provider auto or cpu" in str(caught.value), "what every command with --provider has"
    assert "--allow-cpu" not in str(caught.value), "which only servers have"
    session = Session(model_file, provider="auto", threads=1)
    assert session.provider == "cpu"
    assert session.provider_note.startswith("running on the CPU: ")


def test_cuda_that_did_not_load_is_not_passed_off_as_cuda(model_file, monkeypatch):
    monkeypatch.setattr(provider, "cuda_devices", lambda: 1)
    monkeypatch.setattr(provider, "load_cuda_libraries", lambda: "libcudnn.so.9 is missing")
    monkeypatch.setattr(provider, "options", lambda kind: ["CPUExecutionProvider"])
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with pytest.raises(InputError, match=r"libcudnn.so.9 is missing.*--provider auto or cpu"):
        Session(model_file, provider="cuda")
    assert Session(model_file, provider="auto", threads=1).provider == "cpu"


def test_cuda_may_be_given_up_where_that_is_allowed(model_file, monkeypatch, toy):
    monkeypatch.setattr(provider, "cuda_devices", lambda: 0)
    session = Session(model_file, provider="cuda", allow_cpu=True, threads=1)
    assert session.provider == "cpu"
    assert session.provider_note.startswith("running on the CPU: ")
    images = toy.images(2)
    np.testing.assert_allclose(
        session.run(images)["prediction"], toy.expected(images)["prediction"], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_off_unless_asked_for(model_file, monkeypatch, tf32):
    """What onnxruntime is told, where CUDA is there; the session itself is the CPU's."""
    told, real = [], provider.onnxruntime.InferenceSession

    def record(content, settings, providers, **options):
        told.append((providers, settings.intra_op_num_threads, options))
        found = real(content, settings, providers=["CPUExecutionProvider"], **options)
        return found

    monkeypatch.setattr(provider, "cuda_devices", lambda: 1)
    monkeypatch.setattr(provider, "load_cuda_libraries", lambda: "")
    monkeypatch.setattr(provider.onnxruntime, "InferenceSession", record)
    monkeypatch.setattr(
        "onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    session = Session(model_file, provider="auto", threads=2, tf32=tf32)
    assert session.provider == "cpu"  # it was loaded, but its first provider is not CUDA
    providers, threads, options = told[0]
    assert providers[0] == ("CUDAExecutionProvider", {"use_tf32": int(tf32)})
    assert threads == 2
    assert options == {"enable_fallback": 0}


def test_bound_inputs_and_outputs_give_the_same_numbers(model_file, map_file, toy):
    """CUDA's way of a run, made on the CPU."""
    for path, focus in ((model_file, None), (map_file, [3])):
        plain, bound = (Session(path, provider="cpu", threads=1) for _ in range(2))
        bound.warm_up()
        bound.provider = "cuda"
        images = toy.images(3)
        found = bound.run(images, bound.output_names, focus)
        for name, values in plain.run(images, plain.output_names, focus).items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].flags.owndata or found[name].base is not None


def test_some_explanations_do_not_cost_all_of_them(tmp_path, toy):
    """Two maps of three: the third one, which always fails, is not computed."""
    change = {"explanations": ["gradient", "trap", "distance"], "distance": {"quantiles": {"0.99": 1.0}}}
    session = Session(toy.write(tmp_path / "trap.onnx", trap=True, change=change), provider="cpu", threads=1)
    images = toy.images(2)
    found = session.run(images, ["distance", "prediction", "gradient"])
    assert list(found) == ["distance", "prediction", "gradient"]
    for name, values in toy.expected(images).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_cuda_gives_the_numbers_of_the_cpu(model_file, toy):
    if not provider.cuda_devices():
        pytest.skip("no CUDA device")
    session = Session(model_file, provider="cuda")
    images = toy.images(3)
    got = session.run(images, session.output_names)
    for name, values in Session(model_file, provider="cpu").run(images, session.output_names).items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4)


def test_loading_and_running_prints_nothing(model_file, tmp_path, toy):
    damaged = _damaged(toy, tmp_path)
    code = f"""
import numpy as np
from deploy.model.session import Session
from stm_models.errors import InputError
s = Session({str(model_file)!r}, threads=1)
s.run(np.ones((1, 2, 4, 5), np.float32), s.output_names)
try:
    Session({str(damaged)!r})
except InputError:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr == ""


def test_inputs_agree_by_all_that_both_files_say():
    first = InputSpec(kind="map", channels=1, height=4, width=5, kx_max=1.5)
    assert first.agrees(InputSpec(kind="map", channels=1, height=4, width=5, kx_max=1.5, moire=[[1.0, 0.0]]))
    assert not first.agrees(InputSpec(kind="map", channels=1, height=4, width=5, kx_max=1.6))
