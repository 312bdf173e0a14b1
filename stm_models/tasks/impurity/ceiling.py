"""The reference answer of arXiv:2006.15898, fitted to bound-state maps, and how good any detector can look by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.signal.matching import detection_scores, paper_ratio
from stm_models.signal.mixture import reference_positions
from stm_models.tasks.impurity.scoring import TOLERANCE, truths

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["BOUND_STATE", "ceiling", "references"]

Floats = NDArray[np.float64]

BOUND_STATE = "bound_state"
"""Name of the maps at the band bottom in a data set."""


def references(samples: Samples) -> list[Floats]:
    """Positions of each field from its bound-state map, (N, 2) y, x in px; none where no state stands out.

    Raises
    ------
    InputError
        When the data set has no such maps.
    """
    from stm_models.data.dataset import stored

    found = []
    for one in stored(samples, BOUND_STATE):
        try:
            found.append(reference_positions(one).positions)
        except InputError:
            found.append(np.empty((0, 2)))
    return found


def ceiling(samples: Samples, known: Sequence[Floats]) -> dict[str, float]:
    """Ratio that the true positions themselves reach, and how well the reference positions ``known`` fit them.

    Returns
    -------
    dict of float
        ``ratio_of_the_truth`` (the paper's, see `paper_ratio`) and ``reference_f1``.
    """
    truth, shape = truths(samples), (samples.images.shape[2], samples.images.shape[3])
    fits = detection_scores(known, truth, shape=shape, tolerance=TOLERANCE, resamples=1)
    ratio = float(np.mean([paper_ratio(t, k, TOLERANCE) for t, k in zip(truth, known, strict=True)]))
    return {"ratio_of_the_truth": ratio, "reference_f1": fits["f1"]}
