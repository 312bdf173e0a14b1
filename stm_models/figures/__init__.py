"""Figures: of a regression, of a data set, of a moiré simulation, of one measured map."""

from __future__ import annotations

from stm_models.figures.regression import examples, learning_curve, parity, residuals

__all__ = ["examples", "learning_curve", "parity", "residuals"]
