"""onnxruntime tells nobody what is done with it, and writes no identity of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("module", ["deploy.model.session", "pipelines.doctor", "deploy.exporting.write"])
def test_importing_it_writes_nothing(module, tmp_path):
    kept = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "CI")}
    places = {"HOME": tmp_path / "home", "TMPDIR": tmp_path / "tmp"}
    for place in places.values():
        place.mkdir()
    environment = {**kept, **{name: str(place) for name, place in places.items()}, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", f"import {module}"], env=environment, cwd=tmp_path, check=True)
    names = [path.name for place in places.values() for path in place.rglob("*")]
    assert not [name for name in names if "onnx" in name or name in (".ses", "deviceid", "Microsoft")], names
