"""Choosing where onnxruntime computes, and saying what was really chosen."""

from __future__ import annotations

import contextlib
import ctypes
import io
from typing import Any

import onnxruntime

__all__ = ["PROVIDERS", "cuda_devices", "load_cuda_libraries", "options"]

PROVIDERS = ("auto", "cpu", "cuda")


def cuda_devices() -> int:
    """Count the CUDA devices that the driver sees; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def load_cuda_libraries() -> str:
    """Load CUDA's and cuDNN's libraries from installed packages; return what onnxruntime complained of."""
    said = io.StringIO()
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is None:
        return ""
    try:
        # It prints its complaints to stdout, where a command's JSON goes.
        with contextlib.redirect_stdout(said):
            preload()
    except (OSError, RuntimeError) as error:
        said.write(str(error))
    return " ".join(said.getvalue().split())


def options(kind: str) -> list[Any]:
    """Return onnxruntime's provider list for ``"cpu"`` or ``"cuda"``."""
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    # TF32 keeps ten bits of the mantissa, too few for parity with the model that was exported.
    return [("CUDAExecutionProvider", {"use_tf32": 0}), "CPUExecutionProvider"]
