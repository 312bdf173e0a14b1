"""How well U is read from FT-LDOS images: simple regressions, the paper's networks, timm's and ours on the same data.

Every row is fitted with some seeds and judged, on the images as they were simulated and on those of every
perturbation set, on three sets of samples: validation states, values of U that the data set holds out, and fresh
states at continuous random U, on which nothing is chosen. Networks of others see images of --size pixels of the
same states, and train by the paper's recipe (arXiv 2602.18890), once on clean images as there and once on perturbed
ones. "ours" is the preset's own training; variations of it switch off what it knows, "ours, together" is the mean of
what its seeds answer, as `stm ensemble` makes it. What is finished stays in --keep and is not done again, only judged
again where the perturbed images are others. Choose on the validation columns alone.

Example: python benchmarks/hubbard_accuracy.py --data quick.zarr --keep build/accuracy --rows ours conv --json out.json
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from _accuracy_table import summary, table

from pipelines import settings
from pipelines.learning.fitting import informed, load_parts
from pipelines.learning.network import learn
from pipelines.learning.parts import Parts
from pipelines.scoring.robustness import judged_sets, robust_scores
from pipelines.settings import Settings
from pipelines.simulating.simulation import simulate
from stm_models.config import merge, validate
from stm_models.data.dataset import Samples, load
from stm_models.errors import InputError
from stm_models.files import atomic_path
from stm_models.machine import cores
from stm_models.networks import bundle
from stm_models.networks.cost import cost
from stm_models.networks.ensemble import together
from stm_models.networks.model import Model
from stm_models.regression.baselines import fit_baselines
from stm_models.tasks.outputs import Predictor
from stm_models.tasks.perturbation import CLEAN, find
from stm_models.training.config import TrainConfig
from stm_models.training.perturbations import digest, perturbed
from stm_models.training.predict import predict

TASK = "hubbard"
MIXED = "mixed"
COPIES = 5
"""Perturbed copies of the training images that a regression is fitted to."""
FRESH_SEED = 5_026_018
"""Of the fresh states; no preset, demo or evaluation uses it."""
MARK = 0.12
"""MAE in eV on clean images of unseen U: the CPU seconds until a training first reaches it are compared."""
PLACES = ("validation", "unseen", "fresh")

_PAPER = {"optimiser": "adam", "precision": "bf16", "channels_last": True, "refit": False}


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    regression : str or None
        One of `stm_models.regression.baselines`; ``None`` for a network.
    changes : dict
        ``train``: values laid over the paper's recipe, or over the preset's training where ``ours``.
    small : bool
        Whether it sees the images of --size pixels.
    ours : bool
    members : str or None
        The row whose fits are judged as one, by their mean.
    """

    regression: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    small: bool = False
    ours: bool = False
    members: str | None = None


def _theirs(network: str, **values: Any) -> Row:
    return Row(changes={"network": network, "options": {}, **values}, small=True)


def _ours(small: bool = False, **values: Any) -> Row:
    return Row(changes=values, small=small, ours=True)


_TWICE = {"epochs": 80, "patience": 20}  # half as many batches an epoch as the paper's data give: as many steps
_ONCE = {"epochs": 40, "patience": 10}
ROWS: dict[str, Row] = {
    "mean": Row("mean"),
    "ridge": Row("ridge"),
    "ridge, mixed": Row("ridge", {"perturbation": MIXED}),
    "kernel ridge": Row("kernel_ridge"),
    "kernel ridge, mixed": Row("kernel_ridge", {"perturbation": MIXED}),
    "conv": _theirs("conv", **_TWICE),
    "conv, mixed": _theirs("conv", perturbation=MIXED, **_TWICE),
    "resnet18": _theirs("resnet18", **_ONCE),
    "resnet18, mixed": _theirs("resnet18", perturbation=MIXED, **_ONCE),
    "timm:resnet10t": _theirs("timm:resnet10t", **_ONCE),
    "timm:resnet10t, mixed": _theirs("timm:resnet10t", perturbation=MIXED, **_ONCE),
    "timm:convnext_atto": _theirs("timm:convnext_atto", **_ONCE),
    "timm:convnext_atto, mixed": _theirs("timm:convnext_atto", perturbation=MIXED, **_ONCE),
    "ours": _ours(),
    "ours, clean": _ours(perturbation="clean"),
    "ours, clean, short": _ours(perturbation="clean", epochs=40, patience=40),  # for the clock
    "ours, small": _ours(small=True),
    "ours, not symmetric": _ours(options={"symmetric": False}),
    "ours, shapes": _ours(options={"shapes": True}),
    "ours, no gate": _ours(options={"gated": False}),
    "ours, together": Row(members="ours"),
}


