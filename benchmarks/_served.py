"""The model that servers are compared by: a small convolutional network, exported as every model is."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from _models import make

from deploy.exporting.config import ExportConfig
from deploy.exporting.export import export
from deploy.model.subgraph import extract
from stm_models.networks.registry import default_options

__all__ = ["METHOD", "write_models"]

METHOD = "grad_cam"
POOL = 4


def write_models(folder: Path, side: int) -> tuple[Path, Path]:
    """Write a model of images of ``side`` pixels.

    Returns
    -------
    plain : Path
        With the prediction alone, for every server.
    full : Path
        As exported, with `METHOD`, for ours.
    """
    bundle, metadata = make("conv", (1, side, side), folder / str(side), {**default_options("conv"), "pool": POOL})
    config = ExportConfig(explanations=(METHOD,))
    full = export(bundle, folder / f"full_{side}.onnx", metadata, config).path
    model = onnx.load_from_string(extract(full.read_bytes(), ["prediction"]))
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    entry.value = json.dumps({**about, "answers": ["prediction"], "explanations": [], "focusable": False})
    plain = folder / f"plain_{side}.onnx"
    onnx.save(model, plain)
    return plain, full
