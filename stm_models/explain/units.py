"""In what unit a map is."""

from __future__ import annotations

__all__ = ["SLOPES", "unit_of"]

SLOPES = ("gradient", "guided")
"""Explanations that tell how the prediction changes with a pixel; all others tell what a pixel contributes."""


def unit_of(method: str, target: str, image: str) -> str:
    """Return the unit of a map, from those of target and image: ``eV per |F|/|F(0)|`` of a slope, ``eV`` else.

    Examples
    --------
    >>> unit_of("gradient", "eV", "a.u."), unit_of("shap", "eV", "a.u.")
    ('eV per a.u.', 'eV')
    """
    return f"{target} per {image}" if method in SLOPES else target
