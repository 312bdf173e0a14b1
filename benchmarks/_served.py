"""The model that servers are compared by: a small convolutional network, exported as every model is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx

from deploy.exporting.config import ExportConfig
from deploy.exporting.export import export
from deploy.serving.subgraph import extract
from stm_models.networks import bundle as bundles
from stm_models.networks.model import Model
from stm_models.networks.registry import create, default_options
from stm_models.training.novelty import Novelty

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
    rng = np.random.default_rng(3)
    images = rng.random((24, 1, side, side), np.float32)
    options = {**default_options("conv"), "pool": POOL}
    network = create("conv", (1, side, side), 1, options, seed=0)
    novelty, quantiles = Novelty.fit(images[:16], images[16:], components=4)
    info = {
        "network": "conv", "options": options, "task": "hubbard", "explained": 0,
        "input": {"kind": "ft_ldos", "channels": 1, "height": side, "width": side, "unit": "1", "kx_max": 1.0},
        "targets": [{"name": "U", "unit": "eV", "description": ""}], "data": {"recipe": "r", "digest": "d"},
    }  # fmt: skip
    bundle = bundles.save(
        folder / f"bundle_{side}", Model.for_data(network, images, rng.normal(3, 1, (24, 1))), novelty, info
    )
    metadata = {key: info[key] for key in ("task", "input", "targets", "explained", "data")}
    metadata |= {"run_id": None, "git_commit": None, "metrics": {}, "distance": {"quantiles": quantiles}}
    config = ExportConfig(explanations=(METHOD,))
    full = export(bundle, folder / f"full_{side}.onnx", metadata, config).path
    model = onnx.load_from_string(extract(full.read_bytes(), ["prediction"]))
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    entry.value = json.dumps({**about, "explanations": [], "focusable": False})
    plain = folder / f"plain_{side}.onnx"
    onnx.save(model, plain)
    return plain, full
