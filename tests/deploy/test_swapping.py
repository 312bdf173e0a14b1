"""One version of a model takes over from another while requests go on; a bad one does not."""

import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import onnx
import pytest

from deploy.model.session import Session
from deploy.serving.catalog import Catalog, Model, Version
from deploy.serving.metrics import Metrics
from deploy.serving.protocol import HEADER, decode_response, encode_request
from deploy.serving.server import running
from deploy.serving.wanted import wanted_models
from deploy.serving.watching import Watcher, following
from stm_models.errors import InputError
from support import http_asking as asking
from support import serving_versions as versions

ask = asking.ask


def opener(path):
    return Session(path, provider="cpu", threads=1)


@pytest.fixture
def first(tmp_path):
    """A catalogue with version 1 of the toy, and that version's arithmetic."""
    toy = versions.write_good(tmp_path, 1)
    return Catalog([Model("toy", opener(tmp_path / "1.onnx"), "1", versions.ALIAS)]), toy


def infer(url, images, path="/v2/models/toy/infer"):
    body, length = encode_request(images, ["prediction", "gradient"])
    status, answer, headers = ask(url, "POST", path, body, {HEADER: str(length)})
    assert status == 200, answer
    got, head = decode_response(answer, headers[HEADER])
    assert set(got) == {"prediction", "gradient"}
    return got, head


def test_every_answer_under_a_swap_is_of_one_version(tmp_path, first):
    catalog, _ = first
    toys = {str(n): versions.write_good(tmp_path, n) for n in range(1, 9)}
    images = toys["1"].images(3)
    expected = {n: toy.expected(images) for n, toy in toys.items()}
    seen = set()
    stop = threading.Event()

    def client(_):
        while not stop.is_set():
            got, head = infer(url, images)
            version = head["model_version"]
            for name, values in got.items():
                np.testing.assert_allclose(values, expected[version][name], rtol=1e-3, atol=1e-3)
            seen.add(version)

    with running(catalog) as url, ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, n) for n in range(4)]
        for n in range(2, 9):
            assert catalog.models["toy"].offer(Version(str(n), tmp_path / f"{n}.onnx"), opener)
            end = time.monotonic() + 30
            while str(n) not in seen and time.monotonic() < end:
                time.sleep(0.005)
        stop.set()
        for one in clients:
            one.result(30)
        assert seen == set(toys)
        assert ask(url, "GET", "/v2/models/toy/versions/8/ready")[0] == 200
        assert infer(url, images, "/v2/models/toy/versions/8/infer")[1]["model_version"] == "8"
        status, answer, _ = ask(url, "GET", "/v2/models/toy/versions/7")
        assert status == 404
        assert b"no version '7': only 8" in answer


def test_an_old_version_answers_what_it_began_and_then_goes(tmp_path, first):
    catalog, toy = first
    model, entered, leave = catalog.models["toy"], threading.Event(), threading.Event()
    model.current.session.run = _slow(model.current.session.run, entered, leave)
    new = versions.write_good(tmp_path, 2)
    images = toy.images(2)
    with running(catalog) as url, ThreadPoolExecutor(1) as pool:
        old = pool.submit(infer, url, images)
        assert entered.wait(30)
        assert model.offer(Version("2", tmp_path / "2.onnx"), opener)
        got, head = infer(url, images)
        assert head["model_version"] == "2"
        np.testing.assert_allclose(got["prediction"], new.expected(images)["prediction"], rtol=1e-3, atol=1e-3)
        assert model.held == 2
        leave.set()
        got, head = old.result(30)
        assert head["model_version"] == "1"
        np.testing.assert_allclose(got["prediction"], toy.expected(images)["prediction"], rtol=1e-3, atol=1e-3)
        end = time.monotonic() + 30
        while model.held > 1 and time.monotonic() < end:
            infer(url, images)  # which lets go of what the last answer held
        assert model.held == 1


@pytest.mark.parametrize("route", ["infer", "explain"])
def test_a_version_that_goes_while_its_body_arrives_is_answered_by_no_other(tmp_path, first, route):
    catalog, toy = first
    model = catalog.models["toy"]
    versions.write_good(tmp_path, 2)
    body, length = encode_request(toy.images(2), ["prediction"])
    with running(catalog) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        connection.putrequest("POST", f"/v2/models/toy/versions/1/{route}")
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader(HEADER, str(length))
        connection.endheaders(body[:10])
        time.sleep(0.3)  # the address is looked at
        assert model.offer(Version("2", tmp_path / "2.onnx"), opener)
        connection.send(body[10:])
        response = connection.getresponse()
        assert (response.status, b"no version '1': only 2" in response.read()) == (404, True)
        connection.close()


def _slow(run, entered, leave):
    def wrapped(*arguments):
        entered.set()
        assert leave.wait(60)
        return run(*arguments)

    return wrapped


@pytest.mark.parametrize("kind", versions.BAD)
def test_a_bad_version_is_refused_and_everybody_can_see_it(tmp_path, first, kind, caplog):
    catalog, toy = first
    versions.write_bad(tmp_path, 2, kind)
    images = toy.images(2)
    watcher = following({"toy": versions.ALIAS}, catalog, opener, versions.resolver(tmp_path), 1)
    versions.point(tmp_path, 2)
    with running(catalog) as url:
        assert not catalog.models["toy"].offer(Version("2", tmp_path / "2.onnx"), opener)
        about = json.loads(ask(url, "GET", "/v2/models/toy")[1])
        assert about["versions"] == ["1"]
        refused = about["parameters"]["refused"]
        assert refused["version"] == "2"
        assert str(tmp_path) not in refused["reason"]
        ready = json.loads(ask(url, "GET", "/v2/models/toy/ready")[1])
        assert (ready["ready"], ready["version"], ready["refused"]) == (True, "1", refused)
        assert asking.counted(url, "stm_model_refused", model="toy") == 1
        got, head = infer(url, images)
        assert head["model_version"] == "1"
        np.testing.assert_allclose(got["prediction"], toy.expected(images)["prediction"], rtol=1e-3, atol=1e-3)
        assert "version 2 refused, 1 goes on" in caplog.text
        metrics = Metrics(["toy"])
        versions.write_good(tmp_path, 3)
        versions.point(tmp_path, 3)
        watcher(metrics).poll()
        assert metrics.count("swaps", "toy") == 1
        about = json.loads(ask(url, "GET", "/v2/models/toy")[1])
        assert about["versions"] == ["3"]
        assert "refused" not in about["parameters"]


