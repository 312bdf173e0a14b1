"""What the distance of an image from the training data means, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["verdict"]


def verdict(distance: float, quantiles: Mapping[str, float], doubt: str = "the value") -> dict[str, Any]:
    """Return ``distance``, whether it is ``inside`` what 99 % of held-out images keep, and a ``verdict``.

    ``doubt``: what is not to be trusted beyond it.
    """
    usual = quantiles["0.99"]
    if distance <= usual:
        text = f"like the training data (distance {distance:.3g}, usual up to {usual:.3g})"
        return {"distance": distance, "inside": True, "verdict": text}
    text = (
        f"outside the training data: distance {distance:.3g}, {distance / usual:.3g} times the limit "
        f"{usual:.3g} that 99 % of held-out simulated images keep; do not trust {doubt}"
    )
    return {"distance": distance, "inside": False, "verdict": text}