@dataclass(frozen=True)
class Bench:
    """The data set at one size, split, and its sets as models are judged on them."""

    parts: Parts
    judged: Mapping[str, Mapping[str, Samples]]

    @cached_property
    def digests(self) -> dict[str, Any]:
        """Digests of the images that rows are judged on."""
        return {place: {name: digest(one.images) for name, one in sets.items()} for place, sets in self.judged.items()}


def arguments() -> argparse.Namespace:
    """Parse the options; those of `pipelines.settings` choose the preset and change its training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.arguments(parser, task=False)
    parser.add_argument("--data", metavar="DATA.zarr", help="a finished data set (default: simulate the preset's)")
    parser.add_argument("--seeds", type=int, default=3, help="fits of each row (default: 3)")
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help=f"of {list(ROWS)}"
    )
    parser.add_argument("--size", type=int, default=64, help="side of the images of others' networks (default: 64)")
    parser.add_argument("--states", type=int, default=48, help="fresh states (default: 48)")
    parser.add_argument("--epochs", type=int, help="at most so many for every network: to try")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where networks train (default: cpu)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="PATH", help="write the result there, or alone print it"
    )
    parser.add_argument("--keep", metavar="DIR", help="for data and finished fits (default: a temporary folder)")
    parser.add_argument("--workers", type=int, default=cores(), help="processes of the simulations")
    return parser.parse_args()


def main() -> None:
    """Fit and judge what is not there yet, and print."""
    args = arguments()
    chosen = settings.load(TASK, args.preset, config=args.config, assignments=args.assignments, seed=args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary).absolute()
        (folder / "rows").mkdir(parents=True, exist_ok=True)
        benches = _benches(folder, chosen, args)
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.rows}
        for seed in range(args.seeds):  # one seed of all rows first: a table, should it be interrupted
            for name in args.rows:
                if not ROWS[name].members:
                    found[name].append(_row(folder, name, seed, benches[ROWS[name].small], chosen, args))
        for name in args.rows:
            if ROWS[name].members:
                found[name].append(_together(folder, str(ROWS[name].members), benches, chosen, args))
    result = {
        "preset": chosen.preset, "split": chosen.split.model_dump(mode="json"),
        "samples": {place: len(sets["clean"]) for place, sets in next(iter(benches.values())).judged.items()},
        "data": {
            "small" if small else "full": {"digest": bench.parts.samples.attributes["digest"], "judged": bench.digests}
            for small, bench in benches.items()
        },
        "rows": {name: summary(fits) for name, fits in found.items()},
    }  # fmt: skip
    if args.json == "-":
        print(json.dumps(result, allow_nan=False))
        return
    if args.json:
        with atomic_path(Path(args.json)) as path:
            path.write_text(json.dumps(result, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    print(table(result, MARK))


def _benches(folder: Path, chosen: Settings, args: argparse.Namespace) -> dict[bool, Bench]:
    """Simulate what is missing, at the sizes that the rows see (True: the small one)."""
    data = Path(args.data or folder / "data.zarr")
    full: Any = chosen.simulate
    if args.data:
        full = validate(chosen.task.simulation, load(data).attributes["config"], "the data set's config")
    fresh = chosen.task.fresh(full, FRESH_SEED, args.states, unseen=True)
    found: dict[bool, Bench] = {}
    for small in sorted({ROWS[ROWS[name].members or name].small for name in args.rows}):
        reduced = small and args.size < full.image_size
        if small and not reduced and found:
            found[True] = found[False]
            break
        change = {"image_size": args.size} if reduced else {}
        paths = {
            name: folder / f"{name}-{args.size}.zarr" if reduced else folder / f"{name}.zarr"
            for name in ("data", "fresh")
        } | ({} if reduced else {"data": data})
        for name, config in (("data", full), ("fresh", fresh)):
            if reduced or name == "fresh" or not args.data:
                simulate(chosen.task, config.model_copy(update=change), paths[name], workers=args.workers)
        parts = load_parts(paths["data"], chosen.task, chosen.split)
        sets = {"validation": parts.validation, "unseen": parts.unseen, "fresh": load(paths["fresh"])}
        found[small] = Bench(parts, {name: judged_sets(chosen.task, part) for name, part in sets.items()})
    if len(found) > 1:
        _same_states(found[False].parts.samples, found[True].parts.samples)
    return found


def _same_states(first: Samples, second: Samples) -> None:
    """Make sure that both are of the same states, to what a GPU's linear algebra may change."""
    for name in ("sample", "group", "U", "filling", "bias", "broadening", "energy"):
        own, other = first.coordinates[name], second.coordinates[name]
        if own.shape != other.shape or not np.allclose(own, other, rtol=0, atol=1e-6 if name == "energy" else 0):
            raise InputError(
                f"{second.path} holds other states than {first.path} (their {name} differ): give a data set of this "
                "version, or leave --data out"
            )


