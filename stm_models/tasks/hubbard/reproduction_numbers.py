"""Everything that a reproduction of arXiv 2602.18890 reports, as numbers with their seeds and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stm_models.signal.similarity import levels, principal_components, similarity
from stm_models.tasks.findings import spread
from stm_models.tasks.hubbard import reproduction_plan as plan
from stm_models.tasks.hubbard.reproduction_config import OURS, ReproductionConfig
from stm_models.tasks.hubbard.reproduction_findings import findings
from stm_models.tasks.hubbard.reproduction_paper import attention_rows, error_rows, similarity_row
from stm_models.tasks.hubbard.reproduction_rings import edges, radius, ring_method
from stm_models.tasks.reproduction import Baseline, Finished

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["numbers"]

_COMPONENTS = 5
Scored = list[tuple[int, str | None, Mapping[str, float]]]
"""Seed, run and scores of each repetition; a method without training has no run of its own."""


def numbers(
    config: ReproductionConfig, finished: Sequence[Finished], baselines: Sequence[Baseline],
    samples: Mapping[str, Samples],
) -> dict[str, Any]:  # fmt: skip
    """Return it, JSON-able; every spread is over seeds, see `stm_models.tasks.findings.spread`."""
    scored = _scored(finished, baselines)
    rings = [ring_method(number) for number in range(config.rings)]
    trained = [*config.networks, *map(plan.perturbed_name, config.perturbed)]
    methods = trained + [name for name in scored if "," not in name and name not in (*trained, *rings)]
    names = (*plan.tests(config), *plan.transfers(config))
    table = {
        name: {"sets": {one: _cell(scored[name], one) for one in names}, **_origin(scored[name])} for name in methods
    }
    attention = {
        network: [
            {"seed": one.training.seed, "run": one.run_id, "methods": dict(one.attention),
             "figures": {method: one.training.figure(method) for method in one.attention}}
            for one in finished if one.training.name == network
        ]
        for network in config.explained if network in config.networks
    }  # fmt: skip
    alike, least = _similarity(samples[plan.TEST])
    circles = _rings(config, scored, [name for name in methods if name != "mean"], samples[plan.TEST_U])
    alone = [one["mae"]["mean"] for one in circles.get("fitted", [])]
    report: dict[str, Any] = {
        "config": config.model_dump(mode="json"), "ours": OURS,
        "data": {name: _about(samples[name]) for name in samples}, "sets": {
            "tests": list(plan.tests(config)), "transfers": list(plan.transfers(config)),
        },
        "table": table, "similarity": alike, "components": _components(samples[plan.TEST]), "attention": attention,
        "efficiency": _efficiency(config, scored),
        "rings": circles,
        "variants": {
            variant: {
                name.partition(",")[0]: {**_cell(rows, plan.variant_test(variant)), **_origin(rows)}
                for name, rows in scored.items() if name.endswith(f", {variant}")
            }
            for variant in config.variants
        },
        "paper": {
            "errors": error_rows(table, config.epochs, samples[plan.TEST].images.shape[-1]),
            "similarity": similarity_row(least), "attention": attention_rows(attention, alone),
        },
    }  # fmt: skip
    return {**report, "findings": findings(report)}


def _scored(finished: Sequence[Finished], baselines: Sequence[Baseline]) -> dict[str, Scored]:
    """Repetitions by name; a baseline has the name of what it was fitted to, `plan.BASIC` replaced by its own."""
    found: dict[str, Scored] = {}
    for one in finished:
        found.setdefault(one.training.name, []).append((one.training.seed, one.run_id, one.scores))
    for base in baselines:
        name = base.training.name.replace(plan.BASIC, base.method, 1)
        found.setdefault(name, []).append((base.training.seed, None, base.scores))
    return found


def _origin(rows: Scored) -> dict[str, Any]:
    return {"seeds": [seed for seed, _, _ in rows], "runs": [run for _, run, _ in rows if run is not None]}


def _cell(rows: Scored, name: str) -> dict[str, Any]:
    """Spread of every measure of one data set; a measure that some lack is of the others."""
    found = {}
    for key in ("mae", "rmse", "r2", "outside", "inside_mae"):
        values = [scores[f"{name}.{key}"] for _, _, scores in rows if f"{name}.{key}" in scores]
        if values:
            found[key] = spread(values)
    return found


def _efficiency(config: ReproductionConfig, scored: Mapping[str, Scored]) -> dict[str, list[dict[str, Any]]]:
    """Errors against the share of the states that are trained on; without a fraction it is four fifths."""
    found: dict[str, list[dict[str, Any]]] = {}
    if not config.fractions:
        return found
    for method in (*config.efficient, "ridge", "kernel_ridge"):
        if method not in scored:
            continue
        names = {fraction: plan.fraction_name(method, fraction) for fraction in sorted(config.fractions)}
        found[method] = [
            {
                "fraction": fraction, **{test: _cell(scored[name], test) for test in (plan.TEST, plan.TEST_U)},
                **_origin(scored[name]),
            }
            for fraction, name in {**names, 1 - plan.VALIDATION: method}.items()
        ]  # fmt: skip
    return found


def _rings(
    config: ReproductionConfig, scored: Mapping[str, Scored], methods: Sequence[str], samples: Samples
) -> dict[str, Any]:
    if not config.rings:
        return {}
    fitted = [scored[ring_method(number)] for number in range(config.rings)]
    made: dict[str, Any] = {
        "edges": edges(radius(samples.attributes["input"]), config.rings).tolist(),
        "fitted": [{**_cell(rows, plan.TEST_U), **_origin(rows)} for rows in fitted], "methods": {},
    }  # fmt: skip
    for name in methods:
        rows = scored[name]
        own = {
            kind: [
                spread([scores[f"{plan.TEST_U}.{kind}_{ring}"] for _, _, scores in rows])
                for ring in range(config.rings)
            ]
            for kind in ("without", "alone")
        }
        made["methods"][name] = {"whole": _cell(rows, plan.TEST_U)["mae"], **own, **_origin(rows)}
    return made


def _similarity(samples: Samples) -> tuple[dict[str, Any], float]:
    centres, level = levels(samples.targets[:, 0])
    found = similarity(samples.images, level)
    least = float(found.between.min())
    return {
        "levels": centres.tolist(), "matrix": found.matrix.tolist(), "least": least,
        "mean": float(found.between.mean()), "to_first": found.matrix[0].tolist(),
    }, least  # fmt: skip


def _components(samples: Samples) -> dict[str, Any]:
    """Share of the variance of each component, and how much of its score U explains by a straight line."""
    found = principal_components(samples.images, _COMPONENTS)
    values: NDArray[Any] = samples.targets[:, 0]
    follows = [float(np.corrcoef(values, score)[0, 1] ** 2) for score in found.scores.T]
    return {"explained": found.explained.tolist(), "follows": follows}


def _about(samples: Samples) -> dict[str, Any]:
    return {
        "images": len(samples), "states": len(np.unique(samples.coordinates["group"])),
        "digest": str(samples.attributes["digest"]),
    }  # fmt: skip
