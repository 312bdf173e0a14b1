"""The models that servers are compared by, exported as every model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
from _models import make

from deploy.exporting.config import ExportConfig
from deploy.exporting.export import export
from deploy.model.subgraph import extract
from stm_models.networks.registry import default_options
from stm_models.physics.moire.lattice import build

__all__ = ["METHODS", "write_models"]

METHODS = {"conv": "grad_cam", "lattice": "gradient", "timm:mobilenetv3_small_100": "grad_cam"}
"""The networks, and what explains them: a paper's, the default for FT-LDOS images, and one made for small machines."""


def write_models(folder: Path, network: str, side: int) -> tuple[Path, Path]:
    """Write a model of images of ``side`` pixels.

    Returns
    -------
    plain : Path
        With the prediction alone, for every server.
    full : Path
        As exported, with the network's method, for ours.
    """
    bundle, metadata = make(network, (1, side, side), folder / str(side), _options(network, side))
    config = ExportConfig(explanations=(METHODS[network],))
    full = export(bundle, folder / f"full_{side}.onnx", metadata, config).path
    model = onnx.load_from_string(extract(full.read_bytes(), ["prediction"]))
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    entry.value = json.dumps({**about, "answers": ["prediction"], "explanations": [], "focusable": False})
    plain = folder / f"plain_{side}.onnx"
    onnx.save(model, plain)
    return plain, full


def _options(network: str, side: int) -> dict[str, Any]:
    """Return a network's options: ``conv`` sees means of 4 x 4 pixels, ``lattice`` the window of preset quick."""
    own = {
        "conv": {"pool": 4},
        "lattice": {
            "vectors": build(5).reciprocal.tolist(),
            "pixel": [2 * 6.912 / (side - 1), 2 * 7.981 / (side - 1)],
            "peak": 0.131,
        },
    }
    return {**default_options(network), **own.get(network, {})}
