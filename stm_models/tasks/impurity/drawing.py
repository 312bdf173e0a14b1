"""Pictures of found impurities: on the maps, against the truth, and what their confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from stm_models.sampling import evenly
from stm_models.signal.calibration import Calibration, reliability
from stm_models.signal.matching import match
from stm_models.tasks.impurity.occlusion import CORE, RINGS
from stm_models.tasks.impurity.scoring import TOLERANCE, calibration_of, judged, maxima, truths

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples
    from stm_models.tasks.outputs import PlaceMaps

__all__ = ["explanation", "learning_curve", "overlay", "precision_recall", "reliability_diagram", "true_and_found"]

Array = NDArray[Any]
Sets = Mapping[str, tuple["Samples", Array]]
_SHOWN = 3
_EXPLAINED, _VOLTAGES = 4, 8  # rows and columns at most
_VIEW = 16.0  # px around an explained impurity


def overlay(image: Array, found: Array, confidence: Array, extent: tuple[float, float, float, float]) -> Figure:
    """One map with circles at the found positions (N, 2) y, x in the units of ``extent`` (x0, x1, y0, y1)."""
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    panel = figure.subplots()
    _map(panel, image, extent)
    if len(found):
        colours = ScalarMappable(Normalize(0, 1), "viridis")
        rim = colours.to_rgba(np.asarray(confidence))
        panel.scatter(found[:, 1], found[:, 0], s=60, facecolors="none", edgecolors=rim, linewidths=1.5)
        figure.colorbar(colours, ax=panel, label="confidence", shrink=0.8)
    panel.set(xlabel="x (nm)", ylabel="y (nm)", title=f"{len(found)} impurities found")
    return figure


def true_and_found(sets: Sets, record: Mapping[str, Any]) -> Figure:
    """Mean map and score map of some fields, with true (circles) and found (crosses) positions."""
    calibration = calibration_of(record)
    (samples, prediction), *_ = sets.values()
    rows = np.linspace(0, len(samples) - 1, min(_SHOWN, len(samples))).astype(int)
    figure = Figure(figsize=(3.4 * len(rows), 6.6), layout="constrained")
    panels = figure.subplots(2, len(rows), squeeze=False)
    truth = truths(samples)
    for column, row in zip(panels.T, rows, strict=True):
        score = prediction[row, 0]
        found = maxima(score).above(calibration.threshold).positions
        pairs = match(found, truth[row], TOLERANCE)
        wrong = np.setdiff1d(np.arange(len(found)), pairs.found)
        for panel, values in zip(column, (samples.images[row].mean(axis=0), score), strict=True):
            _map(panel, values, None)
            panel.scatter(*truth[row].T[::-1], s=45, facecolors="none", edgecolors="tab:cyan", linewidths=1)
            panel.scatter(*found[pairs.found].T[::-1], s=20, marker="x", c="tab:green", linewidths=1)
            panel.scatter(*found[wrong].T[::-1], s=20, marker="x", c="tab:red", linewidths=1)
        column[0].set_title(f"field {row}: {len(pairs)} right, {len(wrong)} wrong of {len(truth[row])}", fontsize=8)
        column[1].set_title("score", fontsize=8)
    figure.suptitle("circles: true; crosses: found, green right, red wrong", fontsize=9)
    return figure


def precision_recall(sets: Sets, record: Mapping[str, Any]) -> Figure:
    """Precision against recall over all thresholds, with the calibrated one marked."""
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    panel = figure.subplots()
    threshold = calibration_of(record).threshold
    for name, (samples, prediction) in sets.items():
        height, right, total = judged(prediction, samples)
        order = np.argsort(-height, kind="stable")
        hits = np.cumsum(right[order])
        precision, recall = hits / np.arange(1, len(hits) + 1), hits / max(total, 1)
        (line,) = panel.plot(recall, precision, lw=1.2, label=name)
        kept = int(np.count_nonzero(height > threshold))
        if kept:
            panel.plot(recall[kept - 1], precision[kept - 1], "o", color=line.get_color())
    panel.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title="dot: calibrated threshold")
    panel.legend(fontsize=8)
    return figure


def reliability_diagram(sets: Sets, record: Mapping[str, Any]) -> Figure:
    """Share of right positions against stated confidence, of the maxima above the threshold as in the scores."""
    figure = Figure(figsize=(4.6, 4.4), layout="constrained")
    panel = figure.subplots()
    panel.plot([0, 1], [0, 1], "k--", lw=0.8)
    calibration: Calibration = calibration_of(record)
    for name, (samples, prediction) in sets.items():
        height, right, _ = judged(prediction, samples)
        reported = height > calibration.threshold
        if reported.any():
            bins = reliability(calibration.apply(height[reported]), right[reported])
            panel.plot(bins["confidence"], bins["frequency"], "o-", ms=4, lw=1, label=f"{name}: ECE {bins['ece']:.3f}")
    panel.set(xlabel="stated confidence", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    panel.legend(fontsize=8)
    return figure


def learning_curve(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and F1 against epoch."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    epochs = [entry["epoch"] for entry in history]
    for key, panel, colour in (("train_loss", left, "tab:grey"), ("val_f1", right, "tab:blue")):
        values = [entry.get(key, np.nan) for entry in history]
        panel.plot(epochs, values, color=colour, lw=1.2)
        panel.set_ylabel({"train_loss": "training loss", "val_f1": "F1 on validation fields"}[key], color=colour)
    left.set_xlabel("epoch")
    if np.nanmin([entry.get("train_loss", np.nan) for entry in history]) > 0:
        left.set_yscale("log")
    return figure


def explanation(explained: PlaceMaps, voltages: Sequence[str], labels: Sequence[str]) -> Figure:
    """What the scores of the first impurities (rows) depend on at each of the ``voltages`` (columns, a choice of many).

    Each row has its own map for its own impurity, in the middle, and its own symmetric scale of colours.
    """
    rows = min(_EXPLAINED, len(explained.maps))
    chosen = evenly(np.arange(len(voltages)), _VOLTAGES)
    figure = Figure(figsize=(1.7 * len(chosen) + 1.2, 1.75 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, len(chosen), squeeze=False, sharex=True, sharey=True)
    for line, maps, place, label in zip(
        panels, explained.maps, explained.places - explained.corners, labels, strict=False
    ):
        y, x = place
        height, width = maps.shape[1:]
        near = np.hypot(*np.meshgrid(np.arange(height) - y, np.arange(width) - x, indexing="ij")) < _VIEW
        limit = float(np.abs(maps[:, near]).max()) or 1.0
        edges = (-0.5 - x, width - 0.5 - x, -0.5 - y, height - 0.5 - y)
        for panel, index in zip(line, chosen, strict=True):
            shown = panel.imshow(maps[index], origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit, extent=edges)
            for radius in (CORE, RINGS):
                panel.add_patch(Circle((0, 0), radius, fill=False, color="k", lw=0.5, ls=":"))
            panel.set(xlim=(-_VIEW, _VIEW), ylim=(-_VIEW, _VIEW))
            panel.tick_params(labelsize=6)
        line[0].set_ylabel(label, fontsize=8)
        figure.colorbar(shown, ax=list(line), shrink=0.8, pad=0.01).ax.tick_params(labelsize=6)
    for panel, index in zip(panels[0], chosen, strict=True):
        panel.set_title(voltages[index], fontsize=8)
    figure.supxlabel("px from the impurity; dotted: core and rings", fontsize=8)
    figure.suptitle("derivative of each impurity's score", fontsize=9)
    return figure


def _map(panel: Any, values: Array, extent: tuple[float, float, float, float] | None) -> None:
    low, high = np.percentile(values, [1, 99])
    panel.imshow(values, origin="lower", cmap="gray", vmin=low, vmax=max(high, low + 1e-9), extent=extent)
    panel.tick_params(labelsize=7)