def _row(
    folder: Path, name: str, seed: int, bench: Bench, chosen: Settings, args: argparse.Namespace
) -> dict[str, Any]:
    """Return what one fit of a row found: fitted now unless it is there, and judged anew on other images alone."""
    row, parts = ROWS[name], bench.parts
    config = None if row.regression else _config(row, seed, parts, chosen, args)
    own = row.changes.get("perturbation", CLEAN.name) if config is None else config.perturbation
    recipe: dict[str, Any] = {
        "regression": row.regression and {"kind": row.regression, "seed": seed, "copies": COPIES},
        "train": config and config.model_dump(mode="json"),
        "perturbation": {**find(chosen.task.perturbations(), own).record(), "description": None},
        "split": chosen.split.model_dump(mode="json"), "data": parts.samples.attributes["digest"],
    }  # fmt: skip
    recipe = json.loads(json.dumps(recipe))
    path, models = _places(folder, name, seed)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    same = bool(known) and _completed(known["recipe"]) == recipe
    if same and known["judged"] == bench.digests:
        return known
    begin = time.process_time()
    if same and models.is_dir():
        about = known["about"]
    elif config is None:
        predictors = dict.fromkeys(PLACES, _regression(row, seed, parts))
        about = {"cpu_seconds": time.process_time() - begin}
    else:
        about = _network(config, parts, models)
    if config is not None:
        predictors = _predictors([models])
    scores = _scores(predictors, bench)
    found = {"recipe": recipe, "about": about, "judged": bench.digests, "scores": scores}
    with atomic_path(path) as unfinished:
        unfinished.write_text(json.dumps(found, allow_nan=False), encoding="utf-8")
    # Not the fresh states: nobody is to choose by them.
    shown = "  ".join(f"{place} {scores[place]['mae']:.3f}" for place in ("validation", "unseen"))
    print(f"{name} {seed}: MAE {shown}, {about['cpu_seconds']:.0f} CPU s", file=sys.stderr)
    return found


def _together(
    folder: Path, name: str, benches: Mapping[bool, Bench], chosen: Settings, args: argparse.Namespace
) -> dict[str, Any]:
    """Judge all fits of a row as one."""
    bench = benches[ROWS[name].small]
    fits = [_row(folder, name, seed, bench, chosen, args) for seed in range(args.seeds)]
    models = [_places(folder, name, seed)[1] for seed in range(args.seeds)]
    about = {key: sum(fit["about"][key] for fit in fits) for key in ("cpu_seconds", "parameters", "flops")}
    recipe = {"members": [fit["recipe"] for fit in fits]}
    return {"recipe": recipe, "about": about, "scores": _scores(_predictors(models), bench)}


