"""The data sets and trainings of a reproduction, each made once and found again by its recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import settings
from pipelines.learning.fitting import Measured, Parts, fit, load_parts, recipe
from pipelines.learning.recording import fit_baselines
from pipelines.reproducing.attention import look
from pipelines.scoring.robustness import SEED
from pipelines.simulating.simulation import simulate
from stm_models.config import Config
from stm_models.data.dataset import Samples, load
from stm_models.files import sha256_of_json
from stm_models.networks import bundle
from stm_models.networks.map_network import MapNetwork
from stm_models.networks.model import Model
from stm_models.tasks.base import Task
from stm_models.tasks.outputs import Predictor
from stm_models.tasks.perturbation import CLEAN, Perturbation, find
from stm_models.tasks.reproduction import Ask, Baseline, DataSet, Finished, Reproduction, Training
from stm_models.training.perturbations import perturbed
from stm_models.training.predict import in_batches, predict
from tracking import runs
from tracking.store import Store

__all__ = ["Work", "ask_bundle", "ask_model", "simulated"]

Array = NDArray[Any]
_RESULT = "reproduction.json"


@dataclass(frozen=True)
class Shown:
    """Where a data set is, and as which set of its task's its images are shown."""

    path: Path
    perturbation: Perturbation


def simulated(task: Task, wanted: Mapping[str, DataSet], folder: Path, workers: int) -> dict[str, Shown]:
    """Simulate what is not there yet; data sets alike but for their perturbation share a store, named by the first."""
    paths: dict[str, Path] = {}
    made = {}
    for name, one in wanted.items():
        chosen = settings.load(task.name, one.preset, recorded={"simulate": dict(one.simulate)})
        config = chosen.simulate if one.changed is None else one.changed(chosen.simulate)
        key = config.model_dump_json()
        if key not in paths:
            paths[key] = folder / f"{name.replace(' ', '-')}.zarr"
            simulate(task, config, paths[key], workers=workers)
        made[name] = Shown(paths[key], find(task.perturbations(), one.perturbation))
    return made


def ask_model(model: Model) -> Ask:
    """Return how a model is asked about images; a network that answers with maps gives its logits too."""
    network = model.network

    def raw(images: Array) -> Array:
        return predict(network, images)

    return Ask(
        lambda images: predict(model, images), raw if isinstance(network, MapNetwork) else None
    )  # fmt: skip


def ask_bundle(found: bundle.Bundle) -> Ask:
    """Return how a finished model is asked, with its novelty where it has one."""

    def novelty(images: Array) -> Array:
        return in_batches(found.model, lambda x: found.answers(x)["novelty"], images)

    return replace(ask_model(found.model), novelty=None if found.novelty is None else novelty)


