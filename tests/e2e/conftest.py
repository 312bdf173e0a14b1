"""One small demo through the real command line, shared by the end-to-end tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import browser as browser_tools
from support.outcomes import answer
from tracking import models
from tracking.store import connect

ROOT = Path(__file__).resolve().parents[2]


def environment(**extra: str) -> dict[str, str]:
    """The process's environment without a tracking store of its own, with the project importable."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {**kept, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true", **extra}


def stm(*arguments: str, cwd: Path, timeout: float = 900, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the real command in ``cwd``."""
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *arguments],
        cwd=cwd, env=environment(**extra), text=True, capture_output=True, timeout=timeout, check=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Demo:
    """A finished demo: its folder, the printed object, and what it said."""

    folder: Path
    result: dict[str, Any]
    stdout: str
    stderr: str

    @property
    def model(self) -> str:
        return "models:/stm-hubbard@champion"

    @property
    def onnx(self) -> Path:
        return Path(self.result["onnx"])

    @property
    def data(self) -> Path:
        return Path(self.result["data"])

    @property
    def as_made(self) -> Path:
        """A folder with the databases as the demo left them, whatever tests have added since."""
        return self.folder / "as made"


@pytest.fixture(scope="session")
def clean() -> dict[str, str]:
    return environment()


@pytest.fixture(scope="session")
def run_stm() -> Callable[..., subprocess.CompletedProcess[str]]:
    return stm


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("a demo")
    done = stm("demo", "--preset", "test", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    made = Demo(folder, json.loads(done.stdout), done.stdout, done.stderr)
    made.as_made.mkdir()
    for name in ("mlflow.db", "optuna.db"):
        shutil.copy(folder / name, made.as_made)
    return made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser for one file's tests."""
    with browser_tools.launched() as found:
        yield found


@pytest.fixture
def command(
    demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process, in the demo's folder: exit code, stdout, stderr."""
    from pipelines.cli import main

    monkeypatch.chdir(demo.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def as_before(command, demo):
    """Leave the champion that the demo made, for the tests that follow."""
    store, name = connect(), "stm-hubbard"
    before = models.champion(store, name)
    yield before
    models.set_alias(store, name, "champion", before.version)


@pytest.fixture
def trained(command, demo):
    """Train a network of few seconds; its run."""

    def train(*values, model="mlp"):
        values = ";".join(("train.epochs=1", *values))
        start = ("train", "hubbard", "--data", str(demo.data), "--preset", "test", "--model", model)
        return answer(command(*start, "--set", values, "--json"))

    return train
