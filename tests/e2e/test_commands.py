"""The other commands: help, doctor, train and resume, tune, evaluate, export, promote."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from deploy.model.session import Session
from stm_models.files import sha256
from tracking import runs
from tracking.store import connect


def test_help_is_quick_because_it_imports_nothing_heavy():
    code = (
        "import sys; from pipelines.cli import main; main(['--help']);"
        "heavy = {'torch', 'mlflow', 'optuna', 'numpy', 'zarr'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "simulate" in done.stdout
    assert "doctor" in done.stdout


def test_every_command_explains_itself_and_has_an_entry_point():
    import yaml

    from pipelines.cli import COMMANDS, main

    project = yaml.safe_load((Path(__file__).parents[2] / "MLproject").read_text())
    assert set(project["entry_points"]) == set(COMMANDS)
    # A preset may fix its seed: only one that is given replaces it.
    parameters = [project["entry_points"][name]["parameters"] for name in ("simulate", "train", "tune")]
    assert [each["seed"]["default"] for each in parameters] == [""] * 3
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0


def test_doctor_runs_a_graph_and_opens_the_store(command):
    code, out, err = command("doctor", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["provider"]["correct"] is True
    assert found["provider"]["loaded"].endswith("ExecutionProvider")
    assert "hubbard" in found["store"]["experiments"]


def test_doctor_names_a_store_that_does_not_answer(command, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, out, _ = command("doctor")
    assert code == 0
    assert "problem    store: " in out


def test_same_seed_same_numbers(command, demo):
    arguments = ("train", "hubbard", "--data", str(demo.data), "--preset", "test", "--set", "train.epochs=3", "--json")
    first, second = (json.loads(command(*arguments)[1]) for _ in range(2))
    other = json.loads(command(*arguments, "--seed", "5")[1])
    assert first["metrics"] == second["metrics"] != other["metrics"]
    assert set(first["baselines"]) == {"mean", "ridge", "kernel_ridge"}


def test_states_that_did_not_converge_are_used_only_when_asked(command, tmp_path):
    flagged = str(tmp_path / "flagged.zarr")
    small = "simulate.max_iterations=2;simulate.interaction_count=5;simulate.replicates=2"
    code, out, err = command("simulate", "hubbard", "--preset", "test", "--out", flagged, "--set", small, "--json")
    assert code == 0, err
    assert json.loads(out)["flagged"] == json.loads(out)["groups"] == 10
    arguments = ("train", "hubbard", "--preset", "test", "--data", flagged, "--set", "train.epochs=1", "--json")
    code, _, err = command(*arguments)
    assert code == 2
    assert "no state of" in err
    code, out, err = command(*arguments, "--include-unconverged")
    assert code == 0, err
    assert runs.get(connect(), json.loads(out)["run_id"]).params["split.include_unconverged"] == "true"


def test_an_interrupted_training_resumes_to_the_same_numbers(command, demo, monkeypatch):
    from pipelines.learning import fitting

    arguments = ("train", "hubbard", "--data", str(demo.data), "--preset", "test", "--set", "train.epochs=6", "--json")
    whole = json.loads(command(*arguments)[1])
    original = fitting.Progress.update

    def interrupt(self, count=1, note=""):
        original(self, count, note)
        if self.done == 3 and self.label.startswith("train"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Progress, "update", interrupt)
        code, _, err = command(*arguments)
    assert code == 130
    run_id = err.split("--resume ")[1].split()[0]
    store = connect()
    assert runs.get(store, run_id).outcome == "killed"
    code, out, err = command("train", "hubbard", "--data", str(demo.data), "--resume", run_id, "--json")
    assert code == 0, err
    resumed = json.loads(out)
    assert resumed["run_id"] == run_id
    assert resumed["metrics"] == whole["metrics"]
    assert runs.get(store, run_id).status == "FINISHED"
    assert not list(Path("checkpoints").glob(f"{run_id}*"))


def test_tuning_again_continues_the_study(command, demo):
    arguments = ("tune", "hubbard", "--data", str(demo.data), "--preset", "test", "--set", "tune.epochs=2",
                 "--study", "again", "--json")  # fmt: skip
    first = json.loads(command(*arguments, "--trials", "2")[1])
    second = json.loads(command(*arguments, "--trials", "3")[1])
    assert sum(first["trials"].values()) == 2
    assert sum(second["trials"].values()) == 3
    assert second["best"]["value"] <= first["best"]["value"]


def test_evaluate_says_when_the_data_are_the_training_data(command, demo):
    code, out, err = command("evaluate", demo.model, "--data", str(demo.data))
    assert code == 0, err
    assert "trained on this data set" in out
    found = json.loads(command("evaluate", demo.model, "--data", "demo-output/fresh-unseen.zarr", "--json")[1])
    assert found["trained_on"] is False
    assert found["metrics"]["mae"] == pytest.approx(demo.result["metrics"]["unseen_mae"], rel=1e-6)
    with np.load(runs.download(connect(), found["run_id"], "panel.npz"), allow_pickle=False) as panel:
        assert panel["array:gradient"].shape == panel["images"].shape == (6, 1, 32, 32)
        np.testing.assert_allclose(panel["array:prediction"], panel["targets"], atol=2)


def test_export_writes_a_file_that_the_server_half_reads(command, demo, tmp_path):
    out = tmp_path / "model.onnx"
    code, said, err = command(
        "export", demo.result["best_run"], "--out", str(out), "--json", "--set", "export.eg_draws=7"
    )
    assert code == 0, err
    found = json.loads(said)
    assert {"prediction", "gradient", "distance", "rows", *found["explanations"]} <= set(found["parity"])
    counts = ("kinks", "rounding")
    assert max(value for name, value in found["parity"].items() if name not in counts) <= 1e-4
    details = Session(out, provider="cpu").metadata.details
    assert details["expected_gradients"]["draws"] == 7
    assert details["integrated_gradients"]["incomplete"] <= 0.01
    assert sha256(out) == found["sha256"]


def test_kill_and_run_again_ends_with_the_same_digest(demo, run_stm, clean, tmp_path):
    """kill -9 on the whole command, several times, then to the end: the digest of the undisturbed demo."""

    out = tmp_path / "killed.zarr"
    arguments = ["simulate", "hubbard", "--preset", "test", "--out", str(out), "--workers", "2", "--json"]
    landed = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", *arguments], env=clean, cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        before = _finished(out)
        while process.poll() is None and _finished(out) < before + 5:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        landed += process.wait() == -signal.SIGKILL
        if landed == 3:
            break
    assert landed >= 2
    done = run_stm(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == demo.result["digest"]
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name or path.name.endswith(".lock")]
    stamp = (out / "zarr.json").stat().st_mtime_ns
    assert json.loads(run_stm(*arguments, cwd=tmp_path).stdout)["digest"] == demo.result["digest"]
    assert (out / "zarr.json").stat().st_mtime_ns == stamp


def _finished(out: Path) -> int:
    return len(list((out / "group_result").glob("c*"))) if out.exists() else 0
