"""What the intervals of a model hold on fresh states at continuous random U, on every perturbation set.

A model is trained by the preset, calibrated and asked as `stm train` does it; then states that nothing has seen are
simulated, one image each. Errors are how far coverage is from the stated level; a ratio is 1 where the binomial 95 %
interval of the measured coverage holds the level, else 0.

Example: python benchmarks/interval_coverage.py --keep build/coverage --json
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _timing import report
from sklearn.metrics import r2_score

from pipelines import settings
from pipelines.learning.calibrating import calibration_samples
from pipelines.learning.fitting import informed, load_parts
from pipelines.learning.network import learn
from pipelines.learning.trust import trust
from pipelines.scoring.robustness import judged_sets
from pipelines.settings import Settings
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from stm_models.machine import cores
from stm_models.networks import bundle
from stm_models.networks.bundle import Bundle
from stm_models.regression.metrics import interval_scores
from stm_models.signal.conformal import coverage_interval
from stm_models.tasks import registry
from stm_models.tasks.perturbation import find
from stm_models.tasks.verdict import UNUSUAL

FRESH_SEED = 9_173_311
"""Of the fresh states; nothing else uses it, and nothing was chosen on them."""
SETS = ("clean", "mild", "noisy", "symb", "instrument")


def arguments(description: str | None, states: str) -> argparse.Namespace:
    """Parse the options of a benchmark that asks this model; ``states`` says of what and how many."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the preset test and few states")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--states", type=int, help=states)
    parser.add_argument("--keep", metavar="DIR", help="for data and model (default: a temporary folder)")
    parser.add_argument("--workers", type=int, default=cores(), help="processes that simulate")
    names = [one.name for one in registry.get("hubbard").perturbations()]
    parser.add_argument("--perturbation", choices=names, help="what the model is trained on (default: the preset's)")
    return parser.parse_args()


def prepared(folder: Path, args: argparse.Namespace) -> tuple[Settings, Bundle]:
    """Simulate, train and calibrate what is not in ``folder`` yet."""
    quick, workers, own = args.quick, args.workers, args.perturbation
    preset = "test" if quick else "quick"
    chosen = settings.load("hubbard", preset, assignments=[f"train.perturbation={own}"] if own else [])
    data, saved = folder / f"{preset}.zarr", folder / f"{preset}-model{f'-{own}' if own else ''}"
    simulate(chosen.task, chosen.simulate, data, workers=workers)
    if not saved.is_dir():
        parts = load_parts(data, chosen.task, chosen.split)
        epochs = 20 if quick else chosen.train.epochs
        config = informed(chosen.task, chosen.train.model_copy(update={"epochs": epochs, "patience": epochs}), parts)
        model = learn(chosen.task, config, parts).final.model
        perturbation = find(chosen.task.perturbations(), config.perturbation)
        held = calibration_samples(chosen, parts, workers=workers)
        known = trust(chosen, model, parts.fitted(config.refit), held, perturbation, config.seed)
        attributes = parts.samples.attributes
        info = {
            "task": chosen.task.name, "network": config.network, "options": config.options, "explained": 0,
            "input": attributes["input"], "targets": attributes["targets"],
            "data": {"recipe": attributes["recipe"], "digest": attributes["digest"]}, **known.about,
        }  # fmt: skip
        bundle.save(saved, model, known.novelty, info, interval=known.interval)
    return chosen, bundle.load(saved)


def asked(known: Bundle, images: Any) -> dict[str, Any]:
    """Answers of a model to images (S, C, H, W)."""
    with torch.inference_mode():
        parts = [known.answers(part) for part in torch.from_numpy(images).split(128)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def main() -> None:
    """Measure and print."""
    args = arguments(__doc__, "fresh states (default: 1500, 60 with --quick)")
    states = args.states or (60 if args.quick else 1500)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        chosen, known = prepared(folder, args)
        fresh = folder / f"{chosen.preset}-fresh.zarr"
        config = chosen.task.fresh(chosen.simulate, FRESH_SEED, states, unseen=True)
        simulate(chosen.task, config, fresh, workers=args.workers)
        level = known.info["interval"]["level"]
        claimed = find(chosen.task.perturbations(), chosen.train.perturbation).claims
        sets = judged_sets(chosen.task, load(fresh), [*(chosen.split.judged or SETS), *claimed])
        rows: dict[str, dict[str, Any]] = {}
        for name, samples in sets.items():
            found = asked(known, samples.images)
            scores = interval_scores(found["lower"], found["upper"], samples.targets)
            covered, count = round(scores["coverage"] * len(samples)), len(samples)
            low, high = coverage_interval(covered, count)
            error = float(np.abs(found["prediction"] - samples.targets).mean())
            rows[name] = {
                **scores, "states": count, "low": low, "high": high, "mae": error,
                "r2": float(r2_score(samples.targets, found["prediction"])),
                "false_alarms": float(np.mean(found["novelty"] < UNUSUAL)),
            }  # fmt: skip
    ratios = {f"holds_{name}": float(row["low"] <= level <= row["high"]) for name, row in rows.items()}
    errors = {name: abs(row["coverage"] - level) for name, row in rows.items()}
    detail = {"trained_on": chosen.train.perturbation, "level": level, "sets": rows}
    report("interval_coverage", ratios, errors, detail, as_json=args.json)


if __name__ == "__main__":
    main()
