"""Pictures like those of arXiv:2006.15898: found positions on a bound-state map, and the ratio against the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.signal.peaks import Peaks
from stm_models.tasks.impurity.reproduction_report import runs_of
from stm_models.tasks.reproduction import Finished

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["found_and_reference", "ratio_against_epoch"]

Array = NDArray[Any]
_COLOURS = {
    "no noise": "tab:blue", "noise": "tab:purple", "no noise + reg": "tab:orange", "noise + reg": "tab:green",
}  # fmt: skip
_PANELS = (
    ("all", "ratio", "all maxima: ratio"), ("top", "ratio", "as many as there are: ratio"),
    ("top", "f1", "as many as there are: F1 against the truth"),
)  # fmt: skip


def ratio_against_epoch(finished: Sequence[Finished], experiment: str, ceiling: Mapping[str, float]) -> Figure:
    """Fig. 4 for one experiment: mean over seeds of each ablation, a band of one standard deviation, chance dotted."""
    figure = Figure(figsize=(12.6, 4.0), layout="constrained")
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    for panel, (rule, measure, title) in zip(panels, _PANELS, strict=True):
        for ablation, runs in runs_of(finished, experiment).items():
            epochs = [entry["epoch"] for entry in runs[0].history]
            values = _curves(runs, f"{experiment}.{rule}.{measure}")
            mean, colour = values.mean(axis=0), _COLOURS[ablation]
            panel.plot(epochs, mean, color=colour, lw=1.6, label=ablation)
            if len(values) > 1:
                deviation = values.std(axis=0, ddof=1)
                panel.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.15, lw=0)
            if measure == "ratio":
                chance = _curves(runs, f"{experiment}.{rule}.chance").mean(axis=0)
                panel.plot(epochs, chance, color=colour, lw=1, ls=":")
        if measure == "ratio":
            panel.axhline(ceiling["ratio_of_the_truth"], color="k", lw=0.8, ls="--")
        panel.set(xlabel="epoch", title=title, ylim=(0, 1))
        panel.title.set_fontsize(9)
    panels[0].set_ylabel("share of the reference within 1 px, or F1")
    panels[0].legend(fontsize=7, loc="lower right")
    seeds = len(next(iter(runs_of(finished, experiment).values())))
    figure.suptitle(
        f"{experiment}: {seeds} seeds, band one standard deviation; dotted: chance; dashed: the true positions",
        fontsize=9,
    )
    return figure


def found_and_reference(*, samples: Samples, score: Array, peaks: Peaks, reference: Array, title: str) -> Figure:
    """Fig. 3 for one field: mean map, score S, and found positions on the bound-state map with their reference.

    Parameters
    ----------
    samples : Samples
        The one field.
    score : (H, W) floating
        What the network answers to it.
    peaks : Peaks
        Maxima of ``score``; the highest, as many as there are impurities, are drawn larger.
    reference : (N, 2) floating, px
        y, x.
    title : str
        First line above the panels.

    Raises
    ------
    InputError
        When the data set holds no bound-state maps.
    """
    from stm_models.data.dataset import stored
    from stm_models.tasks.impurity.scoring import truths

    (true,) = truths(samples)
    maps = (samples.images[0].mean(axis=0), score, stored(samples, "bound_state")[0])
    names = ("mean of the prepared maps", "score S", "bound states and their reference")
    figure = Figure(figsize=(13.2, 4.7), layout="constrained")
    strongest = peaks.first(len(true)).positions
    for panel, values, name in zip(figure.subplots(1, 3), maps, names, strict=True):
        low, high = np.percentile(values, [1, 99.5])
        panel.imshow(values, origin="lower", cmap="gray" if name != names[2] else "viridis", vmin=low, vmax=high)
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        if name != names[0]:
            everywhere = peaks.positions
            panel.scatter(*everywhere.T[::-1], s=6, marker="s", facecolors="none", edgecolors="tab:red", linewidths=0.4)
            panel.scatter(*strongest.T[::-1], s=34, marker="s", facecolors="none", edgecolors="red", linewidths=1.2)
        if name == names[2]:
            panel.scatter(*np.asarray(reference).T[::-1], s=10, c="k")
    figure.suptitle(
        f"{title}\nsmall squares: all {len(peaks)} maxima of S; large: the {len(strongest)} highest; dots: reference",
        fontsize=9,
    )
    return figure


def _curves(runs: Sequence[Finished], key: str) -> Array:
    return np.array([[entry[key] for entry in one.history] for one in runs], np.float64)