class Work:
    """Data sets, read once, and the trainings on them."""

    def __init__(
        self, store: Store, experiment: str, parent: str, task: Task, made: Reproduction, config: Config,
        sets: Mapping[str, Shown],
    ) -> None:  # fmt: skip
        self._store, self._experiment, self._parent, self._task = store, experiment, parent, task
        self._made, self._config, self._sets = made, config, sets
        self._read: dict[str, Samples] = {}
        self._split: tuple[str, Parts] | None = None

    def samples(self, wanted: Sequence[str]) -> dict[str, Samples]:
        """Samples of some data sets."""
        for name in wanted:
            if name not in self._read:
                one = self._sets[name]
                found = load(one.path, arrays=self._task.arrays)
                if one.perturbation != CLEAN:
                    found = replace(found, images=perturbed(one.perturbation, found, SEED))
                self._read[name] = found
        return {name: self._read[name] for name in wanted}

    def finished(self, training: Training) -> Finished:
        """Return a recorded training, done now unless there is one."""
        chosen = self._settings(training)
        parts = self._parts(training.data, chosen)
        measured = self._measured(training)
        scored = self.samples((*training.watched, *training.judged))
        digests = {name: self._digest(name, part) for name, part in scored.items()}
        about: dict[str, Any] = {
            "recipe": recipe(chosen, chosen.train, parts, measured),
            "scored": digests,
            "name": training.name,
        }
        if training.explained is not None:
            part = self.samples([training.explained])[training.explained]
            about["explained"] = [self._digest(training.explained, part), *training.explanations]
        key = sha256_of_json({**about, "config": self._made.scoring(self._config)})
        for row in runs.find(self._store, self._experiment):
            if row.status == "FINISHED" and row.tags.get("reproduction.training") == key:
                return self._recorded(training, row.id)
        history: list[dict[str, float]] = []
        tags = {"reproduction.training": key, "reproduction.name": training.name}
        label = f"{training.name}, seed {training.seed}"
        watched = {name: scored[name] for name in training.watched}
        judged = {name: scored[name] for name in training.judged}
        with runs.start(self._store, self._experiment, label, parent=self._parent, tags=tags) as record:
            fitted = fit(
                record, chosen, chosen.train, parts, baselines=False, measured=measured,
                on_epoch=lambda epoch, entry: history.append(entry),
                watch=(lambda model: self._made.watch(self._config, ask_model(model), watched)) if watched else None,
            )  # fmt: skip
            found = bundle.load(record.file("bundle"))
            scores = self._made.judge(self._config, training, ask_bundle(found), judged, found.info["calibration"])
            record.metrics(scores)
            record.json(
                {"history": history, "scores": scores, "attention": self._attention(record, training, found)}, _RESULT
            )
        return self._recorded(training, fitted.run_id)

    def baselines(self) -> list[Baseline]:
        """Scores of the task's methods without training, and of the reproduction's own."""
        made = []
        for training in self._made.untrained(self._config):
            parts = self._parts(training.data, self._settings(training))
            fitted = fit_baselines(self._task, parts.train, parts.validation, training.seed)
            for name, method in self._made.methods(self._config, training, parts.train).items():
                fitted[name] = (method, self._task.calibrate(method(parts.validation), parts.validation))
            judged = self.samples(training.judged)
            for name, (method, calibration) in fitted.items():
                ask = Ask(_asked(method, parts.samples))
                scores = self._made.judge(self._config, None, ask, judged, calibration)
                made.append(Baseline(training, name, scores))
        return made

    def _attention(self, record: runs.Run, training: Training, found: bundle.Bundle) -> dict[str, Any]:
        """Draw where the network looks; return the numbers."""
        if training.explained is None:
            return {}
        samples = self.samples([training.explained])[training.explained]
        looked = look(self._task, found, samples, training.explanations, training.seed)
        for method, one in looked.items():
            for kind, figure in one.figures.items():
                record.figure(figure, f"figures/{kind}_{method}.png")
        return {method: one.record for method, one in looked.items()}

    def _settings(self, training: Training) -> settings.Settings:
        values = {
            "train": {**training.train, "seed": training.seed}, "split": {**training.split, "seed": training.seed},
            "calibrate": dict(training.calibrate),
        }  # fmt: skip
        return settings.load(self._task.name, training.preset, recorded=values)

    def _digest(self, name: str, samples: Samples) -> str:
        shown = self._sets[name].perturbation
        own = str(samples.attributes["digest"])
        return own if shown == CLEAN else f"{own} {json.dumps(shown.record(), sort_keys=True)}"

    def _recorded(self, training: Training, run_id: str) -> Finished:
        held = json.loads(runs.download(self._store, run_id, _RESULT).read_text(encoding="utf-8"))
        return Finished(
            training, run_id, held["history"], held["scores"],
            lambda: ask_bundle(bundle.load(runs.download(self._store, run_id, "bundle"))), held.get("attention", {}),
        )  # fmt: skip

    def _parts(self, name: str, chosen: settings.Settings) -> Parts:
        key = f"{name} {chosen.split}"
        if self._split is None or self._split[0] != key:
            self._split = (key, load_parts(self._sets[name].path, self._task, chosen.split, chosen.train.targets))
        return self._split[1]

    def _measured(self, training: Training) -> Measured:
        if training.unlabelled is None:
            return Measured()
        part = self.samples([training.unlabelled])[training.unlabelled]
        return Measured(tuple(part.images), {training.unlabelled: part.attributes["digest"]})


def _asked(predictor: Predictor, like: Samples) -> Any:
    """Return a method that takes samples as a function of images."""

    def prediction(images: Array) -> Array:
        rows = np.zeros(len(images), np.int64)
        return predictor(replace(like.subset(rows), images=np.asarray(images, np.float32)))

    return prediction
