"""Check this installation: versions, provider actually loaded, GPU, tracking store, disk."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from deploy.model import provider
from stm_models import __version__
from stm_models.errors import InputError, one_line
from stm_models.machine import cores
from stm_models.versions import installed
from tracking import sqlite_address, store

__all__ = ["arguments", "describe", "run"]

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
        "cores": cores(),
        "versions": installed(),
        "provider": _provider(),
        "disk": {"free_bytes": free, "writable": _writable()},
        "store": _store(),
    }
    return {**found, "problems": _problems(found)}


def describe(result: dict[str, Any]) -> str:
    """Report, problems last."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    chosen = result["provider"]
    ran = " (loaded and run)" if chosen["correct"] else ""
    place = result["store"]
    note = f" ({place['note']})" if "note" in place else ""
    lines = [
        f"stm-lab {result['stm-lab']} on Python {result['python']}, {result['platform']}, {result['cores']} cores",
        f"packages   {versions}",
        f"provider   {chosen['loaded'] or 'not usable'}{ran}, {chosen['cuda_devices']} CUDA devices",
        f"disk       {result['disk']['free_bytes'] / 1e9:.1f} GB free",
        f"store      {place.get('location', 'not usable')}{note}",
    ]
    return "\n".join(lines + ([f"problem    {text}" for text in result["problems"]] or ["no problems"]))


def _problems(found: dict[str, Any]) -> list[str]:
    chosen, disk = found["provider"], found["disk"]
    problems = []
    if "error" in found["store"]:
        problems.append(f"store: {found['store']['error']}")
    if disk["free_bytes"] < _ROOM:
        problems.append(f"disk: {disk['free_bytes'] / 1e9:.1f} GB free here, a demo needs {_ROOM / 1e9:.0f} GB")
    if not disk["writable"]:
        problems.append("disk: this folder cannot be written; change to another one")
    if chosen["loaded"] is None:
        problems.append(f"provider: onnxruntime cannot run a graph: {chosen['said']}")
    elif not chosen["correct"]:
        problems.append(f"provider: {chosen['loaded']} computes a wrong result; install onnxruntime again")
    elif chosen["cuda_devices"] and chosen["loaded"] != "CUDAExecutionProvider":
        problems.append(f"GPU: there, but not used by onnxruntime: {chosen['said']}")
    return problems


def _store() -> dict[str, Any]:
    """Look at the store; one that is not there yet is not made by looking."""
    try:
        absent = store.missing()
        if absent is not None:
            folder = next(parent for parent in absent.parents if parent.exists())
            if not folder.is_dir() or not os.access(folder, os.W_OK):
                return {"error": f"cannot write to {folder}: choose a folder that you may write"}
            return {"location": sqlite_address.address(absent), "experiments": [], "note": "not made yet"}
        opened = store.connect()
        return {"location": opened.location, "experiments": sorted(opened.experiments().values())}
    except (InputError, OSError) as error:
        return {"error": str(error)}


def _provider() -> dict[str, Any]:
    devices = provider.cuda_devices()
    try:
        return _run_graph(devices)
    except Exception as error:  # native libraries raise whatever they like
        said = one_line(error, 200)
        return {"loaded": None, "correct": False, "cuda_devices": devices, "said": said}


def _run_graph(devices: int) -> dict[str, Any]:
    """Load and run a real graph: a provider that is only listed says nothing."""
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


def _writable() -> bool:
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            return True
    except OSError:
        return False
