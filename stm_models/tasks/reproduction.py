"""What it takes to make the results of a task's paper again: data sets, trainings, and what is concluded from them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from stm_models.config import Config
from stm_models.tasks.perturbation import CLEAN

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples
    from stm_models.tasks.outputs import Predictor

__all__ = ["Ask", "Baseline", "Conclusion", "DataSet", "Finished", "Reproduction", "Training"]

Array = NDArray[Any]
Numbers = dict[str, float]


@dataclass(frozen=True)
class DataSet:
    """A data set to simulate: a preset of the task, and values of its section ``simulate`` laid over it.

    Those that differ in ``perturbation`` alone, the set of the task's that the images are shown as, share a store.
    ``changed`` makes the config of that section another where its values depend on the preset's.
    """

    preset: str
    simulate: Mapping[str, Any] = field(default_factory=dict)
    perturbation: str = CLEAN.name
    changed: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Training:
    """One network to train.

    Attributes
    ----------
    name : str
        Of the kind of training; those that differ in the seed alone share it.
    seed : int
    data : str
        Name of the data set.
    preset : str
        Of the task; ``train`` is laid over its section of this name.
    unlabelled : str, optional
        Data set whose images take part in the training without their labels.
    watched, judged : tuple of str
        Data sets scored after every epoch, and once with the finished model.
    split, calibrate : mapping
        Laid over the preset's sections of these names.
    explained : str, optional
        Data set over which maps of the finished model are averaged, and related to the task's regions.
    explanations : tuple of str
        Methods of those maps.
    """

    name: str
    seed: int
    data: str
    preset: str
    train: Mapping[str, Any] = field(default_factory=dict)
    unlabelled: str | None = None
    watched: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    split: Mapping[str, Any] = field(default_factory=dict)
    calibrate: Mapping[str, Any] = field(default_factory=dict)
    explained: str | None = None
    explanations: tuple[str, ...] = ()

    def figure(self, method: str) -> str:
        """Return the name, fit for a file, of the figure of where attention of ``method`` goes."""
        return "_".join([*re.findall("[A-Za-z0-9]+", self.name), str(self.seed), method])


@dataclass(frozen=True)
class Ask:
    """A model or a method without training that answers: functions of images (S, C, H, W) of any size it takes.

    Attributes
    ----------
    prediction : callable
        Gives the answers in the form of the task's predictions.
    raw : callable or None
        Gives what the last layer of a network that answers with maps does, (S, 1, H, W); for others ``None``.
    novelty : callable or None
        Gives the share (S,) of held-out simulated images that lie as far from the training data.
    """

    prediction: Callable[[Array], Array]
    raw: Callable[[Array], Array] | None = None
    novelty: Callable[[Array], Array] | None = None


@dataclass(frozen=True)
class Finished:
    """A recorded training: its run, what was watched in each epoch, its scores, and its model to ask.

    ``attention``: of each method of its explanations the record of `stm_models.explain.attention.Attention` with the
    ``statement`` made from it.
    """

    training: Training
    run_id: str
    history: Sequence[Mapping[str, float]]
    scores: Mapping[str, float]
    ask: Callable[[], Ask]
    attention: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """A method without training, fitted to the data of ``training``, and its scores."""

    training: Training
    method: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Conclusion:
    """What came out: JSON-able numbers, the same in Markdown, and matplotlib figures by file name."""

    report: Mapping[str, Any]
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class Reproduction(ABC):
    """Base of every reproduction.

    Attributes
    ----------
    config : type of Config
        Its sizes.
    presets : mapping of str to mapping
        Values of ``config`` by name.
    """

    config: ClassVar[type[Config]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    @abstractmethod
    def data_sets(self, config: Any) -> dict[str, DataSet]:
        """Name the data sets."""

    @abstractmethod
    def trainings(self, config: Any) -> list[Training]:
        """List the trainings, in the order in which they are done."""

    @abstractmethod
    def untrained(self, config: Any) -> list[Training]:
        """List what methods without training are fitted to: data, preset, split and seed, and where they are judged."""

    def methods(self, config: Any, training: Training, train: Samples) -> dict[str, Predictor]:
        """Fit further methods without training, beside the task's baselines, to ``train``, the data of ``training``."""
        return {}

    def scoring(self, config: Any) -> dict[str, Any]:
        """Return what of the config `watch` and `judge` depend on: where it changes, trainings are done again."""
        return dict(config.model_dump(mode="json"))

    @abstractmethod
    def watch(self, config: Any, ask: Ask, samples: Mapping[str, Samples]) -> Numbers:
        """Score the model of an epoch on the watched data sets."""

    @abstractmethod
    def judge(
        self, config: Any, training: Training | None, ask: Ask, samples: Mapping[str, Samples],
        calibration: Mapping[str, Any],
    ) -> Numbers:  # fmt: skip
        """Score a finished model, or a method without training, on the judged data sets.

        Parameters
        ----------
        config
            Values of `config`, validated.
        training : Training or None
            What the model came of; None for a method without training.
        ask : Ask
            The model, or the method, which has a ``prediction`` alone.
        samples : mapping of str to Samples
            The data sets that the training, or for a method the one of `untrained`, names as judged.
        calibration : mapping
            What the task's `calibrate` returned for the model or the method.

        Returns
        -------
        dict of str to float
            By name. Those of a model become metrics of its run; `conclude` gets them all.
        """

    @abstractmethod
    def conclude(
        self, config: Any, finished: Sequence[Finished], baselines: Sequence[Baseline],
        samples: Mapping[str, Samples],
    ) -> Conclusion:  # fmt: skip
        """Compare, and say what was found; ``samples``: every watched and judged data set."""
