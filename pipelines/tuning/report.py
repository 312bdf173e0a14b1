"""What a search found: a summary, figures, and words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipelines.learning import repeats
from pipelines.tuning.space import SearchSpace
from stm_models.errors import InputError
from stm_models.figures import tuning
from stm_models.search import Range
from tracking import study
from tracking.runs import Run
from tracking.study import TrialRow

__all__ = ["describe", "draw", "summary"]


def summary(found: Any, values: Mapping[str, str], parent: str) -> dict[str, Any]:
    """Summarise a study.

    Parameters
    ----------
    found : optuna.Study
    values : mapping of str to str
        Names of a trial's values with their directions.
    parent : str
        The run of the search.

    Returns
    -------
    dict
        study, parent, trials (number by outcome), best (metric, value, number, run_id, train: the configuration), front
        (with several values: number, values by name, run_id and params of each trial that no other one beats in all,
        the best by the first value first), importances.

    Raises
    ------
    InputError
        When no trial was complete.
    """
    rows = study.rows(found)
    outcomes = Counter(row.state for row in rows)
    if not outcomes["complete"]:
        raise InputError(
            f"no trial of study {found.study_name} ran to its end: give more --trials, or tune.pruner=none"
        )
    metric = next(iter(values))
    if len(values) > 1:
        sign = -1 if values[metric] == "maximize" else 1
        front = sorted(found.best_trials, key=lambda trial: sign * trial.values[0])
    else:
        front = [found.best_trial]
    best = front[0]
    return {
        "study": found.study_name,
        "parent": parent,
        "trials": dict(sorted(outcomes.items())),
        "best": {
            "metric": metric, "value": best.values[0], "number": best.number, "run_id": best.user_attrs["run_id"],
            "train": best.user_attrs["train"],
        },
        "front": [
            {
                "number": trial.number, "values": dict(zip(values, trial.values, strict=True)),
                "run_id": trial.user_attrs["run_id"], "params": dict(trial.params),
            }
            for trial in front
            if len(values) > 1
        ],
        "importances": study.importances(found),
    }  # fmt: skip


def draw(
    run: Run, result: Mapping[str, Any], rows: list[TrialRow], values: Mapping[str, str], space: SearchSpace
) -> None:
    """Log the figures of a summarised study to its run.

    Parameters
    ----------
    run : Run
        Of the search, in progress.
    result : mapping
        What `summary` returned.
    rows : list of TrialRow
        All trials; those that are complete or pruned are drawn.
    values : mapping of str to str
        Names of a trial's values, one or two, with their directions.
    space : SearchSpace
        Says which parameters are drawn on logarithmic scales.
    """
    metric, *others = values
    points = [
        tuning.Point(row.number, row.values, row.state == "pruned", row.params)
        for row in rows
        if row.state in ("complete", "pruned") and row.values
    ]
    larger = values[metric] == "maximize"
    run.figure(tuning.history(points, label=metric, larger_is_better=larger), "figures/history.png")
    if any(point.params for point in points):
        figure = tuning.parallel(points, label=metric, logarithmic=_logarithmic(space))
        run.figure(figure, "figures/parallel.png")
    if result["importances"]:
        run.figure(tuning.importances(result["importances"]), "figures/importances.png")
    if others:
        front = [each["number"] for each in result["front"]]
        run.figure(tuning.pareto(points, front, labels=(metric, others[0])), "figures/pareto.png")


def describe(result: Mapping[str, Any]) -> str:
    """Say what the search found."""
    best = result["best"]
    counts = ", ".join(f"{count} {outcome}" for outcome, count in result["trials"].items())
    changed = "  ".join(f"{key}={value}" for key, value in best["train"].items())
    lines = [
        f"study {result['study']}: {counts}",
        f"best {best['metric']} {best['value']:.4g} in run {best['run_id']}",
        f"  {changed}",
    ]
    if result["front"]:
        lines.append("no other trial beats these in all values:")
    for each in result["front"]:
        said = "  ".join(f"{name} {value:.4g}" for name, value in each["values"].items())
        chosen = "  ".join(f"{name}={_short(value)}" for name, value in each["params"].items())
        lines.append(f"  trial {each['number']:<5}{said}  {chosen}")
    if result.get("retrained"):
        lines.append(repeats.describe(result["retrained"]))
    return "\n".join(lines)


def _logarithmic(space: SearchSpace) -> list[str]:
    spaces = {"train": space.train, **space.options}
    return [
        f"{prefix}.{key}"
        for prefix, entries in spaces.items()
        for key, entry in entries.items()
        if isinstance(entry, Range) and entry.log
    ]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
