"""Figures of a regression: examples, learning curve, parity, residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.sampling import evenly
from stm_models.tasks.inputs import Axes

__all__ = ["examples", "learning_curve", "parity", "residuals"]

Floats = NDArray[Any]
_DECADES = 5


def examples(
    images: Floats, values: Floats, *, label: str, unit: str, image_unit: str, axes: Axes, count: int = 6
) -> Figure:
    """Show images spread over the target on one logarithmic scale with physical axes.

    Parameters
    ----------
    images : (S, C, H, W) float32
        The first channel is shown.
    values : (S,) float64
        Target of each image.
    label, unit : str
        Of the target.
    image_unit : str
        Of the pixels.
    axes : Axes
    """
    order = np.argsort(values, kind="stable")
    chosen = evenly(order, count)
    highest = float(images[chosen, 0].max())
    shown = np.log10(np.maximum(images[chosen, 0], highest * 10.0**-_DECADES))
    figure = Figure(figsize=(2.2 * len(chosen), 2.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(chosen), sharey=True))
    for panel, picture, index in zip(panels, shown, chosen, strict=True):
        drawn = panel.imshow(
            picture, origin="lower", extent=axes.extent, cmap="magma", vmin=shown.min(), vmax=shown.max()
        )
        panel.set_title(f"{label} = {values[index]:.2f} {unit}", fontsize=9)
        panel.set_xlabel(axes.labels[0])
    panels[0].set_ylabel(axes.labels[1])
    figure.colorbar(drawn, ax=list(panels), label=f"log10 {image_unit}", shrink=0.8)
    return figure


def learning_curve(history: Sequence[Mapping[str, float]], *, unit: str) -> Figure:
    """Show the training loss and the validation error over the epochs."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axis = figure.subplots()
    epochs = [entry["epoch"] for entry in history]
    axis.semilogy(epochs, [entry["train_loss"] for entry in history], label="training loss (standardised)")
    axis.semilogy(epochs, [entry["val_mae"] for entry in history], label=f"validation MAE ({unit})")
    axis.set_xlabel("epoch")
    axis.legend()
    return figure


def parity(sets: Mapping[str, tuple[Floats, Floats]], *, label: str, unit: str) -> Figure:
    """Show predicted against true values of some sets, each (true (S,), predicted (S,))."""
    figure = Figure(figsize=(4, 4), layout="constrained")
    axis = figure.subplots()
    for name, (true, predicted) in sets.items():
        error = np.abs(predicted - true).mean()
        axis.plot(true, predicted, ".", markersize=4, label=f"{name}: MAE {error:.3f} {unit}")
    low, high = axis.get_xlim()
    axis.plot([low, high], [low, high], "k-", linewidth=0.6)
    axis.set_xlabel(f"true {label} ({unit})")
    axis.set_ylabel(f"predicted {label} ({unit})")
    axis.legend()
    return figure


def residuals(sets: Mapping[str, tuple[Floats, Floats]], *, label: str, unit: str) -> Figure:
    """Show predicted minus true against the true value of some sets, each (true (S,), predicted (S,))."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    for name, (true, predicted) in sets.items():
        axis.plot(true, predicted - true, ".", markersize=4, label=name)
    axis.axhline(0, color="k", linewidth=0.6)
    axis.set_xlabel(f"true {label} ({unit})")
    axis.set_ylabel(f"predicted minus true ({unit})")
    axis.legend()
    return figure
