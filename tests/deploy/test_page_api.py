"""A question about a file over HTTP: what is read, what is refused, and that no file harms the server."""

import base64
import json
import re
import tempfile
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from deploy.model.session import Session
from deploy.serving.page import static_files
from deploy.serving.page.card import card
from deploy.serving.server import running
from stm_models.errors import InputError
from support import file_asking, http_asking, impurity_model

PLACES = [(12, 30), (33, 10), (25, 25)]
CONTENT, request, ask, npy = file_asking.CONTENT, http_asking.ask, file_asking.ask, file_asking.npy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def models(folder, toy):
    places = Session(impurity_model.write(folder / "p.onnx"), provider="cpu", threads=1)
    return {"numbers": file_asking.numbers(toy, folder), "places": places}


@pytest.fixture(scope="module")
def examples(folder):
    (folder / "examples").mkdir()
    impurity_model.write_field(folder / "examples" / "field.npz", PLACES)
    (folder / "examples" / "notes.md").write_text("no map")
    return folder / "examples"


@pytest.fixture(scope="module")
def url(models, examples):
    with running(models, examples=examples) as url:
        yield url


def array(value):
    return np.frombuffer(base64.b64decode(value["base64"]), "<f4").reshape(value["shape"])


def test_an_image_gets_the_models_numbers(url, toy):
    images = toy.images(1)
    expected = toy.expected(images)
    status, found = ask(url, npy(images[0]), explain="gradient")
    assert status == 200
    assert [value["name"] for value in found["values"]] == ["U", "gap"]
    np.testing.assert_allclose([v["value"] for v in found["values"]], expected["prediction"][0], rtol=1e-4)
    np.testing.assert_array_equal(array(found["image"]), images[0])
    np.testing.assert_allclose(array(found["maps"]["gradient"]), expected["gradient"][0], rtol=1e-4, atol=1e-5)
    # 4 x 5 pixels, the centres of the outermost ones at the limits of k.
    np.testing.assert_allclose(found["image"]["extent"], [-1.875, 1.875, -8 / 3, 8 / 3])
    assert "verdict" not in found["answer"]  # a file without novelty has none to give
    assert len(found["model"]["sha256"]) == 64
    before = http_asking.counted(url, "stm_rows_total", model="numbers")
    assert ask(url, npy(images[0]))[1]["maps"] == {}
    assert ask(url, npy(images[0]), key="m")[0] == 400
    assert http_asking.counted(url, "stm_rows_total", model="numbers") == before + 1


def test_a_field_gets_positions_and_the_explanation_of_each(url, examples):
    content = (examples / "field.npz").read_bytes()
    status, found = ask(url, content, "places", suffix=".npz", explain="gradient")
    assert status == 200
    rows = found["answer"]["impurities"]
    assert set(found["tables"]["impurities"]) == set(rows[0])  # a table without rows has its header all the same
    got = np.array([[one["y_px"], one["x_px"]] for one in rows])
    order = [int(np.hypot(*(got - place).T).argmin()) for place in PLACES]
    np.testing.assert_allclose(got[order], PLACES, atol=0.1)
    np.testing.assert_allclose(found["markers"], got, atol=1e-6)
    side = impurity_model.SIDE * impurity_model.PIXEL
    assert found["image"]["extent"] == [0, side, 0, side]
    assert found["image"]["labels"] == ["x (nm)", "y (nm)"]
    for number in (None, 0, 1, 2):
        options = {} if number is None else {"place": number}
        again = ask(url, content, "places", suffix=".npz", explain="gradient", **options)[1]
        map_ = array(again["maps"]["gradient"])
        assert map_.shape == (3, impurity_model.SIDE, impurity_model.SIDE)
        (pixel,) = np.argwhere(map_[0])
        np.testing.assert_array_equal(pixel, np.rint(got[number or 0]))
        np.testing.assert_allclose(map_[:, *pixel], 1 / 3)


