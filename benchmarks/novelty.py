"""How well a model's novelty tells other material and other structures from its own, and how often it errs.

The model is that of `interval_coverage.py` (with the same --keep the very one). Ratios are areas under the ROC
curve of the distance, against fresh states of the model's own structure: the worst over all sets of images that it
knows. Errors are shares of false alarms at p < .05. Real maps are those that STM_REALDATA has, each prepared as
`stm predict` does.

Example: STM_REALDATA=/data python benchmarks/novelty.py --keep build/coverage --json
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _neighbours import UNTWISTED, untwisted
from _timing import report
from _trusted import arguments, asked, known_sets, trusted
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pipelines.scoring.robustness import judged_sets
from pipelines.settings import Settings
from pipelines.simulating.simulation import simulate
from stm_models.data import readers
from stm_models.data.dataset import load
from stm_models.errors import InputError
from stm_models.tasks.hubbard.structure import same_field
from stm_models.tasks.verdict import UNUSUAL

SEED = 8_061_508
_REAL = {".mat": {"key": "m428", "size_nm": (50.0, 50.0)}, ".sxm": {}, ".3ds": {}}
_MAPS = 25  # of a stack


def main() -> None:
    """Measure and print."""
    args = arguments(__doc__, "of each structure (default: 120, 24 with --quick)")
    states = args.states or (24 if args.quick else 120)
    with trusted(args) as (folder, chosen, known):
        own = _simulated(folder, "own", chosen, {}, states, args.workers)
        sets = judged_sets(chosen.task, own, known_sets(chosen))
        ours = {name: asked(known, samples.images) for name, samples in sets.items()}
        strange: dict[str, dict[str, Any]] = {}
        for name, images in _others(folder, chosen, states, args.workers):
            found = asked(known, images)
            strange[name] = {
                "images": len(images), "found": float(np.mean(found["novelty"] < UNUSUAL)),
                "auroc": {one: _area(few["distance"], found["distance"]) for one, few in ours.items()},
            }  # fmt: skip
    ratios = {name: min(row["auroc"].values()) for name, row in strange.items()}
    errors = {f"false_alarms_{name}": float(np.mean(found["novelty"] < UNUSUAL)) for name, found in ours.items()}
    detail = {"trained_on": chosen.train.perturbation, "own": len(own), "others": strange}
    report("novelty", ratios, errors, detail, as_json=args.json)


def _others(folder: Path, chosen: Settings, states: int, workers: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield images of other material and structures by name."""
    simulation = chosen.simulate
    index, distance = simulation.index[0], simulation.layer_distance[0]
    changes: dict[str, dict[str, Any]] = {
        f"index_{other}": {"index": (other,)} for other in (index - 1, index + 1) if other > 0
    }
    changes |= {f"layers_{step:+.1f}": {"layer_distance": (distance + step,) * 2} for step in (-0.1, 0.1)}
    for name, change in changes.items():
        yield name, _simulated(folder, name, chosen, change, states, workers).images
    for kind in UNTWISTED:
        yield kind, untwisted(kind, simulation, states, SEED)
    named = os.environ.get("STM_REALDATA")
    if named:
        maps = list(_real(Path(named), chosen))
        if maps:
            yield "real", np.stack(maps).astype(np.float32)


def _simulated(folder: Path, name: str, chosen: Settings, change: dict[str, Any], states: int, workers: int) -> Any:
    config = same_field(chosen.task.fresh(chosen.simulate, SEED, states, unseen=True), **change)
    path = folder / f"{chosen.preset}-{name}.zarr"
    simulate(chosen.task, config, path, workers=workers)
    return load(path)


def _real(folder: Path, chosen: Settings) -> Iterator[NDArray[Any]]:
    """Yield the prepared maps of every file with a field of view, a stack's some."""
    spec = chosen.task.plan(chosen.simulate).attributes["input"]
    for path in sorted(folder.rglob("*")):
        if path.suffix not in _REAL:
            continue
        own: dict[str, Any] = _REAL[path.suffix]
        try:
            count = len(readers.read(path, **own).values)
            for number in np.unique(np.linspace(0, count - 1, min(count, _MAPS)).astype(int)):
                channel = {} if count == 1 else {"channel": int(number)}
                yield chosen.task.prepare(readers.read(path, **own, **channel), spec).image
        except InputError:
            continue  # a vector of biases, or a map without contrast


def _area(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    labels = np.concatenate([np.zeros(len(ours)), np.ones(len(theirs))])
    return float(roc_auc_score(labels, np.concatenate([ours, theirs])))


if __name__ == "__main__":
    main()
