"""How well impurities are found in fresh pseudo-experiments: several trainings, the paper's design, and no training.

Trains the presets ``quick`` (ours) and ``paper`` with some seeds, each on data of its own seed, or takes exported
files of them; judges each on the same fields of every preset at the threshold that was calibrated on simulations.
F1 is of all fields together, its lower bound the 5 % quantile over resampled fields. Files stay in --keep.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _project  # noqa: F401
import numpy as np
from numpy.typing import NDArray

from deploy.model.asking import predict_all
from deploy.model.session import Session
from pipelines import settings
from pipelines.learning.fitting import fit, load_parts
from pipelines.promoting import publishing
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import Samples, load
from stm_models.machine import cores
from stm_models.tasks.findings import spread
from stm_models.tasks.impurity import scoring
from stm_models.tasks.impurity.baselines import predictors
from stm_models.tasks.impurity.occlusion import occlusion_of_model
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import connect

SETS: dict[str, tuple[str, str]] = {
    "std": ("std", "std"), "hard": ("hard", "hard"), "std_all": ("std_all", "std+all"),
    "hard_all": ("hard_all", "hard+all"), "hard_dense": ("hard_dense", "hard"),
    "std_bare": ("std", "std+bare"), "std_bright": ("std", "std+bright"),
}  # fmt: skip
"""Of what is judged: the preset of the task, and its pseudo-experiment."""
COMPARED = ("std", "hard", "std_all", "hard_all")
TASK = "impurity"
SHOWN = ("f1", "f1_low", "top_f1", "precision", "recall", "error_px", "confidence_error", "radius_coverage")


def arguments() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 fields, 1 seed and short trainings")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each preset (default: 3)")
    parser.add_argument("--fields", type=int, default=50, help="fields of each pseudo-experiment (default: 50)")
    parser.add_argument("--ours", nargs="+", default=[], metavar="FILE.onnx", help="trained already")
    parser.add_argument(
        "--paper", nargs="+", default=[], metavar="FILE.onnx", help="the paper's design, trained already"
    )
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="judge on these alone")
    parser.add_argument("--peaks", type=int, default=24, help="impurities occluded per field set (default: 24)")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--keep", metavar="DIR", help="for data, runs and models (default: a temporary folder)")
    return parser.parse_args()


def main() -> None:
    """Train what is not given, judge, and print."""
    args = arguments()
    if args.quick:
        args.fields, args.seeds, args.peaks = min(args.fields, 4), 1, min(args.peaks, 4)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary).absolute()
        fresh = {name: _fresh(folder, name, args) for name in args.sets}
        files = {"fieldnet": [Path(file) for file in args.ours], "paper's design": [Path(file) for file in args.paper]}
        for method, preset in (("fieldnet", "quick"), ("paper's design", "paper")):
            files[method] = files[method] or [_trained(folder, preset, seed, args) for seed in range(args.seeds)]
        held_out = _calibration(folder, args)
        methods = {
            method: [_judge(_session(file), fresh, args.peaks) for file in several] for method, several in files.items()
        }
        for name, predictor in predictors(held_out.attributes["input"]).items():
            calibration = scoring.calibrate(predictor(held_out), held_out)
            methods[name] = [{key: scoring.metrics(predictor(part), part, calibration) for key, part in fresh.items()}]
    result = {"fields": args.fields, "methods": {name: _summary(rows) for name, rows in methods.items()}}
    result["goals"] = _goals(result["methods"])
    print(json.dumps(result) if args.json else _words(result))


def _fresh(folder: Path, name: str, args: argparse.Namespace) -> Samples:
    preset, experiment = SETS[name]
    pairs = [f"simulate.fields={args.fields}", f"simulate.preset=[{experiment}]"]
    chosen = settings.load(TASK, preset, assignments=pairs)
    return _simulated(folder / f"{name}.zarr", chosen, args)


def _calibration(folder: Path, args: argparse.Namespace) -> Samples:
    # Baselines are calibrated on fields like those of the training, as networks are.
    chosen = settings.load(TASK, "quick", assignments=["simulate.fields=120"], seed=999)
    return _simulated(folder / "calibration.zarr", chosen, args)


def _simulated(path: Path, chosen: settings.Settings, args: argparse.Namespace) -> Samples:
    simulate(chosen.task, chosen.simulate, path, workers=args.workers)
    return load(path, arrays=chosen.task.arrays)


def _trained(folder: Path, preset: str, seed: int, args: argparse.Namespace) -> Path:
    file = folder / f"{preset}-{seed}.onnx"
    if file.exists():
        return file
    begin = time.monotonic()
    pairs = ["train.device=cpu", "train.threads=1"] + (["simulate.fields=60", "train.epochs=2"] if args.quick else [])
    chosen = settings.load(TASK, preset, assignments=pairs, seed=seed)
    _simulated(folder / f"{preset}-{seed}.zarr", chosen, args)
    store = connect(f"sqlite:///{folder}/mlflow.db")
    parts = load_parts(folder / f"{preset}-{seed}.zarr", chosen.task, chosen.split)
    with runs.start(store, TASK, f"accuracy {preset} {seed}") as record:
        fitted = fit(record, chosen, chosen.train, parts, baselines=False)
    publishing.publish(store, get(TASK), fitted.run_id, file)
    print(f"{file.name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return file


def _session(file: Path) -> Session:
    return Session(file, provider="cpu", threads=1)


def _judge(session: Session, fresh: dict[str, Samples], most: int) -> dict[str, dict[str, float]]:
    def predict(images: NDArray[Any]) -> NDArray[Any]:
        return predict_all(session, np.asarray(images, np.float32))["prediction"].astype(np.float64)

    calibration, found = session.metadata.calibration, {}
    for name, part in fresh.items():
        prediction = predict(part.images)
        right = scoring.right_positions(prediction, part, calibration)
        kept = occlusion_of_model(predict, session.metadata.input.shape[1:], part.images, right, most=most)
        found[name] = scoring.metrics(prediction, part, calibration) | kept.record()
    return found


def _summary(rows: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Mean and standard deviation over the trainings, and the lowest lower bound, of every preset."""
    summary: dict[str, Any] = {"trainings": len(rows)}
    for preset in rows[0]:
        keys = [key for key in (*SHOWN, "without_core", "without_rings") if all(key in row[preset] for row in rows)]
        values = {key: [float(row[preset][key]) for row in rows] for key in keys}
        summary[preset] = {key: spread(one) for key, one in values.items()}
        summary[preset]["f1_low"]["lowest"] = min(values["f1_low"])
    return summary