def test_an_interval_and_a_p_value_are_shown_where_the_file_has_them(models, folder, toy):
    model = onnx.load(models["numbers"].path)
    for name, shift in (("lower", -0.5), ("upper", 2.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(shift), f"by_{name}"))
        model.graph.node.append(onnx.helper.make_node("Add", ["prediction", f"by_{name}"], [name]))
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 2]))
    model.graph.node.append(onnx.helper.make_node("Identity", ["distance"], ["novelty"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("novelty", onnx.TensorProto.FLOAT, ["batch"]))
    names = ["prediction", "lower", "upper", "novelty", "distance"]
    (about,) = (one for one in model.metadata_props if one.key == "stm")
    about.value = json.dumps({**json.loads(about.value), "interval": {"level": 0.9}, "answers": names})
    onnx.save(model, folder / "interval.onnx")
    images = toy.images(1)
    with running({"m": Session(folder / "interval.onnx", provider="cpu", threads=1)}) as url:
        _, found = ask(url, npy(images[0]), "m")
    for value, expected in zip(found["values"], toy.expected(images)["prediction"][0], strict=True):
        got = (value["lower"], value["value"], value["upper"])
        assert got == pytest.approx((expected - 0.5, expected, expected + 2), rel=1e-4)
    assert found["answer"]["novelty"] == pytest.approx(toy.expected(images)["distance"][0], rel=1e-4)
    assert found["answer"]["distance"] == pytest.approx(toy.expected(images)["distance"][0], rel=1e-4)
    assert found["answer"]["verdict"].startswith(("like the training data", "outside the training data", "unusual"))


@pytest.mark.parametrize(
    ("options", "status", "message", "fields"),
    [
        ({"suffix": ".exe"}, 400, "unknown suffix '.exe': choose from .3ds", ["suffix"]),
        ({"suffix": "/../../x.npy"}, 400, "unknown suffix", ["suffix"]),
        ({"suffix": ".npz"}, 400, "by its content it is a NumPy array", ["suffix"]),
        ({"size_nm": "0x3"}, 400, "--size-nm is '0x3': expected HEIGHTxWIDTH", ["size_nm"]),
        ({"bias": "nan"}, 400, "--bias is 'nan': expected a voltage in V", ["bias"]),
        ({"rotate": "361"}, 400, "--rotate is '361': expected degrees", ["rotate"]),
        (
            {"atom_width": "-1"},
            400,
            "--atom-width is '-1': expected an atom's standard deviation in nm",
            ["atom_width"],
        ),
        ({"key": "a" * 300}, 400, "key is longer than 200", ["key"]),
        ({"key": "m"}, 400, "leave the key out", ["key"]),
        ({"explain": "shap"}, 400, "unknown explanation of this model 'shap': choose from gradient", []),
        ({"place": "x"}, 400, "place is 'x'", []),
        ({"place": "999"}, 400, "no explanation is asked for", []),
        ({"explain": "gradient", "place": "0"}, 400, "place is 0: the answer has 0 places", []),
    ],
)
def test_what_is_wrong_is_named(url, toy, options, status, message, fields):
    got, found = ask(url, npy(toy.images(1)[0]), **options)
    assert got == status
    assert message in found["error"]
    assert found["fields"] == fields


@pytest.mark.parametrize(
    ("query", "message", "fields"),
    [
        ("explian=gradient", "unknown option 'explian': choose from size_nm, key, bias, channel, rotate, ", []),
        ("sizenm=5x5", "did you mean 'size_nm'?", []),
        ("explain=gradient&explain=shap", "option 'explain' is given 2 times: give it once", []),
        ("key=a&key=b&key=", "option 'key' is given 3 times", ["key"]),
    ],
)
def test_an_option_that_would_not_count_is_refused(url, toy, query, message, fields):
    path = f"/v2/models/numbers/ask?suffix=.npy&{query}"
    status, body, _ = request(url, "POST", path, npy(toy.images(1)[0]), CONTENT)
    found = json.loads(body)
    assert (status, found["fields"]) == (400, fields)
    assert message in found["error"]


def test_what_a_file_does_not_say_is_asked_for(url):
    status, found = ask(url, npy(np.zeros((30, 30))))
    assert (status, found["fields"]) == (400, ["size_nm"])
    assert "upload.npy: got an array of shape" in found["error"]  # a name of ours, and no path
    status, found = ask(url, b"no number\n" * 20, suffix=".txt")
    assert status == 400
    assert "/" not in found["error"].replace("text with columns", "")
    status, found = ask(url, b"abc", suffix=".png")
    assert (status, "identify image file 'upload.png'" in found["error"]) == (400, True)
    assert tempfile.gettempdir() not in found["error"]


def test_an_unknown_model(url):
    status, found = ask(url, b"1", model="absent")
    assert (status, found["error"]) == (404, "unknown model 'absent': choose from numbers, places")


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", None])
def test_no_page_of_another_site_can_send_a_file(url, kind):
    """Such types need no preflight; ours does, and it is never granted."""
    status, found = ask(url, b"1", headers={} if kind is None else {"Content-Type": kind})
    assert (status, found["error"][:12]) == (415, "content-type")
    status, _, headers = request(url, "OPTIONS", "/v2/models/numbers/ask", headers={"Origin": "https://x.example"})
    assert status == 403
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_many_at_once_get_their_own_answers(url, toy):
    images = toy.images(4, seed=5)
    found = {}

    def two(first):
        for row in (first, first + 1):
            found[row] = ask(url, npy(images[row]))[1]

    threads = [threading.Thread(target=two, args=(first,)) for first in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = toy.expected(images)["prediction"]
    for row in range(4):
        np.testing.assert_allclose([v["value"] for v in found[row]["values"]], expected[row], rtol=1e-4)


def test_the_page_and_what_it_may_load(url):
    status, body, headers = request(url, "GET", "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    html = body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|https?://", html)
    for path in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert request(url, "GET", path)[0] == 200
    folder = Path(static_files.__file__).parent / "static"
    assert {path.name for path in folder.iterdir()} == set(static_files.PATHS.values())
    for path in folder.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text()):
            assert name in static_files.PATHS.values()
        assert not re.search(r"innerHTML|eval\(|document\.write", path.read_text())


def test_cards_and_examples(url, models, examples):
    about = json.loads(request(url, "GET", "/page/models")[1])
    assert [card["name"] for card in about["models"]] == ["numbers", "places"]
    card = about["models"][1]
    assert card["metadata"]["sha256"] == models["places"].metadata.sha256
    assert card["metadata"]["data"]["digest"] == "d" * 16
    assert any("farther than 100 " in limit for limit in card["limits"])
    assert [example["name"] for example in about["examples"]] == ["field.npz"]
    assert request(url, "GET", "/page/examples/0")[1] == (examples / "field.npz").read_bytes()
    for path in ("1", "-1", "../../p.onnx", "%2e%2e%2fp.onnx", "9" * 5000, "%D9%A0", "x"):
        assert request(url, "GET", f"/page/examples/{path}")[0] == 404


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (400, "called outside the training data where its p-value of novelty is below 0.01"),
        (60, "60 held-out states cannot tell whether an image is outside the training data, so that none is"),
        (12, "12 held-out states cannot tell whether an image is unusual, so that none is"),
    ],
)
def test_a_card_states_the_rule_of_the_verdict(tmp_path, toy, groups, said):
    path = toy.write(tmp_path / "n.onnx", change={"novelty": {"groups": groups}})
    limits = card("n", Session(path, provider="cpu", threads=1))["limits"]
    assert any(said in limit for limit in limits)
    assert not any("farther than" in limit for limit in limits)


