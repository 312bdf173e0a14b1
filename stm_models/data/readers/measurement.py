"""What one file gives: a map or a stack of maps, and all that the file says about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stm_models.tasks.inputs import RawMap

__all__ = ["Measurement", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """What to take from a file: an array by ``key``, a signal by its name or number as ``channel``."""

    key: str | None = None
    channel: str | int | None = None


@dataclass(frozen=True)
class Measurement(RawMap):
    """A raw map with its record; rows run along ascending y, columns along ascending x of the scan frame.

    Attributes
    ----------
    kind : str
        The file's format, in words.
    reason : str
        Why ``channel`` was taken; ``channels`` are all of the file.
    orientation : str
        What was done to the rows and columns as stored; empty when the file does not define it.
    settings : mapping of str to float or str
        Set-point and lock-in of the instrument, units in the names.
    notes : tuple of str
        What whoever uses the values must be told.
    """

    kind: str = ""
    reason: str = ""
    channels: tuple[str, ...] = ()
    orientation: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
