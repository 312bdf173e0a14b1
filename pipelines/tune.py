"""Search training parameters with Optuna: each trial a nested MLflow run, poor ones pruned, resumable.

Run again with the same --study it continues until TRIALS are done. Choices use unseen values of the target.

Example: stm tune hubbard --data quick.zarr --trials 8
"""

from __future__ import annotations

import argparse
import hashlib
import json
from typing import Any

import optuna

from pipelines import settings
from pipelines.fitting import Fitted, Parts, fit, load_parts, recipe
from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.training.config import TrainConfig
from tracking import datasets, runs, study
from tracking.runs import Run
from tracking.store import Store, connect

__all__ = ["arguments", "describe", "run", "tune"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    settings.arguments(parser)
    parser.add_argument("--data", required=True, metavar="DATA.zarr")
    parser.add_argument("--model", metavar="NAME", help="network (default: the task's)")
    parser.add_argument("--trials", type=int, help="trials in all (default: the preset's)")
    parser.add_argument("--study", metavar="NAME", help="name to continue under (default: made from the configuration)")
    parser.add_argument(
        "--storage", metavar="URL", help="Optuna storage (default: optuna.db beside the tracking store)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Tune."""
    pairs = list(args.assignments)
    pairs += [f"train.network={args.model}"] if args.model else []
    pairs += [f"tune.trials={args.trials}"] if args.trials is not None else []
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=pairs, seed=args.seed)
    store = connect()
    parts = load_parts(args.data, chosen.task, chosen.split, chosen.train.targets)
    return tune(store, chosen, parts, name=args.study, storage=args.storage)


def tune(
    store: Store,
    chosen: settings.Settings,
    parts: Parts,
    *,
    name: str | None = None,
    storage: str | None = None,
) -> dict[str, Any]:
    """Search, record, and return the best trial's training configuration.

    Returns
    -------
    dict
        study, parent (run id), trials by outcome, best (value, unit, train: configuration), importances.
    """
    network = chosen.train.network
    registry.check(network, chosen.train.options)
    setup = _setup(chosen, parts)
    name = name or f"{chosen.task.name}-{network}-{setup[:12]}"
    spaces = {"train": chosen.task.search_space(), "options": registry.space(network)}
    found = study.create_study(
        name, storage or study.beside(store), seed=chosen.tune.seed, pruner=chosen.tune.pruner,
        direction="maximize" if chosen.task.larger_is_better else "minimize",
    )  # fmt: skip
    if found.user_attrs.get("setup", setup) != setup:
        raise InputError(
            f"the study {name!r} was made with other data or another configuration: give another --study, "
            "or leave it out"
        )
    found.set_user_attr("setup", setup)
    # Intermediate values come from the validation states, the verdict from values never seen.
    judged = f"unseen_{chosen.task.metric}" if len(parts.unseen) else chosen.task.metric

    with runs.start(store, chosen.task.name, f"tune {network}", tags={"network": network, "study": name}) as parent:
        parent.config({**chosen.record("split", "tune", "train"), "study": name})
        attributes = parts.samples.attributes
        datasets.log(parent, {**attributes, "samples": len(parts.samples)}, parts.samples.path)
        parent.environment({"tune": chosen.tune.seed, "split": chosen.split.seed})

        def objective(trial: optuna.Trial, record: Run) -> float:
            config = _suggest(trial, chosen, spaces)

            def report(epoch: int, entry: dict[str, float]) -> None:
                trial.report(entry[f"val_{chosen.task.metric}"], epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned(f"pruned after epoch {epoch}")

            fitted: Fitted = fit(record, chosen, config, parts, on_epoch=report, baselines=False)
            trial.set_user_attr("train", config.model_dump(mode="json"))
            trial.set_user_attr("run_id", record.id)
            return fitted.metrics[judged]

        study.run_trials(
            found,
            objective,
            chosen.tune.trials,
            store=store,
            experiment=chosen.task.name,
            parent=parent.id,
            report=_report,
        )
        outcomes = [trial.state.name.lower() for trial in found.trials]
        if "complete" not in outcomes:
            raise InputError(f"no trial of study {name} ran to its end: give more --trials, or tune.pruner=none")
        best = found.best_trial
        importances = study.importances(found)
        parent.metrics({f"best_{judged}": best.value or 0.0})
        result = {
            "study": name,
            "parent": parent.id,
            "trials": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
            "best": {"metric": judged, "value": best.value, "run_id": best.user_attrs["run_id"],
                     "train": best.user_attrs["train"]},
            "importances": importances,
        }  # fmt: skip
        parent.json(result, "study.json")
    return result


def describe(result: dict[str, Any]) -> str:
    """Say what the search found."""
    best = result["best"]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result["trials"].items())
    changed = "  ".join(f"{key}={value}" for key, value in best["train"].items())
    return (
        f"study {result['study']}: {counts}\nbest {best['metric']} {best['value']:.4g} "
        f"in run {best['run_id']}\n  {changed}"
    )


def _setup(chosen: settings.Settings, parts: Parts) -> str:
    """Identify what trials of one study must share: everything but their number."""
    tuned = chosen.tune.model_dump(mode="json", exclude={"trials"})
    about = json.dumps([recipe(chosen, chosen.train, parts), tuned], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()


def _report(row: study.TrialRow) -> None:
    value = "" if row.value is None else f", {row.value:.4g}"
    print(f"trial {row.number}: {row.state}{value}")


def _suggest(trial: optuna.Trial, chosen: settings.Settings, spaces: dict[str, Any]) -> TrainConfig:
    values = study.suggest(trial, spaces["train"], "train")
    options = study.suggest(trial, spaces["options"], "options")
    changed = {
        **values, "options": {**chosen.train.options, **options},
        "epochs": min(chosen.tune.epochs, chosen.train.epochs), "seed": chosen.tune.seed,
    }  # fmt: skip
    return TrainConfig.model_validate({**chosen.train.model_dump(), **changed})