def _goals(methods: dict[str, Any]) -> dict[str, Any]:
    """Return what was asked beforehand, and whether it is reached by the lowest lower bound of any training."""
    ours = methods["fieldnet"]
    goals: dict[str, Any] = {}
    for preset, least in (("std", 0.97), ("hard", 0.90), ("hard_all", 0.75), ("hard_dense", 0.95)):
        if preset not in ours:
            continue
        got = ours[preset]["f1_low"]["lowest"]
        goals[f"{preset}: lower bound of F1 >= {least}"] = {"got": got, "reached": got >= least}
    for preset, most in (("std", 0.20), ("hard", 0.35)):
        if preset not in ours:
            continue
        got = max(ours[preset]["error_px"]["values"])
        goals[f"{preset}: error <= {most} px"] = {"got": got, "reached": got <= most}
    for preset in (name for name in COMPARED if name in ours):
        for other, least in (("matched_filter", 0.10), ("paper's design", 0.15)):
            got = ours[preset]["f1"]["mean"] - methods[other][preset]["f1"]["mean"]
            goals[f"{preset}: F1 >= {least} above {other}"] = {"got": got, "reached": got >= least}
    for preset in (name for name in ("std", "hard") if name in ours):
        core, rings = (ours[preset].get(f"without_{what}") for what in ("core", "rings"))
        if core and rings:
            goals[f"{preset}: kept without core >= 0.8"] = {"got": core["mean"], "reached": core["mean"] >= 0.8}
            goals[f"{preset}: kept without rings <= 0.6"] = {"got": rings["mean"], "reached": rings["mean"] <= 0.6}
    return goals


def _words(result: dict[str, Any]) -> str:
    lines = [f"{result['fields']} fields of each preset; mean ± standard deviation over trainings"]
    keys = (*SHOWN, "without_core", "without_rings")
    for method, summary in result["methods"].items():
        lines.append(f"{method} ({summary['trainings']})")
        for preset, found in summary.items():
            if preset == "trainings":
                continue
            cells = [f"{key} {found[key]['mean']:.3f}±{found[key]['deviation']:.3f}" for key in keys if key in found]
            lines.append(f"  {preset:<11}" + "  ".join(cells))
    lines += [
        f"  {'yes' if one['reached'] else 'no ':<4}{goal}: {one['got']:.3f}" for goal, one in result["goals"].items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