def _without_a_map(path):
    model = onnx.load(path)
    model.graph.output.remove(next(out for out in model.graph.output if out.name == "distance"))
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "other"}, "its task is 'other', expected 'toy'"),
        ({"targets": [{"name": "gap"}, {"name": "U"}]}, "it predicts gap (1), U (1), expected U (eV), gap (eV)"),
        (
            {"targets": [{"name": "U", "unit": "meV"}, {"name": "gap", "unit": "eV"}]},
            "it predicts U (meV), gap (eV), expected U (eV), gap (eV)",
        ),
        ({"explained": 0}, "its maps explain target 0, expected 1"),
        (_without_a_map, "its output 'distance' is None"),
    ],
)
def test_a_version_that_would_break_clients_is_refused(tmp_path, first, change, message):
    catalog, toy = first
    path = toy.write(tmp_path / "2.onnx", change=change if isinstance(change, dict) else None)
    if callable(change):
        change(path)
    assert not catalog.models["toy"].offer(Version("2", path), opener)
    assert message in catalog.models["toy"].refused["reason"]


def test_a_refused_version_is_not_loaded_again_at_every_poll(tmp_path):
    offered = []

    def offer(name, version):
        offered.append(version.label)
        return version.label != "2"

    number = {"now": "1"}
    watcher = Watcher({"a": "models:/a@b"}, {"a": "1"}, lambda _: Version(number["now"], tmp_path), offer, print, 1)
    for now in "1", "2", "2", "2", "1", "2", "3", "3", "1":
        number["now"] = now
        watcher.poll()
    assert offered == ["2", "2", "3", "1"]


def test_a_refused_version_is_forgotten_when_the_alias_goes_back(tmp_path, first):
    catalog, _ = first
    versions.write_bad(tmp_path, 2, "damaged")
    versions.point(tmp_path, 2)
    watcher = following({"toy": versions.ALIAS}, catalog, opener, versions.resolver(tmp_path), 1)(Metrics(["toy"]))
    watcher.poll()
    assert catalog.models["toy"].refused["version"] == "2"
    versions.point(tmp_path, 1)
    watcher.poll()
    with running(catalog) as url:
        assert "refused" not in json.loads(ask(url, "GET", "/v2/models/toy/ready")[1])
        assert "refused" not in json.loads(ask(url, "GET", "/v2/models/toy")[1])["parameters"]
        assert "stm_model_refused" in ask(url, "GET", "/metrics")[1].decode()
        assert asking.counted(url, "stm_model_refused", model="toy") == 0


def test_a_store_that_is_away_is_told_and_changes_nothing(tmp_path, first, caplog):
    catalog, _ = first
    metrics = Metrics(["toy"])

    def resolve(address):
        raise InputError(f"cannot reach the store for {address}")

    watcher = following({"toy": versions.ALIAS}, catalog, opener, resolve, 1)(metrics)
    for _ in range(3):
        watcher.poll()
    assert metrics.count("poll_failures", "toy") == 3
    assert caplog.text.count("cannot say which version") == 1
    model = catalog.models["toy"]
    assert model.current.label == "1"
    assert "cannot reach the store" in model.describe()["parameters"]["problem"]
    watcher._resolve = versions.resolver(tmp_path)
    versions.point(tmp_path, 1)
    watcher.poll()
    assert model.problem == ""


def test_the_watcher_polls_by_itself(tmp_path, first):
    catalog, _ = first
    versions.write_good(tmp_path, 2)
    versions.point(tmp_path, 2)
    make = following({"toy": versions.ALIAS}, catalog, opener, versions.resolver(tmp_path), 0.05)
    with make(Metrics(["toy"])):
        end = time.monotonic() + 30
        while catalog.models["toy"].current.label != "2":
            assert time.monotonic() < end
            time.sleep(0.02)


def test_models_are_named_on_the_command_line(tmp_path, model_file):
    def resolve(address):
        return Version("7", tmp_path / "x.onnx")

    found = wanted_models([f"a={model_file}", "models:/stm-hubbard@champion", "b=models:/c/3"], None, resolve)
    assert [(one.name, one.version.label, one.followed) for one in found] == [
        ("a", "1", False), ("stm-hubbard", "7", True), ("b", "7", False)
    ]  # fmt: skip
    assert found[0].source == model_file.name
    odd = tmp_path / "a=b.onnx"
    odd.touch()
    assert wanted_models([str(odd)])[0].version.path == odd
    with pytest.raises(InputError, match="two models are named 'a'"):
        wanted_models(["a=x.onnx", "a=y.onnx"])
    with pytest.raises(InputError, match="write NAME=MODEL for each"):
        wanted_models(["x.onnx", "y.onnx"], "a")
    with pytest.raises(InputError, match="named twice, 'a' and 'b'"):
        wanted_models(["a=x.onnx"], "b")
    with pytest.raises(InputError, match="cannot stand in an address"):
        wanted_models(["a b=x.onnx"])
