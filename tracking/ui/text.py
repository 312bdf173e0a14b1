"""Numbers, durations and texts as the pages show them."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["clip", "deviation", "duration", "number", "plain_cell", "spread"]

LONGEST = 300  # characters of a value on a page


def number(value: float | None) -> str:
    """Four digits of a number; an empty text for none."""
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2 or not math.isfinite(mean):
        return number(mean)
    return f"{number(mean)} ± {deviation(values):.2g}"


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1); 0 of one value."""
    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


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
