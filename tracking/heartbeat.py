"""Signs of life of a run, for those on other machines, who cannot see its process."""

from __future__ import annotations

import time
from collections.abc import Mapping

__all__ = ["now", "silent"]

_TAG = "alive"  # when the run's process last said that it lives: seconds since 1970, by its own clock
_SILENT = 3600.0  # seconds, much more than clocks of machines differ and a store is away


def now() -> dict[str, str]:
    """Return the tag of a sign of life."""
    return {_TAG: f"{time.time():.0f}"}


def silent(tags: Mapping[str, str]) -> bool:
    """Tell whether a run has given no sign of life for an hour; False for one that never gave any.

    Others use the same tag for what they like: what is no number is no sign of life.
    """
    try:
        return time.time() - float(tags[_TAG]) > _SILENT
    except (KeyError, ValueError):
        return False
