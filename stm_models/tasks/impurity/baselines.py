"""Detectors without training in the form of a network's predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stm_models.signal import detectors
from stm_models.signal.detectors import Detector
from stm_models.tasks.outputs import Predictor

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["predictors"]


def predictors(spec: Mapping[str, Any]) -> dict[str, Predictor]:
    """Blob filter and matched filter for images described by ``spec``: samples to score maps (S, 1, H, W).

    A map's scores are divided by their standard deviation, so that one threshold serves all.
    """
    pixel = 10 * float(spec["pixel_nm"])
    made = {
        "laplacian": detectors.create("laplacian"),
        "matched_filter": detectors.create("matched_filter", material=spec["material"]),
    }

    def predictor(detector: Detector) -> Predictor:
        def predict(samples: Samples) -> NDArray[Any]:
            scores = np.stack([detector(image, spec["biases"], pixel) for image in samples.images])
            return (scores / np.maximum(scores.std(axis=(1, 2), keepdims=True), 1e-12))[:, None]

        return predict

    return {name: predictor(detector) for name, detector in made.items()}
