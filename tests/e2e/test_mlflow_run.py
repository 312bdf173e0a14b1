"""`mlflow run` on the real project: the entry point attaches to the run that MLflow opened."""

from __future__ import annotations

import argparse
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.projects._project_spec import load_project

from pipelines.cli import _MODULES, COMMANDS
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


def asked(entry_point, given):
    """What the command of an entry point understands when MLflow fills in ``given``."""
    command = load_project(ROOT).get_entry_point(entry_point).compute_command(given, None)
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "pipelines"]
    module = importlib.import_module(f"pipelines.{_MODULES.get(words[3], words[3])}")
    parser = argparse.ArgumentParser()
    module.arguments(parser)
    return vars(parser.parse_args(words[4:]))


@pytest.mark.parametrize(
    ("entry_point", "given", "expected"),
    [
        ("train", {}, {"seeds": None, "folds": None, "seed": None}),  # that of the preset
        ("train", {"seed": "5"}, {"seed": 5}),
        ("train", {"seeds": "3"}, {"seeds": 3, "folds": None}),
        ("train", {"folds": "4", "set": "train.epochs=3;split.seed=1"},
         {"folds": 4, "seeds": None, "assignments": ["train.epochs=3;split.seed=1"]}),
        ("tune", {}, {"trials": None, "workers": 1, "executor": "local", "seeds": None}),
        ("tune", {"workers": "2", "trials": "6", "study": "my own", "from": "earlier", "seeds": "2",
                  "executor": "dask:a:1", "storage": "sqlite:///a b.db"},
         {"workers": 2, "trials": 6, "study": "my own", "earlier": "earlier", "seeds": 2,
          "executor": "dask:a:1", "storage": "sqlite:///a b.db"}),
    ],
)  # fmt: skip
def test_parameters_arrive(entry_point, given, expected):
    assert asked(entry_point, given).items() >= expected.items()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_entry_point_gives_its_command_what_that_understands(name):
    entry = load_project(ROOT).get_entry_point(name)
    needed = {key: "value" for key, parameter in entry.parameters.items() if parameter.default is None}
    values = asked(name, needed)
    assert {"value"} >= {values[key] for key in needed if key in values}


def test_what_is_no_number_is_told(capsys):
    with pytest.raises(SystemExit):
        asked("train", {"seeds": "two"})
    assert "--seeds: invalid int value: 'two'" in capsys.readouterr().err
