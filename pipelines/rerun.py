"""Train a finished run again, with its data set, configuration and seed, and say whether it comes out the same.

Example: stm rerun 0123456789abcdef0123456789abcdef
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from pipelines import settings
from pipelines.addresses import run_of
from pipelines.learning import repeats
from pipelines.learning.fitting import Measured
from pipelines.learning.training_data import training_data
from pipelines.train import recorded
from stm_models.errors import InputError
from tracking import environment, runs
from tracking.lineage import MEMBERS
from tracking.runs import RunRow
from tracking.store import Store, connect

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "run", help="id of a finished training run, runs:/ID, or a version models:/… whose run is meant"
    )
    parser.add_argument("--data", metavar="DATA.zarr", help="where its data set is now, if not where it was")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train again and compare."""
    store = connect()
    row = runs.get(store, run_of(store, args.run))
    _check(row)
    values = runs.configuration(store, row.id)
    chosen = settings.load(values["task"], values["preset"], recorded=values)
    parts = training_data(store, row).parts(args.data)
    changed = _changed(store, row)
    again = recorded(store, chosen, parts, Measured(), tags={"rerun.of": row.id})
    differ = {
        key: {"then": row.metrics[key], "now": value}
        for key, value in again["metrics"].items() if key in row.metrics and row.metrics[key] != value
    }  # fmt: skip
    return {"run_id": again["run_id"], "of": row.id, "same": not differ, "metrics": again["metrics"],
            "differ": differ, "changed": changed, "link": again["link"]}  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """Say whether it came out the same, and what else is different."""
    head = f"run {result['run_id']} repeats {result['of']}: "
    if result["same"]:
        head += f"all {len(result['metrics'])} metrics are the same"
    lines = [head + ("" if result["same"] else f"{len(result['differ'])} of {len(result['metrics'])} metrics differ")]
    lines += [f"  {key}: {each['then']:.6g} then, {each['now']:.6g} now" for key, each in result["differ"].items()]
    lines += [f"  {key} was {each['then']}, is {each['now']}" for key, each in result["changed"].items()]
    return "\n".join(lines)


def _check(row: RunRow) -> None:
    """Refuse what is no single finished training."""
    if repeats.repeated(row) is not None:
        raise InputError(f"run {row.id} is the parent of several trainings: give one of its nested runs")
    if MEMBERS in row.tags:
        raise InputError(f"run {row.id} is an ensemble: train its members again, {row.tags[MEMBERS]}, and join them")
    if "training.recipe" not in row.tags or row.outcome != "complete":
        raise InputError(f"run {row.id} ({row.name}, {row.outcome}) is no finished training: give one")
    if "transductive" in row.tags:
        raise InputError(f"run {row.id} used measured maps: train it again with their files, stm train --experiment")


def _changed(store: Store, row: RunRow) -> dict[str, dict[str, Any]]:
    """Return what is different from the run's environment: code, machine, packages."""
    then: Mapping[str, Any] = json.loads(runs.download(store, row.id, "environment.json").read_text(encoding="utf-8"))
    now = environment.describe()
    pairs: dict[str, tuple[Any, Any]] = {
        key: ((then.get(part) or {}).get(name), (now.get(part) or {}).get(name))
        for key, part, name in (("commit", "git", "commit"), ("dirty", "git", "dirty"), ("processor", "cpu", "model"))
    }
    pairs["python"] = (then.get("python"), now["python"])
    names = {**(then.get("packages") or {}), **now["packages"]}
    pairs |= {name: ((then.get("packages") or {}).get(name), now["packages"].get(name)) for name in names}
    return {key: {"then": old, "now": new} for key, (old, new) in pairs.items() if old != new}
