"""The file conventions of the public code to arXiv 2602.18890."""

from __future__ import annotations

from stm_models.tasks.hubbard.conventions.images import PngPictures
from stm_models.tasks.hubbard.conventions.ldos import LdosText

__all__ = ["CONVENTIONS"]

CONVENTIONS = {"ldos": LdosText(), "images": PngPictures()}
