"""Where both sides of a benchmark compute: the session that does, and what to call it."""

from __future__ import annotations

import onnxruntime
import torch

from deploy.model.provider import Runtime, open_model

__all__ = ["called", "opened"]


def opened(content: bytes, device: str = "cpu", threads: int = 1) -> onnxruntime.InferenceSession:
    """Open a graph on ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        Where onnxruntime does not compute on the GPU that was asked for.
    """
    return open_model(content, "the graph", Runtime(provider=device, threads=threads))[2]


def called(device: str) -> str:
    """Name the GPU, or return ``cpu``."""
    return torch.cuda.get_device_name() if device == "cuda" else device
