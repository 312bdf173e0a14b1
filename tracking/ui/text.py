"""Numbers, durations and texts as the pages show them."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["clip", "deviation", "duration", "finite", "mean_of", "number", "plain_cell", "spread"]

LONGEST = 300  # characters of a value on a page
_INFINITE = 1e300  # MLflow's databases keep infinity as 1.8e308


def number(value: float | None) -> str:
    """Four digits of a number; an empty text for none."""
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def finite(value: float) -> bool:
    """Tell whether a value is a number, and none that stands for infinity."""
    return abs(value) < _INFINITE


def mean_of(values: Sequence[float]) -> float:
    """Mean; infinite, or NaN, where a value is."""
    if all(finite(value) for value in values):
        return math.fsum(values) / len(values)
    return sum(math.copysign(math.inf, value) if abs(value) >= _INFINITE else value for value in values)


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation."""
    middle = mean_of(values)
    if len(values) < 2 or not math.isfinite(middle):
        return number(middle)
    return f"{number(middle)} ± {deviation(values):.2g}"


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1); 0 of one value, infinite or NaN where a value is."""
    if len(values) < 2:
        return 0.0
    middle = mean_of(values)
    # A square root of squares would overflow where the deviation does not.
    return math.hypot(*(value - middle for value in values)) / math.sqrt(len(values) - 1)


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours."""
    if seconds is None:
        return "running"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def clip(text: str, longest: int = LONGEST) -> str:
    """Cut a long text and say how long it is."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text):,} characters)"


def plain_cell(value: object) -> str:
    """Return a cell of a CSV file that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
