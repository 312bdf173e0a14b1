"""Search spaces, declared by networks and tasks and read by the tuner."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Choice", "Range", "Space"]


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; whole numbers where both bounds are ``int``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[str | int | float | bool, ...]


Space = dict[str, Range | Choice]
