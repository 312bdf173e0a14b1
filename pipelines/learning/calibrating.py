"""The samples that intervals, novelty and confidences are calibrated on: states simulated for the purpose."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.learning.parts import Parts
from pipelines.lease import Busy
from pipelines.settings import CalibrateConfig, Settings
from pipelines.simulating.simulation import simulate
from stm_models.config import Config, validate
from stm_models.data import digest
from stm_models.data.dataset import Samples, holds, load
from stm_models.data.store import open_root
from stm_models.errors import InputError
from stm_models.machine import cores
from stm_models.signal.conformal import separate
from stm_models.tasks.perturbation import CLEAN, Perturbation
from stm_models.training.perturbations import perturbed

__all__ = ["CalibrationSamples", "calibration_samples", "names_of", "recipe_of"]

_WAIT = 2.0  # seconds
_SEED = 20_771
"""Of the perturbed images that are calibrated on; those that models are judged on have another."""
_DRAWS, _MOST = 3, 2000


@dataclass(frozen=True)
class CalibrationSamples:
    """Samples that a model is not fitted to.

    Attributes
    ----------
    spread : Samples
        What the spread of errors is learnt from.
    samples : Samples
        What is calibrated on: other groups.
    source : str
        ``simulated`` for the purpose, or ``held out`` of the training data.
    part : str
        Where ``spread`` is from: the ``validation`` or the ``unseen`` part of the training data, ``both`` where these
        calibrate as well, or the ``training`` part where nothing else is left.
    note : str
        What a reader should know; may be empty.
    """

    spread: Samples
    samples: Samples
    source: str
    part: str
    note: str = ""
    _made: dict[str, tuple[Samples, Samples]] = field(default_factory=dict, repr=False)

    def as_set(self, one: Perturbation) -> tuple[Samples, Samples] | None:
        """Return ``spread`` and ``samples`` with the images of a perturbation set, made once.

        Of a set that takes long to make, one image of each state; of others each sample with several draws of its
        noise, as far as `_MOST` images go. ``None`` where the data do not hold what it is made from.
        """
        if not all(holds(part, name) for part in (self.spread, self.samples) for name in one.needs):
            return None
        if one == CLEAN:
            return self.spread, self.samples
        if one.name not in self._made:
            self._made[one.name] = _drawn(one, self.spread), _drawn(one, self.samples)
        return self._made[one.name]


def calibration_samples(
    settings: Settings, parts: Parts, *, refit: bool = False, workers: int | None = None
) -> CalibrationSamples:
    """Return what to calibrate on, read once, simulated where it is not there yet, in a store beside the training data.

    Where that folder cannot be written, it is in the working directory. The store's name has its recipe, so that all
    trainings of a data set share it, and an interrupted simulation is continued. Data that cannot be simulated
    (imported ones, those of another version) have their held-out groups.

    Parameters
    ----------
    refit : bool
        The validation samples are fitted to as well.
    workers : int, optional
        Processes that simulate; by default one per core.

    Raises
    ------
    InputError
        As `pipelines.simulating.simulation.simulate`, or where calibration and training share a state.
    """
    key = f"held out {settings.calibrate.model_dump_json()} {refit}"
    if key not in parts.memory:
        parts.memory[key] = _calibration_samples(settings, parts, refit, workers)
    found: CalibrationSamples = parts.memory[key]
    return found


def _calibration_samples(settings: Settings, parts: Parts, refit: bool, workers: int | None) -> CalibrationSamples:
    config, why = _config(settings.calibrate, parts)
    if config is None:
        return _halved(_rest(parts, refit), parts, why)
    own = parts.samples
    path = _place(own.path, f"{own.path.stem}.calibration-{recipe_of(settings.calibrate, parts)[:12]}.zarr")
    _simulated(settings, config, path, cores() if workers is None else workers)
    targets = [target["name"] for target in own.attributes["targets"]]
    samples = load(
        path, targets=targets, arrays=parts.task.arrays, include_unconverged=settings.split.include_unconverged
    )
    separate(names_of(parts.train), names_of(samples), "the training data and the calibration's")
    # States of unseen values judge the model later, so the spread of errors is not learnt from them if it need not be.
    part, spread = ("unseen", parts.unseen) if refit else ("validation", parts.validation)
    if not len(spread):
        part, spread = "training", parts.train
    return CalibrationSamples(spread, samples, "simulated", part)


def recipe_of(config: CalibrateConfig, parts: Parts) -> str:
    """Identify the calibration's data before they are there; empty where they are held-out groups."""
    simulation, _ = _config(config, parts)
    if simulation is None:
        return ""
    version = str(parts.samples.attributes["simulator_version"])
    return digest.recipe(parts.task.name, simulation.model_dump(mode="json"), version)


