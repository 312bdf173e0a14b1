"""One training repeated, with several seeds or on every fold: a parent run with a nested run each, and their spread.

Whatever is finished is kept: an interrupted repetition continues with the nested run that was not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from pipelines.learning.fitting import Fitted, Measured, fit, recipe
from pipelines.learning.network import begun_as, checkpoint_of, forget
from pipelines.learning.parts import Parts, divide, enough_to_train
from pipelines.settings import Settings
from stm_models.errors import InputError
from tracking import datasets, runs
from tracking.runs import Run, RunRow
from tracking.store import Store

__all__ = ["KINDS", "check", "describe", "keep", "nested", "repeat", "repeated", "unfinished"]

KINDS = ("seeds", "folds")

_RESULT = "fitted.json"
_KIND, _COUNT, _NAME = "repeats.kind", "repeats.count", "repeat"


def repeated(row: RunRow) -> tuple[str, int] | None:
    """Return of which kind the repetitions of a run are, and how many; ``None`` for another run."""
    return (row.tags[_KIND], int(row.tags[_COUNT])) if _KIND in row.tags else None


def nested(row: RunRow) -> bool:
    """Tell whether a run is one of several repetitions, nested in their parent."""
    return _NAME in row.tags


def keep(record: Run, fitted: Fitted) -> None:
    """Record of a nested run that ends what the parent reads of it."""
    record.json(asdict(fitted), _RESULT)


def unfinished(store: Store, task: str, kind: str, count: int, about: Mapping[str, Any]) -> str | None:
    """Return the newest parent run of such repetitions that ended before they did.

    Parameters
    ----------
    store : Store
        One that is away has none.
    task : str
        Name of the task, and of its experiment.
    kind, count
        As for `repeat`.
    about : mapping
        Further tags that the run must have.
    """
    tags = {key: str(value) for key, value in {_KIND: kind, _COUNT: count, **about}.items()}
    for row in runs.find(store, task) if store.away is None else ():
        if row.status in ("KILLED", "FAILED") and tags.items() <= row.tags.items():
            return row.id
    return None


def check(kind: str, count: int) -> None:
    """Raise `InputError` for a number of repetitions that tells no spread."""
    if count < 2:
        raise InputError(f"--{kind} is {count}: expected at least 2, or leave it out")


def repeat(
    store: Store,
    chosen: Settings,
    parts: Parts,
    kind: str,
    count: int,
    *,
    measured: Measured | None = None,
    resume: str | None = None,
    about: Mapping[str, Any] | None = None,
    way_on: str | None = None,
) -> dict[str, Any]:
    """Train ``count`` times.

    Parameters
    ----------
    kind : str
        ``"seeds"``: ``train.seed`` and those after it, on one split; ``"folds"``: every fold of the groups once as
        validation.
    resume : str, optional
        The parent run of an interrupted call.
    about : mapping, optional
        Further tags of the parent run.
    way_on : str, optional
        What to do after an interruption; default: give ``--resume``.

    Returns
    -------
    dict
        run_id, network, kind, metrics (mean and std of each), runs (run_id, name and metrics of each), best (the seed
        with the best validation metric; ``None`` for folds, which have different validation samples), metric, link.

    Raises
    ------
    InputError
        For fewer than two repetitions, folds that leave too few groups, or as `pipelines.learning.fitting.fit`.
    """
    check(kind, count)
    task, network = chosen.task, chosen.train.network
    planned = list(_plan(chosen, kind, count))
    for _, each in planned:
        enough_to_train(parts.samples, task, each.split)  # folds that cannot be are told before the first training
    tags = {"network": network, "task": task.name, _KIND: kind, _COUNT: count, **(about or {})}
    with runs.start(store, task.name, f"train {network} {count} {kind}", tags=tags, resume=resume) as parent:
        print(f"run {parent.id}: if interrupted, {way_on or f'continue with --resume {parent.id}'}")
        parent.config(chosen.record("split", "train", "calibrate"))
        attributes = parts.samples.attributes
        datasets.log(parent, {**attributes, "samples": len(parts.samples)}, parts.samples.path)
        parent.environment({"train": chosen.train.seed, "split": chosen.split.seed})
        before = [] if resume is None else runs.find(store, task.name, parent=parent.id)
        children = {row.tags.get(_NAME): row for row in before}
        found: dict[str, dict[str, Any]] = {}
        for name, each in planned:
            wanted, row = recipe(each, each.train, parts, measured), children.get(name)
            if row is not None and row.tags.get("training.recipe", wanted) != wanted:
                raise InputError(f"run {parent.id} was started with other data or measured maps: give the same ones")
            if row is not None and row.status == "FINISHED":
                found[name] = json.loads(runs.download(store, row.id, _RESULT).read_text(encoding="utf-8"))
                continue
            with runs.start(
                store, task.name, f"train {network} {name}", parent=parent.id, tags={_NAME: name},
                resume=None if row is None else begun_as(row) or row.id,
            ) as record:  # fmt: skip
                checkpoint = checkpoint_of(record.id)
                # Of folds one is in memory at a time, its samples for calibration included.
                fitted = fit(
                    record, each, each.train, _parts_of(each, parts, kind), checkpoint=checkpoint, measured=measured
                )
                keep(record, fitted)
                found[name] = asdict(fitted)
        result = _summary(parent.id, network, kind, found, task.metric, task.larger_is_better)
        parent.metrics(
            {f"{key}_{what}": value for key, both in result["metrics"].items() for what, value in both.items()}
        )
        if result["best"]:
            parent.tags({"best": result["best"]["name"], "best.run_id": result["best"]["run_id"]})
        parent.json(result, "repeats.json")
    for one in found.values():
        forget(checkpoint_of(one["run_id"]))
    return {**result, "link": parent.link}


def describe(result: Mapping[str, Any]) -> str:
    """List mean and spread of every metric, and the best seed."""
    lines = [f"run {result['run_id']}: {len(result['runs'])} {result['kind']} of {result['network']}"]
    width = max(map(len, result["metrics"])) + 2
    for key, found in result["metrics"].items():
        lines.append(f"  {key:<{width}}{found['mean']:.4g} ± {found['std']:.2g}")
    if result["best"]:
        best = result["best"]
        lines.append(f"best {result['metric']} on validation {best['value']:.4g}: {best['name']}, run {best['run_id']}")
    return "\n".join(lines)


def _plan(chosen: Settings, kind: str, count: int) -> Iterator[tuple[str, Settings]]:
    for number in range(count):
        if kind == "seeds":
            seed = chosen.train.seed + number
            yield f"seed {seed}", replace(chosen, train=chosen.train.model_copy(update={"seed": seed}))
        else:
            fold = {"folds": count, "fold": number}
            yield f"fold {number}", replace(chosen, split=chosen.split.model_copy(update=fold))


def _parts_of(chosen: Settings, parts: Parts, kind: str) -> Parts:
    return parts if kind == "seeds" else divide(parts.samples, chosen.task, chosen.split)


def _summary(
    run_id: str, network: str, kind: str, found: Mapping[str, Mapping[str, Any]], metric: str, larger_is_better: bool
) -> dict[str, Any]:
    scores = [_flat(each) for each in found.values()]
    keys = [key for key in scores[0] if all(key in each for each in scores)]
    choose = max if larger_is_better else min
    name = choose(found, key=lambda name: found[name]["metrics"][metric])
    best = {"name": name, "run_id": found[name]["run_id"], "value": found[name]["metrics"][metric]}
    return {
        "run_id": run_id, "network": network, "kind": kind, "metric": metric,
        "metrics": {key: _spread([each[key] for each in scores]) for key in keys},
        "runs": [{"name": name, "run_id": each["run_id"], "metrics": each["metrics"]} for name, each in found.items()],
        "best": best if kind == "seeds" else None,
    }  # fmt: skip


def _flat(fitted: Mapping[str, Any]) -> dict[str, float]:
    beside = {f"{name}.{key}": value for name, found in fitted["baselines"].items() for key, value in found.items()}
    return {**fitted["metrics"], **beside}


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
