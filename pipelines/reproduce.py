"""Make the results of a task's paper again, with ours beside them: one MLflow experiment, figures and a report.

Run again it keeps every training that is finished.

Example: stm reproduce impurity --preset quick --out reproduced
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines import settings
from pipelines.fitting import Measured, Parts, fit, fit_baselines, load_parts, recipe
from pipelines.simulation import simulate
from stm_models.config import Config, merge, parse_assignments, validate
from stm_models.data.dataset import Samples, load
from stm_models.errors import InputError, unknown
from stm_models.figures.png import save
from stm_models.files import atomic_path, output_directory, write_json
from stm_models.machine import cores
from stm_models.networks import bundle
from stm_models.networks.map_network import MapNetwork
from stm_models.networks.model import Model
from stm_models.tasks.base import Predictor, Task
from stm_models.tasks.registry import get, names
from stm_models.tasks.reproduction import Ask, Finished, Reproduction, Training
from stm_models.training.predict import predict
from tracking import runs
from tracking.store import Store, connect

__all__ = ["arguments", "ask_model", "describe", "reproduce", "run"]

Array = NDArray[Any]
_BATCH = 4  # whole fields at a time
_RESULT = "reproduction.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("task", help="name of the task")
    parser.add_argument("--preset", default="quick", help="how large: quick, paper, test (default: quick)")
    parser.add_argument("--out", required=True, metavar="DIR", help="for data, figures and the report")
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="one value laid over the preset's; repeat, or separate with ';'",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=cores(), help="processes that simulate")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Reproduce."""
    task = get(args.task)
    made = task.reproduction()
    if made is None:
        able = [name for name in names() if get(name).reproduction() is not None]
        raise InputError(f"task {task.name} has nothing to reproduce yet: choose from {', '.join(able) or 'none'}")
    if args.preset not in made.presets:
        raise unknown(f"reproduction of {task.name}", args.preset, made.presets)
    pairs = [pair for text in args.assignments for pair in text.split(";") if pair.strip()]
    config = validate(made.config, merge(made.presets[args.preset], parse_assignments(pairs)), "the reproduction")
    return reproduce(connect(), task, made, config, args.out, workers=args.workers)


def reproduce(
    store: Store, task: Task, made: Reproduction, config: Config, out: str | Path, *, workers: int
) -> dict[str, Any]:
    """Simulate, train, judge and conclude; whatever an earlier call with the same ``config`` finished is kept.

    Returns
    -------
    dict
        task, run_id, experiment, runs by training and seed, findings' report, text, files.

    Raises
    ------
    InputError
        For an impossible ``config``, or a folder that cannot be written.
    """
    out = output_directory(out).absolute()
    trainings = made.trainings(config)
    paths = {}
    for name, wanted in made.data_sets(config).items():
        chosen = settings.load(task.name, wanted.preset, recorded={"simulate": dict(wanted.simulate)})
        paths[name] = out / "data" / f"{name.replace(' ', '-')}.zarr"
        simulate(task, chosen.simulate, paths[name], workers=workers)
    experiment = f"reproduce {task.name}"
    key = _digest({"task": task.name, "config": config.model_dump(mode="json")})
    parent_id = next(
        (row.id for row in runs.find(store, experiment) if row.parent is None and row.tags.get("reproduction") == key),
        None,
    )
    tags = {"task": task.name, "reproduction": key}
    with runs.start(store, experiment, f"reproduce {task.name}", tags=tags, resume=parent_id) as parent:
        parent.config({"task": task.name, "reproduce": config.model_dump(mode="json")})
        parent.environment()
        work = _Work(store, experiment, parent.id, task, made, config, paths)
        finished = []
        for number, training in enumerate(trainings, 1):
            print(
                f"== {number} of {len(trainings)}: {training.name}, seed {training.seed}", file=sys.stderr, flush=True
            )
            finished.append(work.finished(training))
        baselines = work.baselines()
        scored = sorted({name for one in trainings for name in (*one.watched, *one.judged)})
        concluded = made.conclude(config, finished, baselines, work.samples(scored))
        report = {"task": task.name, "experiment": experiment, "run_id": parent.id, **concluded.report}
        files = [save(figure, out / f"{name}.png") for name, figure in concluded.figures.items()]
        write_json(out / "report.json", report)
        with atomic_path(out / "report.md") as part:
            part.write_text(
                f"{concluded.text}\nMLflow: experiment `{experiment}`, run {parent.id}.\n", encoding="utf-8"
            )
        files += [out / "report.json", out / "report.md"]
        for file in files:
            parent.artifact(file, "figures" if file.suffix == ".png" else None)
    return {
        "task": task.name, "experiment": experiment, "run_id": parent.id, "link": parent.link,
        "runs": {f"{one.training.name}, seed {one.training.seed}": one.run_id for one in finished},
        "findings": list(report.get("findings", [])), "files": [str(file) for file in files],
    }  # fmt: skip


