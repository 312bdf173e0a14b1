"""Options of commands arrive at what they are for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.exporting import triton
from pipelines import export, promote, report, rerun, train
from pipelines.simulating import simulation
from pipelines.simulating.chains import simulate_chains
from stm_models.errors import InputError
from stm_models.physics.moire import eigen
from tracking import models


@pytest.fixture
def exported(monkeypatch, tmp_path):
    """What `stm export` gives on, instead of doing it."""
    given = SimpleNamespace(config=None, repositories=[])
    done = SimpleNamespace(
        path=tmp_path / "m.onnx", sha256="", opset=20, size_bytes=0, parity={"prediction": 0.0}, seconds=0.0,
        explanations=[], refused={}, precision={"kind": "fp32"},
    )  # fmt: skip

    def publish(store, task, run_id, out, config):
        given.config = config
        return done, 1

    def write_repository(model, folder, name):
        given.repositories.append((model, folder, name))
        return [folder / name / "config.pbtxt"]

    monkeypatch.setattr(export, "connect", lambda: None)
    monkeypatch.setattr(export.runs, "get", lambda *_: SimpleNamespace(tags={"network": "mlp", "task": "hubbard"}))
    monkeypatch.setattr(export, "publish", publish)
    monkeypatch.setattr(triton, "write_repository", write_repository)
    return given


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_precision_of_an_export(stm, exported, precision):
    code, _, error = stm("export", "r", "--out", "m.onnx", "--precision", precision, "--set", "export.seed=5")
    assert (code, error) == (0, "")
    assert (exported.config.precision, exported.config.seed) == (precision, 5)
    assert exported.repositories == []


def test_triton_repository_of_an_export(stm, exported, tmp_path):
    code, out, _ = stm("export", "r", "--out", "m.onnx", "--triton", tmp_path / "repository")
    assert code == 0
    assert exported.config.precision == "fp32"
    assert exported.repositories == [(tmp_path / "m.onnx", tmp_path / "repository", "stm-hubbard")]
    assert f"Triton: {tmp_path / 'repository' / 'stm-hubbard' / 'config.pbtxt'}" in out


@pytest.mark.parametrize("address", ["r1", "runs:/r1", "models:/stm-hubbard/1", "models:/stm-hubbard@champion"])
@pytest.mark.parametrize(
    ("module", "words"),
    [
        (export, ["export", "{}", "--out", "m.onnx"]),
        (promote, ["promote", "hubbard", "--run", "{}"]),
        (rerun, ["rerun", "{}"]),
        (train, ["train", "hubbard", "--data", "a.zarr", "--resume", "{}"]),
    ],
)
def test_a_run_is_named_alike_everywhere(stm, monkeypatch, module, words, address):
    asked = []

    def get(store, run_id):
        asked.append(run_id)
        raise InputError("enough")

    monkeypatch.setattr(module, "connect", lambda: None)
    monkeypatch.setattr(module.runs, "get", get)
    monkeypatch.setattr(models, "version", lambda *_: SimpleNamespace(run_id="r1"))
    code, _, error = stm(*(word.format(address) for word in words))
    assert (code, asked) == (2, ["r1"]), error


@pytest.mark.parametrize(
    "words", [["lineage", "r1"], ["report", "--out", "r.html"], ["predict", "models:/stm-hubbard/1", "a.npy"]]
)
def test_who_only_reads_the_store_makes_none(stm, monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, _, error = stm(*words)
    assert code == 2
    assert f"there is no tracking store at {tmp_path / 'mlflow.db'}" in error
    assert not list(tmp_path.iterdir())


def test_what_a_report_is_told(stm, monkeypatch, tmp_path):
    given = {}

    def build(store, experiment, chosen, **options):
        given.update(options, experiment=experiment, chosen=chosen)
        return "<p>", {"lines": 1, "runs": [], "searches": 0, "models": []}

    monkeypatch.setattr(report, "connect", lambda **_: None)
    monkeypatch.setattr(report, "build", build)
    code, *_ = stm(
        "report", "--out", tmp_path / "r.html", "--search", "cnn seed=1", "--runs", "a,b", "--experiment", "hubbard",
        "--storage", "sqlite:///s.db",
    )  # fmt: skip
    assert code == 0
    assert given == {
        "query": "cnn seed=1", "chosen": ["a", "b"], "experiment": "hubbard", "studies": "sqlite:///s.db",
    }  # fmt: skip
    assert Path(tmp_path / "r.html").read_text() == "<p>"


def test_device_of_a_simulation_reaches_its_solver(stm, monkeypatch, tmp_path):
    def here(pool, chains, store, arguments, bar):
        simulate_chains(path=Path(store.path), chains=chains, **arguments)

    monkeypatch.setattr(simulation, "map_chains", here)  # in this process, not in workers
    monkeypatch.setattr(eigen, "_gpu", lambda: False)
    small = ("index=1", "dielectric=null", "k_mesh=1", "image_size=9", "replicates=1", "interaction_count=2")
    options = [word for one in small for word in ("--set", f"simulate.{one}")]
    for device, expected in (("cuda", 2), ("cpu", 0), ("auto", 0)):
        code, _, error = stm("simulate", "hubbard", *options, "--device", device, "--out", tmp_path / device)
        assert code == expected, error
        assert ("torch sees no GPU here" in error) == (device == "cuda")
