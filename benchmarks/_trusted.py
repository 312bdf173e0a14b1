"""The model whose bounds and novelty are measured: trained by the preset, and calibrated as `stm train` does it.

With --seeds it is several such trainings together, as `stm ensemble` makes them one model.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _project  # noqa: F401
import torch

from pipelines import settings
from pipelines.learning.calibrating import calibration_samples
from pipelines.learning.fitting import informed, load_parts
from pipelines.learning.network import learn
from pipelines.learning.trust import trust
from pipelines.settings import Settings
from pipelines.simulating.simulation import simulate
from stm_models.machine import cores
from stm_models.networks import bundle
from stm_models.networks.bundle import Bundle
from stm_models.networks.ensemble import together
from stm_models.tasks import registry
from stm_models.tasks.perturbation import find

__all__ = ["arguments", "asked", "known_sets", "trusted"]

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
    parser.add_argument("--seeds", type=int, default=1, help="trainings that answer together (default: 1)")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error(f"--seeds is {args.seeds}: expected at least 1")
    return args


@contextmanager
def trusted(args: argparse.Namespace) -> Iterator[tuple[Path, Settings, Bundle]]:
    """Give the folder of --keep, or a temporary one, with settings and model, made where it is not there yet."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.keep or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder, *_prepared(folder, args)


def known_sets(chosen: Settings) -> list[str]:
    """Name the sets of images that the model is calibrated on."""
    claimed = find(chosen.task.perturbations(), chosen.train.perturbation).claims
    return [*(chosen.split.judged or SETS), *claimed]


def asked(known: Bundle, images: Any) -> dict[str, Any]:
    """Answers of a model to images (S, C, H, W)."""
    with torch.inference_mode():
        parts = [known.answers(part) for part in torch.from_numpy(images).split(128)]
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def _prepared(folder: Path, args: argparse.Namespace) -> tuple[Settings, Bundle]:
    """Simulate, train and calibrate what is not in ``folder`` yet."""
    quick, workers, own, seeds = args.quick, args.workers, args.perturbation, args.seeds
    preset = "test" if quick else "quick"
    chosen = settings.load("hubbard", preset, assignments=[f"train.perturbation={own}"] if own else [])
    kind = "".join(f"-{one}" for one in (own, seeds if seeds > 1 else None) if one)
    data, saved = folder / f"{preset}.zarr", folder / f"{preset}-model{kind}"
    simulate(chosen.task, chosen.simulate, data, workers=workers)
    if not saved.is_dir():
        parts = load_parts(data, chosen.task, chosen.split)
        epochs = 20 if quick else chosen.train.epochs
        config = informed(chosen.task, chosen.train.model_copy(update={"epochs": epochs, "patience": epochs}), parts)
        configs = [config.model_copy(update={"seed": config.seed + number}) for number in range(seeds)]
        members = [learn(chosen.task, one, parts).final.model for one in configs]
        model = together(members) if seeds > 1 else members[0]
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
