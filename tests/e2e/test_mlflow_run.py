"""`mlflow run` on the real project: the entry point attaches to the run that MLflow opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tracking import runs
from tracking.store import connect

ROOT = Path(__file__).resolve().parents[2]


def test_train_through_mlflow_run(demo, clean, monkeypatch):
    # The line of the tutorial, with the demo's data, two values set, and in the folder of the demo.
    line = next(line for line in (ROOT / "docs" / "tutorial.md").read_text().splitlines() if " mlflow run . " in line)
    line = line.replace(".venv/bin:", f"{Path(sys.executable).parent}:").replace("run . ", f"run {ROOT} ")
    line = line.replace("data=small.zarr", f"data='{demo.data}'")
    done = subprocess.run(
        ["sh", "-c", f"{line} -P 'set=train.epochs=3;train.learning_rate=0.002'"],
        env={**clean, "MLFLOW_TRACKING_URI": f"sqlite:///{demo.folder / 'mlflow.db'}"},
        cwd=demo.folder, text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(demo.folder)
    newest = runs.find(connect(), "hubbard")[0]
    assert newest.id in done.stderr
    assert newest.status == "FINISHED"
    assert newest.tags["mlflow.project.entryPoint"] == "train"
    assert newest.params["preset"] == "test"  # MLflow's own, not logged twice
    assert newest.params["train.epochs"] == "3"
    assert newest.params["train.learning_rate"] == "0.002"
    assert {"unseen_mae", "kernel_ridge.unseen_mae"} <= set(newest.metrics)


def test_python_env_has_third_party_pins_only():
    import yaml

    env = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    assert env["dependencies"] == ["-r requirements.lock"]
    lock = (ROOT / "requirements.lock").read_text()
    assert "stm-lab" not in [line.split("==")[0] for line in lock.splitlines()]
    assert "://" not in lock
    assert "--hash=sha256:" in lock
