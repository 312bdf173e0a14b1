"""Reading measured and simulated maps from files: one function for every kind of file."""

from __future__ import annotations

from stm_models.data.readers.kinds import READABLE
from stm_models.data.readers.measurement import Measurement
from stm_models.data.readers.opening import read
from stm_models.data.readers.selection import select
from stm_models.data.readers.stacks import open_stack

__all__ = ["READABLE", "Measurement", "open_stack", "read", "select"]
