"""Plots of predictions, overlaid: parity, residuals and coverage of numbers; reliability and precision of places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data.predictions import Predictions
from stm_models.signal.calibration import reliability
from tracking.ui.series import Series, evaluations
from tracking.ui.site import Site
from tracking.ui.svg import Plot

__all__ = ["Sets", "plots", "read"]

_DRAWN = 1500  # points of a series
_LEVELS = np.linspace(0.02, 0.98, 49)
_CALIBRATES = "validation"

Columns = Mapping[str, NDArray[Any]]
Sets = Mapping[str, Mapping[int, list[tuple[Columns, Predictions, str]]]]
"""By set of samples and series: columns, the file that they are from, and the training's run."""


def read(site: Site, found: Sequence[Series]) -> Sets:
    """Return what the runs logged of their predictions, or what evaluations of their models did."""
    files: list[tuple[Series, str, str, Predictions]] = []
    for one in found:
        for row in one.members:
            evaluated = (site.predictions(each.id) for each in evaluations(site, row.id))
            newest = next((logged for logged in evaluated if logged is not None), None)
            for before, logged in (("", site.predictions(row.id)), ("evaluated: ", newest)):
                if logged is not None:
                    files.append((one, row.id, before, logged))
    data: dict[str, set[str]] = {}
    for _, _, before, logged in files:
        data.setdefault(before, set()).add(_digest(logged))
    sets: dict[str, dict[int, list[tuple[Columns, Predictions, str]]]] = {}
    for one, run_id, before, logged in files:
        # One plot never holds answers to different data.
        of_data = f" ({_digest(logged)})" if len(data[before]) > 1 else ""
        for name, columns in logged.sets.items():
            if columns:
                sets.setdefault(f"{before}{name}{of_data}", {}).setdefault(one.number, []).append(
                    (columns, logged, run_id)
                )
    return sets


def _calibrates(name: str) -> bool:
    return name.partition(" (")[0] == _CALIBRATES


def _digest(logged: Predictions) -> str:
    return str(logged.about.get("digest", ""))[:8]


def plots(found: Sequence[Series], sets: Sets, name: str) -> dict[str, Plot]:
    """Draw one set of samples: the plots by what they show."""
    chosen = sets[name]
    files = [logged for ones in chosen.values() for _, logged, _ in ones]
    targets = list(dict.fromkeys(target for logged in files for target in logged.targets))
    drawn: dict[str, Plot] = {}
    for target in targets:
        units = [logged.about.get("units") or {} for logged in files]
        unit = str(next((one[target] for one in units if target in one), ""))
        label = f"{target} ({unit})" if unit not in ("", "1") else target
        drawn |= _numbers(found, sets, name, target, label)
    drawn |= _places(found, chosen, name)
    return {key: plot for key, plot in drawn.items() if not plot.empty}


def _numbers(found: Sequence[Series], sets: Sets, name: str, target: str, label: str) -> dict[str, Plot]:
    parity = Plot(f"parity of {target}, {name}", f"true {label}", f"predicted {label}", 400, 380, square=True)
    residual = Plot(f"residuals of {target}, {name}", f"true {label}", f"predicted minus true {label}")
    coverage = Plot(f"coverage of intervals for {target}, {name}", "stated probability", "share within", 400, 380,
                    square=True)  # fmt: skip
    parity.diagonal()
    residual.level(0.0)
    coverage.diagonal()
    for one in found:
        held = {
            run: columns for key, of_set in sets.items() if _calibrates(key)
            for columns, _, run in of_set.get(one.number, [])
        }  # fmt: skip
        for columns, logged, run in sets[name].get(one.number, []):
            true, predicted = columns.get(f"true:{target}"), columns.get(f"predicted:{target}")
            if true is None or predicted is None or not len(true):
                continue
            chosen = np.unique(np.linspace(0, len(true) - 1, min(len(true), _DRAWN)).astype(int))
            error = float(np.mean(np.abs(predicted - true)))
            words = f"{one.label}: MAE {error:.3g}"
            parity.dots(zip(true[chosen], predicted[chosen], strict=True), one.number, words)
            residual.dots(zip(true[chosen], (predicted - true)[chosen], strict=True), one.number, words)
            if not _calibrates(name) and run in held:
                coverage.line(_conformal(held[run], true, predicted, target), one.number, one.label)
            lower, upper = columns.get(f"lower:{target}"), columns.get(f"upper:{target}")
            level = logged.about.get("level")
            if lower is not None and upper is not None and isinstance(level, float):
                within = float(np.mean((true >= lower) & (true <= upper)))
                coverage.dots([(level, within)], one.number, f"{one.label}: {within:.3f} at {level:g}")
    return {f"parity_{target}": parity, f"residuals_{target}": residual, f"coverage_{target}": coverage}


def _conformal(held: Columns, true: NDArray[Any], predicted: NDArray[Any], target: str) -> list[tuple[float, float]]:
    """Share of samples within the quantile of the validation samples' errors that each stated probability asks for.

    Split conformal prediction: on samples like the validation's both are equal; see Vovk et al. 2005.
    """
    scores = np.sort(np.abs(held.get(f"predicted:{target}", np.empty(0)) - held.get(f"true:{target}", np.empty(0))))
    if not len(scores):
        return []
    errors = np.abs(predicted - true)
    ranks = np.ceil((len(scores) + 1) * _LEVELS).astype(int) - 1
    return [
        (float(level), float(np.mean(errors <= scores[rank])))
        for level, rank in zip(_LEVELS, ranks, strict=True)
        if rank < len(scores)
    ]


def _places(
    found: Sequence[Series], chosen: Mapping[int, list[tuple[Columns, Predictions, str]]], name: str
) -> dict[str, Plot]:
    trust = Plot(f"reliability, {name}", "stated confidence", "share that is right", 400, 380, square=True)
    both = Plot(f"precision against recall, {name}", "recall", "precision", 400, 380)
    trust.diagonal()
    for one in found:
        for columns, _, _ in chosen.get(one.number, []):
            stated, right = columns.get("confidence"), columns.get("right")
            if stated is None or right is None or not len(stated) or not ((stated >= 0) & (stated <= 1)).all():
                continue
            reported = columns.get("reported", np.ones(len(stated))).astype(bool)
            if reported.any():
                bins = reliability(stated[reported], right[reported])
                points = list(zip(bins["confidence"], bins["frequency"], strict=True))
                trust.line(points, one.number, f"{one.label}: ECE {bins['ece']:.3f}")
                trust.dots(points, one.number, one.label)
            order = np.argsort(-np.asarray(stated), kind="stable")
            hits = np.cumsum(np.asarray(right, float)[order])
            total = float(columns["impurities"][0]) if len(columns.get("impurities", ())) else hits[-1]
            if total > 0:
                kept = np.unique(np.linspace(0, len(hits) - 1, min(len(hits), _DRAWN)).astype(int))
                both.line(zip(hits[kept] / total, (hits / np.arange(1, len(hits) + 1))[kept], strict=True), one.number,
                          one.label)  # fmt: skip
    return {"reliability": trust, "precision_recall": both}
