"""The instrument files that STM_REALDATA names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def nematic() -> Path:
    """A dI/dV stack of twisted double bilayer graphene (Rubio-Verdu et al., Nat. Phys. 18, 196, 2022)."""
    named = os.environ.get("STM_REALDATA")
    if not named:
        pytest.skip("STM_REALDATA is not set: it names the folder with m_nematic.mat and v.mat")
    found = next(iter(sorted(Path(named).rglob("m_nematic.mat"))), None)
    if found is None:
        pytest.skip(f"STM_REALDATA has no m_nematic.mat: {named}")
    return found
