"""Search training parameters with Optuna: each trial a nested MLflow run, poor ones pruned, resumable.

Run again with the same --study it continues until TRIALS are done: of a worker or command that was killed, the
trainings go on from their checkpoints. Choices use unseen values of the target. See docs/tuning.md.

Example: stm tune hubbard --data quick.zarr --trials 8 --workers 2
"""

from __future__ import annotations

import argparse
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines import executors, settings
from pipelines.learning import repeats
from pipelines.learning.fitting import Parts, load_parts, recipe
from pipelines.tuning import report, workers
from pipelines.tuning.space import SearchSpace
from pipelines.tuning.trial import Checkpoints, objective, values_of
from pipelines.tuning.warm import warm_start
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.files import sha256_of_json
from stm_models.machine import cores
from stm_models.training.config import TrainConfig
from tracking import datasets, runs, study, trials
from tracking.store import Store, recording

__all__ = ["arguments", "describe", "run", "run_command", "tune"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    settings.arguments(parser)
    parser.add_argument("--data", required=True, metavar="DATA.zarr")
    parser.add_argument(
        "--model", metavar="NAME[,NAME...]", help="network, or networks to choose from (default: the task's)"
    )
    parser.add_argument("--trials", type=settings.optional_int, help="trials in all (default: the preset's)")
    parser.add_argument("--study", metavar="NAME", help="name to continue under (default: made from the configuration)")
    parser.add_argument(
        "--storage", metavar="URL",
        help="Optuna storage: sqlite:///FILE.db, postgresql://USER@HOST/NAME or grpc://HOST:PORT "
        "(default: optuna.db beside the tracking store)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=1, metavar="K", help="processes that work on trials (default: 1)"
    )
    parser.add_argument(
        "--executor", default="local", metavar="WHERE",
        help=f"where they are: {', '.join(executors.CHOICES)} (default: local)",
    )  # fmt: skip
    parser.add_argument(
        "--from", dest="earlier", metavar="STUDY", help="try the best trials of this study of the same storage first"
    )
    parser.add_argument(
        "--seeds", type=settings.optional_int, metavar="N", help="train the best trial with N seeds in full at the end"
    )
    # How the command starts its workers.
    parser.add_argument("--worker-of", metavar="RUN_ID", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)


def run_command(command: list[str]) -> None:
    """Work on trials as the arguments ``command`` say; what goes wrong is raised."""
    parser = argparse.ArgumentParser()
    arguments(parser)
    run(parser.parse_args(command))


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Tune."""
    if args.workers < 1:
        raise InputError(f"--workers is {args.workers}: expected at least 1")
    if args.seeds is not None:
        repeats.check("seeds", args.seeds)
    executors.check(args.executor)
    settings.only_sections("tune", args.assignments, "split", "train", "tune", "calibrate")
    networks = [name for name in (args.model or "").split(",") if name]
    pairs = list(args.assignments)
    if networks:
        # The preset's options are those of its own network, wherever that stands among them.
        own = settings.load(args.task, args.preset, config=args.config, assignments=pairs).train.network
        listed = ", ".join(f'"{name}"' for name in networks if len(networks) > 1)
        pairs += [f"train.network={own if own in networks else networks[0]}", f"tune.networks=[{listed}]"]
    pairs += [f"tune.trials={args.trials}"] if args.trials is not None else []
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=pairs, seed=args.seed)
    store = recording()
    parts = load_parts(args.data, chosen.task, chosen.split, chosen.train.targets)
    search = _Search(store, chosen, parts, args.study, args.storage, worker=args.worker)
    if args.worker_of:
        search.work(args.worker_of)
        return {"study": search.name, "parent": args.worker_of}
    alone = args.workers == 1 and args.executor == "local"
    return search.run(earlier=args.earlier, seeds=args.seeds, args=None if alone else args)


def tune(store: Store, chosen: settings.Settings, parts: Parts) -> dict[str, Any]:
    """Search in this process and record it.

    Returns
    -------
    dict
        As `pipelines.tuning.report.summary` gives it.

    Raises
    ------
    InputError
        When no trial runs to its end, or as `pipelines.learning.fitting.fit`.
    """
    return _Search(store, chosen, parts).run()


def describe(result: dict[str, Any]) -> str:
    """Say what the search found."""
    if "best" not in result:
        return f"worked on study {result['study']} for run {result['parent']}"
    return report.describe(result)


class _Search:
    """A study with what its trials need."""

    def __init__(
        self,
        store: Store,
        chosen: settings.Settings,
        parts: Parts,
        name: str | None = None,
        storage: str | None = None,
        worker: int = 0,
    ) -> None:
        self.store, self.chosen, self.parts = store, chosen, parts
        self.space = SearchSpace.of(chosen)
        self.values = values_of(chosen, parts)
        setup = _setup(chosen, parts)
        self.name = name or f"{chosen.task.name}-{'+'.join(self.space.networks)}-{setup[:12]}"
        self.storage = storage or study.beside(store)
        self.found = study.create_study(
            self.name, self.storage, seed=chosen.tune.seed, worker=worker, direction=list(self.values.values()),
            sampler=chosen.tune.sampler, pruner=chosen.tune.pruner, heartbeat=chosen.tune.heartbeat,
        )  # fmt: skip
        if self.found.user_attrs.get("setup", setup) != setup:
            raise InputError(
                f"the study {self.name!r} was made with other data or another configuration: give another --study, "
                "or leave it out"
            )
        self.found.set_user_attr("setup", setup)
        if "identity" not in self.found.user_attrs:
            self.found.set_user_attr("identity", uuid.uuid4().hex)
        self.checkpoints = Checkpoints(self.found.user_attrs["identity"])

    def run(
        self, *, earlier: str | None = None, seeds: int | None = None, args: argparse.Namespace | None = None
    ) -> dict[str, Any]:
        """Search to the end, in this process or with the workers that ``args`` ask for, and record what was found."""
        chosen, networks = self.chosen, "+".join(self.space.networks)
        if earlier:
            warm_start(self.found, study.open_study(earlier, self.storage), self.space, chosen.tune.trials)
        trials.settle(self.found, self.store, chosen.task.name)
        tags = {"network": networks, "study": self.name}
        with runs.start(self.store, chosen.task.name, f"tune {networks}", tags=tags) as parent:
            trials.own(self.found, parent.id)
            parent.config({**chosen.record("split", "tune", "train"), "study": self.name})
            attributes = self.parts.samples.attributes
            datasets.log(parent, {**attributes, "samples": len(self.parts.samples)}, self.parts.samples.path)
            parent.environment({"tune": chosen.tune.seed, "split": chosen.split.seed})
            try:
                if args is None:
                    self.work(parent.id)
                else:
                    self._with_workers(parent.id, args)
            except BaseException:
                self.found.set_user_attr(f"stop:{parent.id}", True)
                raise
            finally:
                trials.settle(self.found, self.store, chosen.task.name)
            result = report.summary(self.found, self.values, parent.id)
            best = result["best"]
            parent.metrics({f"best_{best['metric']}": best["value"]})
            parent.json(result, "study.json")
            report.draw(parent, result, study.rows(self.found), self.values, self.space)
        self.checkpoints.forget_finished(self.found)
        return {**result, "retrained": self._retrained(result, seeds)} if seeds else result

    def work(self, parent: str) -> None:
        """Work on trials until there are enough, or the process of run ``parent`` has ended badly."""

        def ended(row: study.TrialRow) -> None:
            self.checkpoints.forget(self.found.trials[row.number])
            print(workers.describe(row))

        trials.run_trials(
            self.found,
            objective(self.chosen, self.parts, self.space, self.checkpoints, self.found),
            self.chosen.tune.trials,
            store=self.store,
            experiment=self.chosen.task.name,
            parent=parent,
            report=ended,
            stop=lambda: f"stop:{parent}" in self.found.user_attrs,
        )

    def _with_workers(self, parent: str, args: argparse.Namespace) -> None:
        command = [args.task, "--preset", args.preset, "--data", str(Path(args.data).absolute())]
        command += ["--config", str(Path(args.config).absolute())] if args.config else []
        command += ["--model", args.model] if args.model else []
        command += [word for pair in args.assignments for word in ("--set", pair)]
        command += ["--seed", str(args.seed)] if args.seed is not None else []
        command += ["--trials", str(self.chosen.tune.trials), "--study", self.name, "--storage", self.storage]
        if args.executor == "local" and self.chosen.train.threads is None:
            command += ["--set", f"train.threads={max(1, cores() // args.workers)}"]
        workers.run_workers(
            self.found,
            [[*command, "--worker-of", parent, "--worker", str(1 + number)] for number in range(args.workers)],
            executor=args.executor,
            store_uri=self.store.uri,
            parent=parent,
            n_trials=self.chosen.tune.trials,
            label=next(iter(self.values)),
        )

    def _retrained(self, result: dict[str, Any], seeds: int) -> dict[str, Any]:
        """Train the best trial with several seeds, at full length; what an interrupted search has of them is kept."""
        own = self.chosen.train.model_dump(include={"epochs", "seed", "threads"})
        config = validate(TrainConfig, {**result["best"]["train"], **own}, "train")
        identity = self.found.user_attrs["identity"]  # another study of this name has other trials
        about = {"study": self.name, "study.identity": identity, "study.trial": result["best"]["number"]}
        return repeats.repeat(
            self.store, replace(self.chosen, train=config), self.parts, "seeds", seeds, about=about,
            resume=repeats.unfinished(self.store, self.chosen.task.name, "seeds", seeds, about),
            way_on="run the same command again",
        )  # fmt: skip


def _setup(chosen: settings.Settings, parts: Parts) -> str:
    """Identify what trials of one study must share: everything but their number and who works on them."""
    tuned = chosen.tune.model_dump(mode="json", exclude={"trials", "heartbeat"})
    searched = {f"train.{key}" for key in chosen.task.search_space()}
    fixed = sorted(key for key in chosen.given if key in searched or key.startswith("train.options."))
    return sha256_of_json([recipe(chosen, chosen.train, parts), tuned, *fixed])
