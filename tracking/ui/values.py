"""What a key of the table means for a run: an own property, a metric by its best value, a parameter or a tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache

from stm_models.tasks import registry as tasks
from stm_models.tasks.base import Task
from tracking.rows import RunRow
from tracking.snapshot import Extremes, Snapshot

__all__ = ["OWN", "Values", "direction", "network", "task_of"]

OWN = {
    "name": "run", "experiment": "experiment", "outcome": "outcome", "network": "network", "digest": "data",
    "start": "started", "seconds": "duration", "id": "id", "status": "status",
}  # fmt: skip
"""Properties that every run has, with their titles."""
_KINDS = {"metric": "metrics", "param": "params", "tag": "tags"}
_LOWER = ("loss", "mae", "mse", "rmse", "error", "latency")
_HIGHER = ("accuracy", "auc", "f1", "r2", "precision", "recall")


def task_of(row: RunRow) -> Task | None:
    """Return the task that a run belongs to, by its tag or its experiment's name; ``None`` for another run."""
    return _task(row.tags.get("task"), row.experiment)


@lru_cache(maxsize=4096)
def _task(tag: str | None, experiment: str) -> Task | None:
    return next((tasks.get(name) for name in (tag, experiment) if name in tasks.names()), None)


@lru_cache(maxsize=4096)
def direction(task: Task | None, name: str) -> bool | None:
    """Tell whether a larger metric is better: as the task says; without one by a few usual names; else ``None``."""
    if task is not None:
        return task.direction(name)
    words = f"_{name.rpartition('.')[2].lower()}_"
    if any(f"_{known}_" in words for known in _LOWER):
        return False
    return True if any(f"_{known}_" in words for known in _HIGHER) else None


def network(row: RunRow) -> str:
    """Return the name of the network that a run trained, or an empty text."""
    named: list[Mapping[str, str]] = [row.tags, row.params]
    for values in named:
        for key, text in values.items():
            if key.rpartition(".")[2] == "network":
                return text
    return ""


class Values:
    """Looks values up in one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    @cached_property
    def metrics(self) -> list[str]:
        """Names of all metrics, sorted, those of the machine left out."""
        found = {name for row in self.snapshot.rows for name in row.metrics}
        return sorted(name for name in found if not name.startswith("system/"))

    @cached_property
    def params(self) -> list[str]:
        """Names of all parameters, sorted."""
        return sorted({name for row in self.snapshot.rows for name in row.params})

    @cached_property
    def tags(self) -> list[str]:
        """Names of all tags but MLflow's own, sorted."""
        found = {name for row in self.snapshot.rows for name in row.tags}
        return sorted(name for name in found if _own_tag(name))

    @cached_property
    def keys(self) -> list[str]:
        """Everything that can be asked for."""
        prefixed = [f"param.{name}" for name in self.params] + [f"tag.{name}" for name in self.tags]
        return [*OWN, *self.metrics, *prefixed, *self.params, *self.tags]

    @cached_property
    def _by_id(self) -> dict[str, RunRow]:
        return self.snapshot.by_id

    @cached_property
    def _keys(self) -> set[str]:
        return set(self.keys)

    def metric_of(self, key: str) -> str | None:
        """Return the metric that a key names, as such or as ``metric.NAME``; ``None`` where it names none."""
        kind, _, name = key.partition(".")
        if kind.removesuffix("s") == "metric" and name in self._measured:
            return name
        return key if key in self._measured else None

    def knows(self, key: str) -> bool:
        """Tell whether any run has such a thing."""
        kind, _, name = key.partition(".")
        kind = kind.removesuffix("s")
        if kind in _KINDS and name in getattr(self, _KINDS[kind]):
            return True
        return key in self._keys or any(known.endswith(f".{key}") for known in (*self.params, *self.tags))

    def of(self, row: RunRow, key: str) -> float | str | None:
        """Return the value of ``key`` for a run: a number, a text, or ``None``.

        ``metric.NAME``, ``param.NAME`` and ``tag.NAME`` (or with an ``s``) are one kind; a bare name is an own
        property, a metric, a parameter or a tag, then the parameter or tag whose last part it is (``learning_rate``).
        """
        kind, _, name = key.partition(".")
        kind = kind.removesuffix("s")
        if kind == "metric" and name in row.metrics:
            return self.best(row, name)
        if kind == "param" and name in row.params:
            return row.params[name]
        if kind == "tag" and name in row.tags:
            return row.tags[name]
        if key in OWN:
            return own(row, key) or (self._evaluated(row) if key == "network" else None)
        if key in row.metrics:
            return self.best(row, key)
        for values in (row.params, row.tags):
            if key in values:
                return values[key]
        ending = f".{key}"
        named = [*row.params.items(), *((known, text) for known, text in row.tags.items() if _own_tag(known))]
        return next((text for known, text in named if known.endswith(ending)), None)

    def shown(self, row: RunRow, key: str) -> float | str | None:
        """Return what a column has for a run: as `of`, but among a metric's values no parameter of the same name."""
        return None if key in self._measured and key not in row.metrics else self.of(row, key)

    @cached_property
    def _measured(self) -> set[str]:
        return set(self.metrics) - set(OWN)

    def _evaluated(self, row: RunRow) -> str | None:
        """Return the network of the run that an evaluation is of."""
        run = self._by_id.get(row.tags.get("evaluated.run", ""))
        return None if run is None else network(run) or None

    def best(self, row: RunRow, metric: str) -> float | None:
        """Return the best value that a metric ever had, the last one where no direction is known."""
        last = row.metrics.get(metric)
        pair = self.extremes(row).get(metric)
        if pair is None or (larger := self.larger(row, metric)) is None:
            return last
        return pair[1] if larger else pair[0]

    def larger(self, row: RunRow, metric: str) -> bool | None:
        """Tell whether a larger value is better."""
        return direction(task_of(row), metric)

    def extremes(self, row: RunRow) -> Extremes:
        """Return smallest and largest values of a run's metrics."""
        return self.snapshot.extremes.get(row.id, {})

    def ordered(self, metrics: Sequence[str]) -> list[str]:
        """Return metrics with those first that the runs' tasks put into their own tables."""
        first: list[str] = []
        for task in {id(task): task for row in self.snapshot.rows if (task := task_of(row))}.values():
            first += [f"{before}{task.metric}" for before in ("unseen_robust_", "robust_", "unseen_")]
            first += [column.metric for column in task.columns]
        known = set(metrics)
        chosen = [name for name in dict.fromkeys(first) if name in known]
        return [*chosen, *(name for name in metrics if name not in set(chosen))]


def _own_tag(name: str) -> bool:
    return not name.startswith("mlflow.")


def own(row: RunRow, key: str) -> float | str | None:
    """Return a property of `OWN`."""
    if key == "seconds":
        return row.seconds
    if key == "start":
        return f"{row.start:%Y-%m-%d %H:%M:%S}"
    if key == "network":
        return network(row) or None
    if key == "digest":
        return row.tags.get("data.digest") or row.tags.get("data.evaluation.digest")
    return str(getattr(row, key))
