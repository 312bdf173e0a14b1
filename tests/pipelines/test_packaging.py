"""The distribution has every package, and a host with the serving extra alone can do its work."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIGHT = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.split(".")[0])
sys.meta_path.insert(0, Missing())
from pipelines.cli import main
sys.exit(main({arguments!r}))
"""
HEAVY = {"torch", "torchvision", "timm", "mlflow", "optuna", "onnx", "zarr", "xarray", "sklearn", "matplotlib", "numba"}


def light(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = LIGHT.format(heavy=HEAVY, arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)


def test_every_package_is_listed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("deploy", "pipelines", "stm_models", "tracking")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(settings["packages"]) == found | {"pipelines.presets"}
    assert (ROOT / settings["package-dir"]["pipelines.presets"] / "hubbard" / "quick.yaml").is_file()


def test_what_needs_more_says_what_to_install():
    done = light("simulate", "hubbard", "--out", "x.zarr")
    assert done.returncode == 2
    assert "stm-lab[train]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["predict", "serve"])
def test_files_are_asked_and_served_without_torch_and_mlflow(command):
    done = light(command, "none.onnx", *(["image.npy"] if command == "predict" else []))
    assert done.returncode == 2
    assert "none.onnx" in done.stderr
    assert "stm-lab[train]" not in done.stderr
