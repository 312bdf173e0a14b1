"""What repeated trainings say about a statement: worded from their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

__all__ = ["Difference", "compare", "ordering", "spread", "spread_text"]


@dataclass(frozen=True)
class Difference:
    """Mean over the seeds of a paired difference, its standard deviation, and its 95 % interval."""

    mean: float
    deviation: float
    low: float
    high: float
    wins: int
    seeds: int

    @property
    def verdict(self) -> str:
        """``higher`` or ``lower`` where the interval leaves zero out, else ``undecided``."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "undecided"

    def record(self) -> dict[str, Any]:
        """JSON-able; an interval that two seeds at least are needed for is ``None`` without them."""
        known = bool(np.isfinite(self.low))
        return {
            "difference": self.mean, "deviation": self.deviation, "wins": self.wins, "seeds": self.seeds,
            "interval": [self.low, self.high] if known else None, "verdict": self.verdict,
        }  # fmt: skip

    def words(self) -> str:
        """Say the difference and what it is worth."""
        interval = f", 95 % {self.low:+.3f} to {self.high:+.3f}" if np.isfinite(self.low) else ""
        return f"{self.mean:+.3f} ({self.wins} of {self.seeds} seeds above{interval}): {self.verdict}"


def compare(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference:
    """Compare two values of each seed by Student's t of their differences; seeds of one side alone are left out.

    Raises
    ------
    ValueError
        When they have no seed in common.
    """
    seeds = sorted({*ours} & {*theirs})
    if not seeds:
        raise ValueError("no seed in common")
    steps = np.array([ours[seed] - theirs[seed] for seed in seeds], np.float64)
    mean, wins = float(steps.mean()), int(np.count_nonzero(steps > 0))
    if len(steps) < 2:
        return Difference(mean, 0.0, -np.inf, np.inf, wins, len(steps))
    deviation = float(steps.std(ddof=1))
    reach = float(stats.t.ppf(0.975, len(steps) - 1)) * deviation / np.sqrt(len(steps))
    return Difference(mean, deviation, mean - reach, mean + reach, wins, len(steps))


def ordering(values: Mapping[str, float]) -> str:
    """Names with their values, the largest first."""
    names = sorted(values, key=lambda name: -values[name])
    return " > ".join(f"{name} {values[name]:.3f}" for name in names)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (0 of a single one) and the values themselves."""
    array = np.asarray(values, np.float64)
    deviation = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "deviation": deviation, "values": [float(value) for value in array]}


def spread_text(found: Mapping[str, Any], digits: int = 3) -> str:
    """Write what `spread` found: mean ± standard deviation, or the mean of a single value."""
    if len(found["values"]) < 2:
        return f"{found['mean']:.{digits}f}"
    return f"{found['mean']:.{digits}f} ± {found['deviation']:.{digits}f}"
