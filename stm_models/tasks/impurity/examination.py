"""What an evaluation tells beyond the scores: rings or spot, and how far the reference answer of the paper is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stm_models.signal.matching import paper_ratio
from stm_models.tasks.impurity import scoring
from stm_models.tasks.impurity.ceiling import BOUND_STATE, ceiling, references
from stm_models.tasks.impurity.occlusion import occlusion_of_model

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["examine"]

Array = NDArray[Any]


def examine(
    answer: Callable[[Array], Array],
    shape: tuple[int, int],
    prediction: Array,
    samples: Samples,
    calibration: Mapping[str, Any],
) -> dict[str, float]:
    """Occlude found impurities, and hold the bound-state maps of the data set, if any, against its truth.

    Parameters
    ----------
    answer : callable
        Images (S, C, H, W) of any size -> score maps (S, 1, H, W).
    shape : (int, int), px
        Height and width of the model's own input.
    prediction : (S, 1, H, W)
        Of the ``samples``.
    calibration : mapping
        See `scoring.calibrate`.

    Returns
    -------
    dict of float
        ``without_core``, ``without_rings``, ``occluded_peaks`` (see `occlusion.Occlusion`); with bound-state maps
        ``reference_f1`` and ``ratio_of_the_truth`` (see `ceiling`), and ``reference_ratio``, the paper's ratio of the
        found positions against these references, which the truth's is the ceiling of.
    """
    from stm_models.data.dataset import holds

    right = scoring.right_positions(prediction, samples, calibration)
    found = occlusion_of_model(answer, shape, samples.images, right).record()
    if not holds(samples, BOUND_STATE):
        return found
    known = references(samples)
    ratios = [
        paper_ratio(one, reference, scoring.TOLERANCE)
        for one, reference in zip(scoring.positions_of(prediction, calibration), known, strict=True)
    ]
    return found | ceiling(samples, known) | {"reference_ratio": float(np.mean(ratios))}
