"""What a model bundle is called on the disk, and what can be read of it without torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASELINE", "INFO", "MEMBER", "PIXEL_MEAN", "REFERENCES", "WEIGHTS", "training_mean"]

WEIGHTS, INFO = "weights.safetensors", "model.json"
REFERENCES = "references."
"""What names of tensors begin with that explanations compare with."""
BASELINE, PIXEL_MEAN = f"{REFERENCES}baseline", "model.pixel_mean"
"""Tensors (C, H, W): the mean of the training images, and what the model takes off every image."""

MEMBER = re.compile(r"model\.network\.members\.\d+\.pixel_mean")
"""The name of a tensor that every member of an ensemble has."""


def training_mean(bundle_dir: str | Path) -> NDArray[np.float32] | None:
    """Return the mean of the images (C, H, W) that a bundle's model was trained on; ``None`` where it keeps none.

    A model that takes images as they are takes off zeros, which say nothing; bundles of before have no baseline.
    """
    from safetensors import safe_open

    with safe_open(Path(bundle_dir) / WEIGHTS, framework="numpy") as file:
        names: Any = file.keys()
        for name in (BASELINE, PIXEL_MEAN):
            if name in names:
                values = np.asarray(file.get_tensor(name), np.float32)
                if values.any():
                    return values
    return None