def describe(result: dict[str, Any]) -> str:
    """Say what was found, and where it is."""
    lines = [f"{len(result['runs'])} trainings in the experiment {result['experiment']!r}, run {result['run_id']}"]
    lines += [f"  {text}" for text in result["findings"]]
    return "\n".join([*lines, f"report: {result['files'][-1]}", f"look at it: {result['link']}"])


def ask_model(model: Model) -> Ask:
    """Return how a model is asked about images; a network that answers with maps gives its logits too."""
    network = model.network

    def raw(images: Array) -> Array:
        return predict(network, images, _BATCH)

    return Ask(lambda images: predict(model, images, _BATCH), raw if isinstance(network, MapNetwork) else None)


class _Work:
    """Data sets, read once, and the trainings on them."""

    def __init__(
        self, store: Store, experiment: str, parent: str, task: Task, made: Reproduction, config: Config,
        paths: Mapping[str, Path],
    ) -> None:  # fmt: skip
        self._store, self._experiment, self._parent, self._task = store, experiment, parent, task
        self._made, self._config, self._paths = made, config, paths
        self._read: dict[str, Samples] = {}
        self._split: tuple[str, Parts] | None = None

    def samples(self, wanted: Sequence[str]) -> dict[str, Samples]:
        """Samples of some data sets."""
        for name in wanted:
            if name not in self._read:
                self._read[name] = load(self._paths[name], arrays=self._task.arrays)
        return {name: self._read[name] for name in wanted}

    def finished(self, training: Training) -> Finished:
        """Return a recorded training, done now unless there is one."""
        values = {"train": {**training.train, "seed": training.seed}, "split": {"seed": training.seed}}
        chosen = settings.load(self._task.name, training.preset, recorded=values)
        parts = self._parts(training.data, chosen)
        measured = self._measured(training)
        scored = self.samples((*training.watched, *training.judged))
        digests = {name: part.attributes["digest"] for name, part in scored.items()}
        about = {"recipe": recipe(chosen, chosen.train, parts, measured), "scored": digests, "name": training.name}
        key = _digest({**about, "config": self._config.model_dump(mode="json")})
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
            scores = self._made.judge(
                self._config, training, ask_model(found.model), judged, found.info["calibration"]
            )  # fmt: skip
            record.metrics(scores)
            record.json({"history": history, "scores": scores}, _RESULT)
        return self._recorded(training, fitted.run_id)

    def baselines(self) -> dict[str, dict[str, float]]:
        """Scores of the task's methods without training."""
        trained_on, judged = self._made.untrained(self._config)
        chosen = settings.load(self._task.name, "quick")
        parts = self._parts(trained_on, chosen)
        scores = {}
        for name, (predictor, calibration) in fit_baselines(self._task, parts, chosen.train.seed).items():
            ask = Ask(_asked(predictor, parts.samples))
            scores[name] = self._made.judge(self._config, None, ask, self.samples(judged), calibration)
        return scores

    def _recorded(self, training: Training, run_id: str) -> Finished:
        held = json.loads(runs.download(self._store, run_id, _RESULT).read_text(encoding="utf-8"))
        return Finished(
            training, run_id, held["history"], held["scores"],
            lambda: ask_model(bundle.load(runs.download(self._store, run_id, "bundle")).model),
        )  # fmt: skip

    def _parts(self, name: str, chosen: settings.Settings) -> Parts:
        key = f"{name} {chosen.split}"
        if self._split is None or self._split[0] != key:
            self._split = (key, load_parts(self._paths[name], self._task, chosen.split, chosen.train.targets))
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


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
