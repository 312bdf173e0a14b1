"""What the novelty of an image means, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STRANGE", "UNUSUAL", "verdict"]

UNUSUAL, STRANGE = 0.05, 0.01
"""p-values: images below the second are not to be trusted, those between the two with care."""


def verdict(outputs: Mapping[str, NDArray[Any]], row: int, doubt: str = "the value") -> dict[str, Any]:
    """Return ``novelty``, ``distance``, whether the image is ``inside`` the training data, and a ``verdict``.

    Parameters
    ----------
    outputs : mapping of str to array
        ``novelty`` and ``distance``, (S,), as a model gives them; without a novelty nothing is said.
    row : int
    doubt : str
        What is not to be trusted of a strange image.
    """
    if "novelty" not in outputs:
        return {}
    chance = float(outputs["novelty"][row])
    said: dict[str, Any] = {"novelty": chance}
    if "distance" in outputs:
        said["distance"] = float(outputs["distance"][row])
    share = f"{_percent(chance)} of held-out simulated images lie as far"
    if chance >= UNUSUAL:
        return {**said, "inside": True, "verdict": f"like the training data ({share})"}
    if chance >= STRANGE:
        return {**said, "inside": True, "verdict": f"unusual: {share}; take {doubt} with care"}
    return {**said, "inside": False, "verdict": f"outside the training data: {share}; do not trust {doubt}"}


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < np.float64(0.995) else "all"
