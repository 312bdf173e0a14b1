"""What the novelty of an image means, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stm_models.signal.conformal import least_p

__all__ = ["STRANGE", "UNUSUAL", "beyond_twice", "blind", "is_least", "verdict"]

UNUSUAL, STRANGE = 0.05, 0.01
"""p-values: images below the second are not to be trusted, those between the two with care."""


def blind(groups: int) -> str:
    """Say what p-values of so few held-out states cannot tell; empty where they can tell all.

    Examples
    --------
    >>> blind(12)
    '12 held-out states cannot tell whether an image is unusual'
    >>> blind(60)
    '60 held-out states cannot tell whether an image is outside the training data'
    >>> blind(100)
    ''
    """
    if least_p(groups) >= UNUSUAL:
        return f"{groups} held-out states cannot tell whether an image is unusual"
    if least_p(groups) >= STRANGE:
        return f"{groups} held-out states cannot tell whether an image is outside the training data"
    return ""


def is_least(chance: ArrayLike, groups: int) -> bool:
    """Tell whether p-values of so many held-out states are all the least there is; False where nobody counted them.

    Examples
    --------
    >>> is_least([0.05, 0.05], 19), is_least([0.05, 0.1], 19), is_least(0.05, 0)
    (True, False, False)
    """
    return groups > 0 and bool(np.max(chance) <= least_p(groups) * (1 + 1e-5))  # float32


def beyond_twice(groups: int) -> float:
    """Return the limit of a verdict that is above the least p-value of so many states, but not twice it; 0 for none.

    Examples
    --------
    >>> beyond_twice(300), beyond_twice(1600), beyond_twice(39)
    (0.01, 0.0, 0.05)
    """
    least = least_p(groups) if groups > 0 else 0.0
    return next((limit for limit in (STRANGE, UNUSUAL) if least < limit <= 2 * least), 0.0)


def verdict(
    outputs: Mapping[str, NDArray[Any]], row: int, doubt: str = "the value", novelty: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return ``novelty``, ``distance``, whether the image is ``inside`` the training data, and a ``verdict``.

    Parameters
    ----------
    outputs : mapping of str to array
        ``novelty`` and ``distance``, (S,), as a model gives them; without a novelty nothing is said.
    row : int
    doubt : str
        What is not to be trusted of a strange image.
    novelty : mapping, optional
        What the model's metadata say of its p-values: of how many states (``groups``) they are.
    """
    if "novelty" not in outputs:
        return {}
    chance = float(outputs["novelty"][row])
    said: dict[str, Any] = {"novelty": chance}
    if "distance" in outputs:
        said["distance"] = float(outputs["distance"][row])
    groups = int((novelty or {}).get("groups", 0))
    least = is_least(chance, groups)
    share = f"{'at most ' if least else ''}{_percent(chance)} of held-out simulated images lie as far"
    if least and (unknown := blind(groups)):
        start = "" if chance >= UNUSUAL else "unusual: "
        return {**said, "inside": True, "verdict": f"{start}{share}, but {unknown}; take {doubt} with care"}
    if chance >= UNUSUAL:
        return {**said, "inside": True, "verdict": f"like the training data ({share})"}
    if chance >= STRANGE:
        return {**said, "inside": True, "verdict": f"unusual: {share}; take {doubt} with care"}
    return {**said, "inside": False, "verdict": f"outside the training data: {share}; do not trust {doubt}"}


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < np.float64(0.995) else "all"
