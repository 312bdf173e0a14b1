"""A search: a study, the trials that it lacks, here or by workers, and the record of what it found."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines import settings
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

__all__ = ["Crew", "Search", "work"]


@dataclass(frozen=True)
class Crew:
    """Who works on trials.

    Attributes
    ----------
    workers : int
        Processes.
    executor : str
        Where they are: one of `pipelines.executors.CHOICES`.
    """

    workers: int
    executor: str


class Search:
    """A study with what its trials need.

    Parameters
    ----------
    store : Store
    chosen : Settings
    parts : Parts
        The data set, split.
    name : str, optional
        Of the study; by default made from the configuration.
    storage : str, optional
        Optuna's; by default beside the tracking store.
    worker : int
        Number of the worker that this is, 0 for the search itself: it draws other trials.
    earlier : str, optional
        A study of the same storage whose best trials are tried first; the others are not those that it drew.

    Raises
    ------
    InputError
        When a study of this name is there with other data or another configuration.
    """

    def __init__(
        self,
        store: Store,
        chosen: settings.Settings,
        parts: Parts,
        name: str | None = None,
        storage: str | None = None,
        worker: int = 0,
        earlier: str | None = None,
    ) -> None:
        self.store, self.chosen, self.parts, self.earlier = store, chosen, parts, earlier
        self.space = SearchSpace.of(chosen)
        self.values = values_of(chosen, parts)
        setup = _setup(chosen, parts)
        self.name = name or f"{chosen.task.name}-{'+'.join(self.space.networks)}-{setup[:12]}"
        self.storage = storage or study.beside(store)
        self.found = study.create_study(
            self.name, self.storage, seed=chosen.tune.seed, worker=worker, direction=list(self.values.values()),
            sampler=chosen.tune.sampler, pruner=chosen.tune.pruner, heartbeat=chosen.tune.heartbeat,
            earlier=earlier,
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

    def run(self, *, seeds: int | None = None, crew: Crew | None = None) -> dict[str, Any]:
        """Search to the end and record what was found.

        Parameters
        ----------
        seeds : int, optional
            Train the best trial with so many at the end.
        crew : Crew, optional
            Who works on trials; by default this process.

        Returns
        -------
        dict
            As `pipelines.tuning.report.summary` gives it.
        """
        chosen, networks = self.chosen, "+".join(self.space.networks)
        if self.earlier:
            warm_start(self.found, study.open_study(self.earlier, self.storage), self.space, chosen.tune.trials)
        elif not self.found.get_trials(deepcopy=False):
            # What one has without a search comes first: nothing that is worse can win.
            self.found.enqueue_trial(self.space.usual(chosen), skip_if_exists=True)
        trials.settle(self.found, self.store, chosen.task.name)
        tags = {"network": networks, "study": self.name}
        with runs.start(self.store, chosen.task.name, f"tune {networks}", tags=tags) as parent:
            trials.own(self.found, parent.id)
            parent.config({**chosen.record("split", "tune", "train"), "study": self.name})
            attributes = self.parts.samples.attributes
            datasets.log(parent, {**attributes, "samples": len(self.parts.samples)}, self.parts.samples.path)
            parent.environment({"tune": chosen.tune.seed, "split": chosen.split.seed})
            try:
                if crew is None:
                    self.work(parent.id)
                else:
                    self._with_workers(parent.id, crew)
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

    def _with_workers(self, parent: str, crew: Crew) -> None:
        chosen = self.chosen
        if crew.executor == "local" and chosen.train.threads is None:
            shared = chosen.train.model_copy(update={"threads": max(1, cores() // crew.workers)})
            chosen = replace(chosen, train=shared)
        given = (chosen, Path(self.parts.samples.path).absolute(), self.name, self.storage, parent)
        workers.run_workers(
            self.found,
            [(work, (*given, 1 + number, self.earlier)) for number in range(crew.workers)],
            executor=crew.executor,
            store_uri=self.store.uri,
            parent=parent,
            n_trials=chosen.tune.trials,
            label=next(iter(self.values)),
        )

    def _retrained(self, result: dict[str, Any], seeds: int) -> dict[str, Any]:
        """Train the best trial with several seeds, at full length; what an interrupted search has of them is kept."""
        best = result["best"]["train"]
        own = self.chosen.train.model_dump(include={"seed", "threads"})
        own["epochs"] = self.chosen.training_of(best["network"]).epochs
        config = validate(TrainConfig, {**best, **own}, "train")
        identity = self.found.user_attrs["identity"]  # another study of this name has other trials
        about = {"study": self.name, "study.identity": identity, "study.trial": result["best"]["number"]}
        return repeats.repeat(
            self.store, replace(self.chosen, train=config), self.parts, "seeds", seeds, about=about,
            resume=repeats.unfinished(self.store, self.chosen.task.name, "seeds", seeds, about),
            way_on="run the same command again",
        )  # fmt: skip


def work(
    chosen: settings.Settings, data: Path, name: str, storage: str, parent: str, number: int, earlier: str | None
) -> None:
    """Work on trials of a search as one of its workers, perhaps on another machine.

    Runs are recorded in the tracking store that the environment names.

    Parameters
    ----------
    chosen : Settings
    data : Path
        The data set.
    name, storage : str
        Of the study, and where it is kept; see `Search`.
    parent : str
        Id of the run of the search.
    number : int
        Of the worker, from 1: each draws other trials.
    earlier : str or None
        The study that the search began from.

    Raises
    ------
    InputError
        For a data set, tracking store or storage that cannot be used, a study with other data or another configuration,
        and as `tracking.trials.run_trials`.
    Exception
        What trials raised, when several in a row failed.
    """
    parts = load_parts(data, chosen.task, chosen.split, chosen.train.targets)
    Search(recording(), chosen, parts, name, storage, worker=number, earlier=earlier).work(parent)


def _setup(chosen: settings.Settings, parts: Parts) -> str:
    """Identify what trials of one study must share: everything but their number and who works on them."""
    tuned = chosen.tune.model_dump(mode="json", exclude={"trials", "heartbeat"})
    others = [name for name in chosen.tune.networks if name != chosen.train.network]
    own = [chosen.training_of(name).model_dump(mode="json", exclude={"threads", "device"}) for name in others]
    free = {"seed", *chosen.task.search_space()}
    fixed = {
        name: {key for key in chosen.recipes.fixed(name) if key in free or key.startswith("options.")}
        for name in (chosen.train.network, *others)
    }
    first = fixed.pop(chosen.train.network)
    given = [*(f"train.{key}" for key in first), *(f"{name}.{key}" for name in others for key in fixed[name] - first)]
    return sha256_of_json([recipe(chosen, chosen.train, parts), tuned, *sorted(given), *own])
