"""What the intervals of a model hold on fresh states at continuous random U, on every perturbation set.

A model is trained by the preset, calibrated and asked as `stm train` does it; then states that nothing has seen are
simulated, one image each. Errors are how far coverage is from the stated level; a ratio is 1 where the binomial 95 %
interval of the measured coverage holds the level, else 0.

Example: python benchmarks/interval_coverage.py --keep build/coverage --json
         python benchmarks/interval_coverage.py --keep build/coverage --seeds 3 --json
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import numpy as np
from _timing import report
from _trusted import arguments, asked, known_sets, trusted
from sklearn.metrics import r2_score

from pipelines.scoring.robustness import judged_sets
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import load
from stm_models.regression.metrics import interval_scores
from stm_models.signal.conformal import coverage_interval
from stm_models.tasks.verdict import UNUSUAL

FRESH_SEED = 5_410_927
"""Of the fresh states; nothing else uses it, and nothing was chosen on them."""


def main() -> None:
    """Measure and print."""
    args = arguments(__doc__, "fresh states (default: 1500, 60 with --quick)")
    states = args.states or (60 if args.quick else 1500)
    with trusted(args) as (folder, chosen, known):
        fresh = folder / f"{chosen.preset}-fresh.zarr"
        config = chosen.task.fresh(chosen.simulate, FRESH_SEED, states, unseen=True)
        simulate(chosen.task, config, fresh, workers=args.workers)
        level = known.info["interval"]["level"]
        sets = judged_sets(chosen.task, load(fresh), known_sets(chosen))
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
    detail = {"trained_on": chosen.train.perturbation, "trainings": args.seeds, "level": level, "sets": rows}
    report("interval_coverage", ratios, errors, detail, as_json=args.json)


if __name__ == "__main__":
    main()