def names_of(samples: Samples) -> NDArray[np.str_]:
    """Return a name (S,) for the state of each sample that no state of another data set has."""
    prefix = str(samples.attributes["recipe"])[:16]
    return np.array([f"{prefix}/{int(group)}" for group in samples.coordinates["group"]])


def _config(config: CalibrateConfig, parts: Parts) -> tuple[Config | None, str]:
    """Return how to simulate, or why not."""
    attributes = parts.samples.attributes
    if config.states == 0:
        return None, "calibrate.states is 0"
    if "config" not in attributes or "simulator_version" not in attributes:
        return None, "the data set was not simulated here"
    try:
        own: Any = validate(parts.task.simulation, attributes["config"], "the data set's config")
    except InputError:
        return None, "the data set is of another version"
    seed = int(np.random.SeedSequence([own.seed, config.seed]).generate_state(1)[0])
    made = parts.task.held_out(own, seed, config.states)
    if str(parts.task.plan(made).attributes["simulator_version"]) != str(attributes["simulator_version"]):
        return None, "the data set is of another version"
    return made, ""


def _place(data: Path, name: str) -> Path:
    """Return where the store called ``name`` is or can be made: beside the data, else in the working directory."""
    beside = data.absolute().parent / name
    if _writable(beside.parent) or (beside.exists() and open_root(beside).attrs.get("complete") is True):
        return beside
    here = Path.cwd() / name
    if not _writable(here.parent):
        raise InputError(
            f"cannot write the states to calibrate on to {beside.parent}, nor to the working directory {here.parent}: "
            "start in a folder that you may write, or give --set calibrate.states=0"
        )
    print(f"{beside.parent} cannot be written: the states to calibrate on are kept in {here}")
    return here


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _drawn(one: Perturbation, samples: Samples) -> Samples:
    if one.remakes:
        samples = _first(samples)
        return replace(samples, images=perturbed(one, samples, _SEED))
    draws = max(1, min(_DRAWS, _MOST // max(1, len(samples))))
    images = [perturbed(one, samples, _SEED + draw) for draw in range(draws)]
    return replace(samples.subset(np.tile(np.arange(len(samples)), draws)), images=np.concatenate(images))


def _first(samples: Samples) -> Samples:
    """Return one sample of each state."""
    return samples.subset(np.sort(np.unique(samples.coordinates["group"], return_index=True)[1]))


def _rest(parts: Parts, refit: bool) -> Samples:
    known = parts.fitted(refit).coordinates["sample"]
    both = np.concatenate([part.coordinates["sample"] for part in (parts.validation, parts.unseen)])
    rows = parts.samples.coordinates["sample"]
    return parts.samples.subset(np.flatnonzero(np.isin(rows, both) & ~np.isin(rows, known)))


def _halved(rest: Samples, parts: Parts, why: str) -> CalibrationSamples:
    """Divide the held-out groups: every other one calibrates."""
    if not len(rest):
        raise InputError(
            f"{parts.samples.path}: {why}, and train.refit leaves no states to calibrate on: train without it"
        )
    first = np.unique(rest.coordinates["group"])[::2]
    mine = np.isin(rest.coordinates["group"], first)
    note = f"{why}: intervals and novelty are calibrated on {len(first)} held-out states of the data set itself"
    part, spread = ("both", rest.subset(~mine)) if not mine.all() else ("training", parts.train)
    return CalibrationSamples(spread, rest.subset(mine), "held out", part, note)


def _simulated(settings: Settings, config: Config, path: Path, workers: int) -> None:
    said = False
    while True:
        try:
            simulate(settings.task, config, path, workers=workers)
            return
        except Busy:
            if not said:
                print(f"waiting for another process that simulates {path}")
            said = True
            time.sleep(_WAIT)
