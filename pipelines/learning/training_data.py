"""The data set that a run was trained on: found again, told from another one, and split as it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.learning.parts import Parts, load_parts, split_samples
from pipelines.settings import SplitConfig
from stm_models.config import validate
from stm_models.data.dataset import Samples
from stm_models.data.splits import Split
from stm_models.errors import InputError
from stm_models.tasks.base import Task
from stm_models.tasks.registry import get
from stm_models.training.config import TrainConfig
from tracking import runs
from tracking.runs import RunRow
from tracking.store import Store

__all__ = ["TrainingData", "training_data"]


@dataclass(frozen=True)
class TrainingData:
    """What a run says of the data set that it was trained on.

    Attributes
    ----------
    path : str
        Where it was then; empty where the run does not say.
    digest, recipe : str
        Its two identities; empty where the run was killed before it recorded them.
    split : SplitConfig
    train : TrainConfig
    """

    run_id: str
    task: Task
    path: str
    digest: str
    recipe: str
    split: SplitConfig
    train: TrainConfig

    def parts(self, given: str | Path | None = None, option: str = "--data") -> Parts:
        """Read it, split as the run split it.

        Parameters
        ----------
        given : path, optional
            Where it is now, if not where it was.
        option : str
            What a user says so with.

        Raises
        ------
        InputError
            When it is gone, another one lies in its place, or it cannot be read.
        """
        parts = load_parts(self.where(given, option), self.task, self.split, self.train.targets)
        self.check(parts.samples, option)
        return parts

    def where(self, given: str | Path | None = None, option: str = "--data") -> Path:
        """Return where it is; the parameters and errors are those of `parts`."""
        path = given or self.path
        if not path or not Path(path).is_dir():
            raise InputError(
                f"the data set of run {self.run_id} is not at {path or 'any known place'}: simulate it again (recipe "
                f"{self.recipe[:12] or '?'}), it has the same digest then, or say where it is with {option}"
            )
        return Path(path)

    def check(self, samples: Samples, option: str = "--data") -> None:
        """Refuse another data set, told by its digest."""
        digest = samples.attributes["digest"]
        if self.digest and digest != self.digest:
            raise InputError(
                f"{samples.path} has digest {digest[:12]}, run {self.run_id} was trained on {self.digest[:12]} "
                f"(then at {self.path or '?'}): give that data set with {option}"
            )

    def divided(self, samples: Samples) -> Split:
        """Split its samples as the run did."""
        return split_samples(samples, self.task, self.split)

    def known(self, parts: Parts) -> NDArray[np.int64]:
        """Return the numbers of the samples that the run's model was fitted to."""
        return parts.fitted(self.train.refit).coordinates["sample"]


def training_data(store: Store, row: RunRow) -> TrainingData:
    """Return what a run says of its data set.

    Raises
    ------
    InputError
        When it has no configuration.
    """
    values = runs.configuration(store, row.id)
    path, digest, recipe = (row.tags.get(f"data.{key}", "") for key in ("path", "digest", "recipe"))
    split = validate(SplitConfig, values["split"], "split")
    return TrainingData(
        row.id, get(values["task"]), path, digest, recipe, split, validate(TrainConfig, values["train"], "train")
    )
