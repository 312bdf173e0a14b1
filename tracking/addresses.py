"""How models are addressed."""

from __future__ import annotations

import re

__all__ = ["MODEL", "REGISTERED"]

MODEL = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID or FILE.onnx"
"""Every form of an address, in words."""
REGISTERED = re.compile(r"models:/+([^/@]+)[@/]([^/@]+)")
"""An address of a registered version: its name, and its alias or number."""
