"""Imported first: a benchmark may be named like one of the project's packages, which then come before its folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
