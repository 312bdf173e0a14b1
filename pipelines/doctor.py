"""Check this installation: versions, provider actually loaded, GPU, tracking store, disk."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from deploy.serving import provider
from stm_models import __version__
from stm_models.errors import InputError
from tracking.store import connect

__all__ = ["arguments", "describe", "run"]

_PACKAGES = ("torch", "torchvision", "timm", "mlflow", "optuna", "numpy", "numba", "scipy", "finufft", "zarr",
             "xarray", "onnx", "onnxruntime-gpu", "onnxruntime", "shap")  # fmt: skip
_ROOM = 2e9


def arguments(parser: argparse.ArgumentParser) -> None:
    """This command has no options of its own."""


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Look at everything that commands rely on."""
    free = shutil.disk_usage(Path.cwd()).free
    found: dict[str, Any] = {
        "stm-lab": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "provider": _provider(),
        "disk": {"free_bytes": free, "writable": _writable()},
    }
    try:
        store = connect()
        found["store"] = {"location": store.location, "experiments": sorted(store.experiments().values())}
    except InputError as error:
        found["store"] = {"error": str(error)}
    problems = []
    if "error" in found["store"]:
        problems.append(f"store: {found['store']['error']}")
    if free < _ROOM:
        problems.append(f"disk: {free / 1e9:.1f} GB free here, a demo needs {_ROOM / 1e9:.0f} GB")
    if not found["disk"]["writable"]:
        problems.append("disk: this folder cannot be written; change to another one")
    if found["provider"]["cuda_devices"] and found["provider"]["loaded"] != "CUDAExecutionProvider":
        problems.append(f"GPU: there, but not used by onnxruntime: {found['provider']['said']}")
    return {**found, "problems": problems}


def describe(result: dict[str, Any]) -> str:
    """Report, problems last."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    chosen = result["provider"]
    store = result["store"]
    lines = [
        f"stm-lab {result['stm-lab']} on Python {result['python']}, {result['platform']}, {result['cores']} cores",
        f"packages   {versions}",
        f"provider   {chosen['loaded']} (loaded and run), {chosen['cuda_devices']} CUDA devices",
        f"disk       {result['disk']['free_bytes'] / 1e9:.1f} GB free",
        f"store      {store.get('location', 'not usable')}",
    ]
    return "\n".join(lines + [f"problem    {text}" for text in result["problems"]] or ["no problems"])


def _provider() -> dict[str, Any]:
    """Load and run a real graph: a provider that is only listed says nothing."""
    devices = provider.cuda_devices()
    kind = "cuda" if devices else "cpu"
    said = provider.load_cuda_libraries() if devices else ""
    node = helper.make_node("Relu", ["x"], ["y"])
    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([node], "probe", shape[:1], shape[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=provider.options(kind))
    right = np.array_equal(session.run(None, {"x": np.array([-1, 2], np.float32)})[0], [0, 2])
    return {
        "loaded": session.get_providers()[0],
        "correct": bool(right),
        "cuda_devices": devices,
        "said": said,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _writable() -> bool:
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            return True
    except OSError:
        return False
