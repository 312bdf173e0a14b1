"""Numbers of a reproduction, and words made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stm_models.tasks.findings import compare, ordering, spread, spread_text
from stm_models.tasks.impurity.occlusion import GOAL_CORE, GOAL_RINGS
from stm_models.tasks.impurity.reproduction_config import ABLATIONS, OURS, ReproductionConfig
from stm_models.tasks.reproduction import Finished

__all__ = ["markdown", "numbers", "runs_of"]

_RULE_NAMES = {"all": "all maxima", "top": "as many of the highest as there are impurities"}
_CLAIMS = (
    ("Noise in the training raises the ratio", "noise", ("no noise",)),
    ("The regularisation raises the ratio", "no noise + reg", ("no noise",)),
    ("Noise and regularisation together are the best", "noise + reg", ("no noise", "noise", "no noise + reg")),
)
_MEASURES = ("f1", "top_f1", "precision", "recall", "error_px", "without_core", "without_rings")
_TITLES = ("F1", "F1, number known", "precision", "recall", "error (px)", "kept without core", "kept without rings")
_TRANSDUCTIVE = (
    "The regularisation is transductive, as in the paper: it minimises the entropy on the very maps that the ratio is "
    "scored on. The table is about other fields."
)


def runs_of(finished: Sequence[Finished], experiment: str) -> dict[str, list[Finished]]:
    """Trainings of each ablation that were watched on an experiment, by seed."""
    named = {f"{name} ({experiment})" if "reg" in name else name: name for name in ABLATIONS}
    found: dict[str, list[Finished]] = {name: [] for name in ABLATIONS}
    for one in sorted(finished, key=lambda one: one.training.seed):
        if one.training.name in named:
            found[named[one.training.name]].append(one)
    return found


def numbers(
    config: ReproductionConfig,
    finished: Sequence[Finished],
    baselines: Mapping[str, Mapping[str, float]],
    ceilings: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Everything that is reported, JSON-able: curves, table and findings, with seeds, spread and run ids."""
    experiments = {}
    for name in config.experiments:
        runs = runs_of(finished, name)
        experiments[name] = {
            "ceiling": dict(ceilings[name]),
            "last_epoch": {rule: _last(runs, name, rule) for rule in _RULE_NAMES},
            "claims": {rule: _claims(runs, name, rule) for rule in _RULE_NAMES},
            "table": _table(finished, baselines, name),
        }
    report = {"config": config.model_dump(mode="json"), "experiments": experiments, "transductive": _TRANSDUCTIVE}
    return {**report, "findings": _findings(report)}


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report for people."""
    config = report["config"]
    lines = ["# Impurities from Friedel oscillations: arXiv:2006.15898 made again", "", "## Findings", ""]
    lines += [f"- {text}" for text in report["findings"]]
    lines += ["", report["transductive"], ""]
    lines += [
        f"Ablations: {config['seeds']} seeds, {config['tiles']} tiles of {config['tile']} px, "
        f"{config['epochs']} epochs, alpha {config['alpha']:g}; ratio, chance and F1 on {config['fields']} "
        "pseudo-experiments of each kind, seen by the network tile by tile. "
        f"Table: {config['judged']} further pseudo-experiments, seen whole. ± is the standard deviation "
        "over seeds, which differ in initial weights, order and split of the same training data.", "",
    ]  # fmt: skip
    for name, part in report["experiments"].items():
        lines += [f"## {name}", "", f"![](fig4_{name}.png)", ""]
        ceiling = part["ceiling"]
        lines += [
            f"The true positions reach a ratio of {ceiling['ratio_of_the_truth']:.3f}; the reference answer (EM) "
            f"agrees with them with F1 {ceiling['reference_f1']:.3f}.", "",
        ]  # fmt: skip
        for rule, rows in part["last_epoch"].items():
            lines += [f"Last epoch, {_RULE_NAMES[rule]}:", "", "| training | ratio | chance | F1 | peaks | runs |"]
            lines += ["|---|---|---|---|---|---|"]
            for ablation, row in rows.items():
                cells = [spread_text(row[key]) for key in ("ratio", "chance", "f1")] + [f"{row['count']['mean']:.0f}"]
                lines.append(f"| {ablation} | {' | '.join(cells)} | {_ids(row['runs'])} |")
            lines.append("")
        lines += ["Fresh fields, threshold from simulation:", "", f"| method | {' | '.join(_TITLES)} | runs |"]
        lines.append("|---" * (len(_TITLES) + 2) + "|")
        for method, row in part["table"].items():
            cells = [spread_text(row[key]) if key in row else "–" for key in _MEASURES]
            lines.append(f"| {method} | {' | '.join(cells)} | {_ids(row['runs'])} |")
        lines.append("")
    lines += ["## Found positions", "", "![](fig3.png)", ""]
    return "\n".join(lines)


def _last(runs: Mapping[str, Sequence[Finished]], experiment: str, rule: str) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for ablation, several in runs.items():
        row: dict[str, Any] = {
            key: spread([one.history[-1][f"{experiment}.{rule}.{key}"] for one in several])
            for key in ("ratio", "chance", "f1", "count")
        }
        rows[ablation] = {**row, **_origin(several)}
    return rows


def _claims(runs: Mapping[str, Sequence[Finished]], experiment: str, rule: str) -> list[dict[str, Any]]:
    key = f"{experiment}.{rule}.ratio"
    values = {
        name: {one.training.seed: one.history[-1][key] for one in several} for name, several in runs.items()
    }  # fmt: skip
    claims = []
    for text, better, others in _CLAIMS:
        differences = {other: compare(values[better], values[other]) for other in others}
        verdicts = {one.verdict for one in differences.values()}
        if verdicts == {"higher"}:
            holds = "holds"
        elif "lower" in verdicts:
            holds = "does not hold"
        else:
            holds = "undecided"
        steps = {f"{better} - {other}": {**one.record(), "words": one.words()} for other, one in differences.items()}
        claims.append({"claim": text, "verdict": holds, "differences": steps})
    return claims


def _table(
    finished: Sequence[Finished], baselines: Mapping[str, Mapping[str, float]], experiment: str
) -> dict[str, dict[str, Any]]:
    methods = {f"{OURS} (ours)": [one for one in finished if one.training.name == OURS]} | {
        f"paper's design, {name}": several for name, several in runs_of(finished, experiment).items()
    }
    table = {}
    for method, several in methods.items():
        row = {
            key: spread([one.scores[f"{experiment}.{key}"] for one in several if f"{experiment}.{key}" in one.scores])
            for key in _MEASURES
            if any(f"{experiment}.{key}" in one.scores for one in several)
        }
        table[method] = {**row, **_origin(several)}
    for method, scores in baselines.items():
        row = {key: spread([scores[f"{experiment}.{key}"]]) for key in _MEASURES if f"{experiment}.{key}" in scores}
        table[method] = {**row, "runs": [], "seeds": []}
    return table


def _findings(report: Mapping[str, Any]) -> list[str]:
    texts = []
    for name, part in report["experiments"].items():
        for rule, rows in part["last_epoch"].items():
            order = ordering({ablation: row["ratio"]["mean"] for ablation, row in rows.items()})
            chance = max(row["chance"]["mean"] for row in rows.values())
            texts.append(f"{name}, {_RULE_NAMES[rule]}: {order}; chance up to {chance:.3f}.")
            for claim in part["claims"][rule]:
                steps = "; ".join(f"{what} {one['words']}" for what, one in claim["differences"].items())
                texts.append(f'{name}, {_RULE_NAMES[rule]}: "{claim["claim"]}" {_said(claim["verdict"])} ({steps}).')
        table = part["table"]
        texts.append(f"{name}, F1 on fresh fields: {ordering({m: row['f1']['mean'] for m, row in table.items()})}.")
        texts += [f"{name}: {_seen(method, row)}" for method, row in table.items() if "without_core" in row]
    return texts


def _said(verdict: str) -> str:
    return {"undecided": "is undecided"}.get(verdict, verdict)


def _seen(method: str, row: Mapping[str, Any]) -> str:
    core, rings = row["without_core"]["mean"], row["without_rings"]["mean"]
    if core >= GOAL_CORE and rings <= GOAL_RINGS:
        what = "sees the rings, as it should"
    elif core < GOAL_RINGS and rings >= GOAL_CORE:
        what = "sees the spot, not the rings"
    else:
        what = f"fails the goal (at least {GOAL_CORE:g} and at most {GOAL_RINGS:g})"
    return f"{method} keeps {core:.3f} of its peaks without the core and {rings:.3f} without the rings: it {what}."


def _origin(several: Sequence[Finished]) -> dict[str, Any]:
    return {"runs": [one.run_id for one in several], "seeds": [one.training.seed for one in several]}


def _ids(runs: Sequence[str]) -> str:
    return ", ".join(run[:8] for run in runs) or "untrained"