def test_an_example_that_is_gone_harms_no_other(models, tmp_path):
    for name in ("a.npy", "b.npy"):
        (tmp_path / name).write_bytes(npy(np.zeros(3)))
    size = (tmp_path / "b.npy").stat().st_size
    with running(models, examples=tmp_path) as url:
        (tmp_path / "a.npy").unlink()
        about = json.loads(request(url, "GET", "/page/models")[1])
        assert about["examples"][1] == {"name": "b.npy", "bytes": size}
        status, body, _ = request(url, "GET", "/page/examples/0")
        assert (status, json.loads(body)["error"]) == (404, "example 0 (a.npy) is gone: choose another one")
        assert request(url, "GET", "/page/examples/1")[1] == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize("asked", ["bytes=0-3", "bytes=0-3,8-9", "bytes=abc", "bytes=999999999-", "rows=1"])
def test_an_example_is_sent_whole(url, examples, asked):
    status, body, headers = request(url, "GET", "/page/examples/0", headers={"Range": asked})
    assert (status, headers["accept-ranges"]) == (200, "none")
    assert body == (examples / "field.npz").read_bytes()


def test_a_folder_without_examples_is_refused(models, tmp_path):
    for folder, message in ((tmp_path, "no file that can be read"), (tmp_path / "absent", "no folder")):
        with pytest.raises(InputError, match=message), running(models, examples=folder):
            pass


def test_with_a_token_only_the_page_itself_is_open(models):
    with running(models, token="word") as url:
        for path in static_files.PATHS:
            assert request(url, "GET", path)[0] == 200
        for method, path in (("GET", "/page/models"), ("GET", "/page/examples/0"), ("POST", "/v2/models/numbers/ask")):
            assert request(url, method, path)[0] == 401
        assert request(url, "GET", "/page/models", headers={"Authorization": "Bearer word"})[0] == 200
