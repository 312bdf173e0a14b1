"""In what runs differ: parameters, code and data; and how good each is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tracking.rows import RunRow
from tracking.ui.series import Series
from tracking.ui.text import mean_of
from tracking.ui.values import Values, network

__all__ = ["Difference", "Score", "differences", "measured", "scores"]

_CODE = {"git.commit": "commit", "git.dirty": "changed since the commit", "mlflow.source.git.commit": "commit (MLflow)"}
_DATA = {
    "data.digest": "digest", "data.recipe": "recipe", "data.evaluation.digest": "digest, evaluated",
    "data.evaluation.recipe": "recipe, evaluated",
}  # fmt: skip
_RUN = {"outcome": "outcome", "cpu": "processor", "gpu": "GPU"}


@dataclass(frozen=True)
class Difference:
    """One line: the section, its name, a text per series, and whether they differ."""

    section: str
    key: str
    texts: Sequence[str]
    differs: bool


@dataclass(frozen=True)
class Score:
    """A metric: by series the best values of its members (none where it was not logged), and which series is best."""

    metric: str
    values: Sequence[Sequence[float]]
    best: int | None
    larger: bool | None


def differences(found: Sequence[Series], everything: bool = False) -> list[Difference]:
    """Return what differs between series, or all; seeds within one are listed."""
    rows = [row for one in found for row in one.members]
    lines = [_line("network", "network", found, lambda row: network(row) or None)]
    for section, names in (("code", _CODE), ("data", _DATA), ("run", _RUN)):
        lines += [_line(section, title, found, _tag(key)) for key, title in names.items()]
    keys = list(dict.fromkeys(key for row in rows for key in row.params))
    lines += [_line("parameters", key, found, _param(key)) for key in sorted(keys)]
    return [line for line in lines if line.differs or (everything and any(line.texts))]


def measured(found: Sequence[Series], values: Values) -> list[str]:
    """Return every metric of the series, those that their task looks at first, without those of the machine."""
    names = {name for one in found for row in one.members for name in row.metrics}
    # Those of baselines and perturbation sets after the run's own.
    known = sorted(names, key=lambda name: ("." in name, name))
    return values.ordered([name for name in known if not name.startswith("system/")])


def scores(found: Sequence[Series], values: Values, metrics: Sequence[str]) -> list[Score]:
    """Return the series' values of metrics."""
    result = []
    for name in metrics:
        lists = [
            [value for row in one.members if (value := values.best(row, name)) is not None and value == value]
            for one in found
        ]
        larger = values.larger(found[0].run, name)
        means = {number: middle for number, one in enumerate(lists) if one and (middle := mean_of(one)) == middle}
        best = None
        if larger is not None and len(means) > 1 and len(set(means.values())) > 1:
            best = (max if larger else min)(means, key=lambda number: means[number])
        result.append(Score(name, lists, best, larger))
    return result


def _line(section: str, key: str, found: Sequence[Series], value: Callable[[RunRow], Any]) -> Difference:
    texts = []
    for one in found:
        own = list(dict.fromkeys(value(row) for row in one.members))
        texts.append(", ".join("—" if text is None else str(text) for text in own) if own != [None] else "")
    return Difference(section, key, texts, len(set(texts)) > 1)


def _tag(key: str) -> Callable[[RunRow], str | None]:
    return lambda row: row.tags.get(key)


def _param(key: str) -> Callable[[RunRow], str | None]:
    return lambda row: row.params.get(key)
