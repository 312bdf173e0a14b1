from __future__ import annotations

from urllib.parse import quote

import mlflow.onnx
import numpy as np
import pytest
from starlette.testclient import TestClient

from stm_models.errors import InputError
from stm_models.files import sha256
from tracking import lineage, models, runs
from tracking.ui.app import create_app

METADATA = {
    "schema": 1, "task": "hubbard", "data": {"digest": "d" * 64, "recipe": "r" * 64},
    "metrics": {"mae": 0.125, "unseen_mae": 0.5}, "explained": 0,
}  # fmt: skip


@pytest.fixture
def logged(store, model_file):
    with runs.start(store, "models", "train") as run:
        uri = models.log_onnx(run, model_file, sha256(model_file), METADATA, np.zeros((1, 1, 4, 4), np.float32))
    return run.id, uri


def test_from_run_to_champion_and_back(store, model_file, logged):
    run_id, uri = logged
    name = f"stm-{run_id[:6]}"
    assert models.champion(store, name) is None
    first = models.register(store, name, run_id)
    second = models.register(store, name, run_id)
    assert (first, second) == (1, 2)
    models.set_alias(store, name, "champion", first)
    models.tag_version(store, name, first, {"gate": "passed"})
    best = models.champion(store, name)
    assert best is not None
    assert (best.version, best.run_id, best.aliases) == (1, run_id, ("champion",))
    assert best.metrics == {"mae": 0.125, "unseen_mae": 0.5}
    assert (best.digest, best.sha256) == ("d" * 64, sha256(model_file))
    assert best.tags["gate"] == "passed"
    for address in (uri, f"runs:/{run_id}", f"models:/{name}@champion", f"models:/{name}/2"):
        assert models.resolve(store, address).read_bytes() == model_file.read_bytes()
    models.set_alias(store, name, "champion", second)
    assert [info.aliases for info in models.versions(store, name)] == [("champion",), ()]


@pytest.mark.parametrize("name", ["colleague's model", 'the "best"', 'it\'s "ours"'])
def test_a_name_with_quotes_and_a_tag_that_is_no_number(store, model_file, logged, name):
    run_id, _ = logged
    models.register(store, name, run_id)
    models.tag_version(store, name, 1, {"metric.note": "n/a"})
    (found,) = models.versions(store, name)
    assert (found.name, found.run_id) == (name, run_id)
    assert found.metrics == {"mae": 0.125, "unseen_mae": 0.5}
    assert found.tags["metric.note"] == "n/a"
    page = TestClient(create_app(store), base_url="http://127.0.0.1")
    for path in ("/", "/models", f"/models/{quote(name)}", f"/runs/{run_id}"):
        assert page.get(path).status_code == 200, path
    assert {each["model"] for each in lineage.trace(store, run_id)["descendants"][0]["versions"]} == {name}


def test_mlflow_itself_can_load_it(local, model_file):
    with runs.start(local, "models", "train") as run:
        uri = models.log_onnx(run, model_file, sha256(model_file), METADATA)
    folder = models.resolve(local, uri).parent
    answer = mlflow.pyfunc.load_model(str(folder)).predict(np.full((2, 1, 4, 4), 3, np.float32))
    np.testing.assert_allclose(answer["prediction"], [[3], [3]])
    assert "onnxruntime" in (folder / "requirements.txt").read_text()
    assert mlflow.models.Model.load(str(folder)).metadata == METADATA


def test_wrong_file_is_never_logged(local, model_file, tmp_path):
    with runs.start(local, "models", "train") as run:
        with pytest.raises(InputError, match="SHA-256"):
            models.log_onnx(run, model_file, "0" * 64, METADATA)
        with pytest.raises(InputError, match="no such file"):
            models.log_onnx(run, tmp_path / "none.onnx", "0" * 64, METADATA)
        (tmp_path / "text.onnx").write_text("not a graph")
        with pytest.raises(InputError, match="no readable ONNX file"):
            models.log_onnx(run, tmp_path / "text.onnx", sha256(tmp_path / "text.onnx"), METADATA)
    with pytest.raises(InputError, match="logged no ONNX model"):
        models.register(local, "stm-none", run.id)


def test_changed_file_is_refused(local, model_file):
    with runs.start(local, "models", "train") as run:
        models.log_onnx(run, model_file, sha256(model_file), METADATA)
    path = models.resolve(local, f"runs:/{run.id}")
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"SHA-256 is \w{64}, expected \w{64}"):
        models.resolve(local, f"runs:/{run.id}")
    path.unlink()
    with pytest.raises(InputError, match="cannot fetch"):
        models.resolve(local, f"runs:/{run.id}")


def test_damaged_cache_is_fetched_again(remote, model_file, tmp_path):
    with runs.start(remote, "models", "train") as run:
        models.log_onnx(run, model_file, sha256(model_file), METADATA)
    path = models.resolve(remote, f"runs:/{run.id}")
    assert path.is_relative_to(tmp_path / "cache")
    path.write_bytes(b"damaged")
    assert models.resolve(remote, f"runs:/{run.id}").read_bytes() == model_file.read_bytes()


def test_unknown_addresses_name_what_exists(local, model_file):
    with runs.start(local, "models", "train") as run:
        models.log_onnx(run, model_file, sha256(model_file), METADATA)
    models.register(local, "stm-known", run.id)
    models.set_alias(local, "stm-known", "champion", 1)
    for address, said in {
        "models:/stm-knwn@champion": "did you mean 'stm-known'",
        "models:/stm-known@champio": "choose from stm-known@champion, stm-known/1",
        "models:/stm-known/7": "stm-known/1",
        "runs:/0123": f"unknown run '0123'.*{run.id}",
        "missing.onnx": "does not exist",
        "weights.pt": "expected models:/NAME@ALIAS",
        "s3://bucket/model.onnx": "expected models:/NAME@ALIAS",
    }.items():
        with pytest.raises(InputError, match=said):
            models.resolve(local, address)
    with pytest.raises(InputError, match="unknown model version"):
        models.set_alias(local, "stm-known", "champion", 9)
    with pytest.raises(InputError, match="cannot set the alias"):
        models.set_alias(local, "stm-known", "v1", 1)


def test_plain_file_is_returned_as_it_is(local, model_file):
    assert models.resolve(local, str(model_file)) == model_file