def _places(folder: Path, name: str, seed: int) -> tuple[Path, Path]:
    """Return where scores and networks of a fit are kept."""
    stem = f"{name.replace(':', '_').replace(', ', '-').replace(' ', '_')}-{seed}"
    return folder / "rows" / f"{stem}.json", folder / "models" / stem


def _scores(predictors: Mapping[str, Predictor], bench: Bench) -> dict[str, dict[str, float]]:
    task = bench.parts.task
    return {
        place: task.metrics(predictors[place](sets["clean"]), sets["clean"], {})
        | robust_scores(task, predictors[place], sets, {})
        for place, sets in bench.judged.items()
    }


def _completed(recipe: dict[str, Any]) -> dict[str, Any]:
    """Add what a training's configuration has got since, as it is by default."""
    train = recipe["train"]
    return {**recipe, "train": train and validate(TrainConfig, train, "train").model_dump(mode="json")}


def _config(row: Row, seed: int, parts: Parts, chosen: Settings, args: argparse.Namespace) -> TrainConfig:
    base = chosen.train.model_dump(mode="json") if row.ours else {"loss": "mse", **_PAPER}
    values = merge(base, dict(row.changes))
    values |= {"seed": chosen.train.seed + seed, "threads": 1, "device": args.device}
    if args.epochs is not None:
        values["epochs"] = min(values["epochs"], args.epochs)
    return informed(chosen.task, validate(TrainConfig, values, "train"), parts)


def _regression(row: Row, seed: int, parts: Parts) -> Predictor:
    train = parts.train
    if MIXED in row.changes.values():
        own = find(parts.task.perturbations(), MIXED)
        images = [perturbed(own, train, 1000 * (seed + 1) + copy) for copy in range(COPIES)]
        train = replace(train.subset(np.tile(np.arange(len(train)), COPIES)), images=np.concatenate(images))
    name = str(row.regression)
    fitted = fit_baselines([name], train.images, train.targets, train.coordinates["group"], seed)[name]
    return lambda samples: fitted(samples.images)


def _network(config: TrainConfig, parts: Parts, models: Path) -> dict[str, Any]:
    """Train and keep the networks; the error on unseen values stops a clock and decides nothing."""
    begin, left_out, reached = time.process_time(), 0.0, None
    clock = time.monotonic()

    def watch(model: Model) -> dict[str, float]:
        nonlocal left_out, reached
        if reached is None:
            start = time.process_time()
            if parts.task.metrics(predict(model, parts.unseen.images), parts.unseen, {})["mae"] <= MARK:
                reached = start - begin - left_out
            left_out += time.process_time() - start
        return {}

    learnt = learn(parts.task, config, parts, watch=watch)
    seconds = time.process_time() - begin - left_out
    attributes = parts.samples.attributes
    info = {"network": config.network, "options": config.options, "task": parts.task.name, "explained": 0,
            "input": attributes["input"], "targets": attributes["targets"], "data": attributes["digest"]}  # fmt: skip
    for name, one in (("chosen", learnt.chosen), ("final", learnt.final)):
        bundle.save(models / name, one.model, None, info)
    own = cost(config.network, parts.samples.images.shape[1:], config.options)
    return {
        "device": config.device, "clock_seconds": time.monotonic() - clock,
        "cpu_seconds": seconds, "seconds_to_mark": reached, "parameters": own.parameters, "flops": own.flops,
        "best_epoch": learnt.chosen.best_epoch,
        "validation_mae_by_epoch": [round(entry["val_mae"], 4) for entry in learnt.chosen.history],
    }  # fmt: skip


def _predictors(fits: Sequence[Path]) -> dict[str, Predictor]:
    """Read the networks of a fit, or of several that answer together.

    One fitted again knows the validation samples, so that these judge the one before.
    """

    def predictor(name: str) -> Predictor:
        members = [bundle.load(models / name).model for models in fits]
        model = together(members) if len(members) > 1 else members[0]
        return lambda samples: predict(model, samples.images)

    return {place: predictor("chosen" if place == "validation" else "final") for place in PLACES}


if __name__ == "__main__":
    main()
