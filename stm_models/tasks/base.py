"""What a task is: everything that only the task knows, and nothing that another room does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.config import Config
from stm_models.errors import InputError
from stm_models.search import Space
from stm_models.tasks.inputs import Axes, Prepared, RawMap, Reference
from stm_models.tasks.outputs import Column, Pictures, PlaceMaps, Predictor
from stm_models.tasks.perturbation import CLEAN, Perturbation
from stm_models.tasks.plan import Plan, Simulator, Variable

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples
    from stm_models.data.opened import OpenDataSet
    from stm_models.tasks.conventions import Convention
    from stm_models.tasks.reproduction import Reproduction

__all__ = ["Task"]

Array = NDArray[Any]


class Task(ABC):
    """Base of every task; nothing outside ``stm_models/tasks`` branches on its name.

    A task's networks answer with numbers (B, T), or with maps (B, T, y, x) where its targets are arrays of the
    data set; only the task knows what either means: how good a prediction is, what it says in words, what to draw.

    Attributes
    ----------
    targets : tuple of Variable
        What is learnt: parameters or scalars of the data set, or arrays (y, x) of it, all of one kind.
    arrays : tuple of str
        Further arrays of the data set that `metrics` and `truth` need.
    stratify : str
        The parameter that splits are stratified over.
    unseen : bool
        Whether some values of ``stratify`` are held out whole and scored on their own, as ``unseen_*``.
    metric : str
        Decides which model is better.
    higher, lower : tuple of str
        Further metrics of which a larger, or a smaller, value is better.
    columns : tuple of Column
        The table of a model beside its baselines.
    tables : mapping of str to tuple of str
        The columns of each list of alike things in an answer, which may be empty.
    limits : str
        What its models are not for, in words for a model card.
    losses : tuple of str
        What the task's networks may be trained with, the default first.
    standardise : bool
        Whether images are standardised per pixel and targets scaled before the network sees them.
    any_size : bool
        Whether images may be larger or smaller than those of the training.
    map_options : frozenset of str
        What `prepare` reads of a measured map beside its values: ``rotate`` where the map has to lie as in the
        simulation, ``atom_width`` where it shows atoms; see `stm_models.tasks.inputs.RawMap`.
    unlabelled : bool
        Whether measured maps without labels may take part in the training.
    compared : (str, str) or None
        Two of `regions` between which attention is said to move.
    presets : Path or None
        Folder of its presets, PRESET.yaml; ``None``: ``configs/NAME`` of this distribution.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    targets: ClassVar[tuple[Variable, ...]]
    arrays: ClassVar[tuple[str, ...]] = ()
    stratify: ClassVar[str]
    unseen: ClassVar[bool] = True
    metric: ClassVar[str]
    larger_is_better: ClassVar[bool] = False
    higher: ClassVar[tuple[str, ...]] = ()
    lower: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[Column, ...]] = ()
    tables: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    limits: ClassVar[str] = "Answers hold for samples like those of its training data set, and for no others."
    default_network: ClassVar[str]
    losses: ClassVar[tuple[str, ...]]
    standardise: ClassVar[bool] = True
    any_size: ClassVar[bool] = False
    map_options: ClassVar[frozenset[str]] = frozenset()
    unlabelled: ClassVar[bool] = False
    simulation: ClassVar[type[Config]]
    compared: ClassVar[tuple[str, str] | None] = None
    presets: ClassVar[Path | None] = None

    @abstractmethod
    def plan(self, config: Any) -> Plan:
        """Lay out the data set for a validated simulation config."""

    @abstractmethod
    def simulator(self, config: Any, *, device: str = "cpu") -> Simulator:
        """Build the function that simulates one group; geometry and kernels are made once here.

        ``device``: where the linear algebra runs, ``cpu``, ``cuda`` or ``auto``; it changes no result beyond 1e-6.
        """

    @abstractmethod
    def fresh(self, config: Any, seed: int, states: int, *, unseen: bool) -> Any:
        """Return a config for about ``states`` new states of the same kind, one sample each.

        ``unseen``: at continuous targets that no grid holds; else at the targets of ``config``.
        """

    def states(self, config: Any) -> frozenset[Hashable]:
        """Return what decides each state that ``config`` gives, where another seed can give it again; else nothing."""
        return frozenset()

    def held_out(self, config: Any, seed: int, states: int) -> Any:
        """Return a config for about ``states`` new states like those of ``config``, to calibrate a model of it on."""
        return self.fresh(config, seed, states, unseen=self.unseen)

    @abstractmethod
    def prepare(self, raw: RawMap, input_spec: Mapping[str, Any]) -> Prepared:
        """Turn a raw map into the network's input described by the model's ``input_spec``."""

    def input_differences(self, got: Mapping[str, Any], expected: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """List in what else than shape the images that ``got`` describes are of another kind than ``expected`` ones.

        Parameters
        ----------
        got, expected : mapping
            Descriptions of an input; what one of them does not say makes no difference.

        Returns
        -------
        list of (str, str, str)
            What it is (with its unit), and what either says of it, in words.
        """
        return []

    @abstractmethod
    def axes(self, input_spec: Mapping[str, Any]) -> Axes:
        """Say what the input's pixels mean."""

    @abstractmethod
    def metrics(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, float]:
        """Score predictions (S, ...) of samples whose truth is known; finite numbers, `metric` among them."""

    @abstractmethod
    def decode(
        self, outputs: Mapping[str, Array], metadata: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Turn the model's raw outputs into one JSON-able answer per sample, with units and a verdict.

        Parameters
        ----------
        outputs : mapping of str to array
            ``prediction`` (S, T) or (S, 1, y, x), and ``distance`` (S,) where the model gives it.
        metadata : mapping
            What the model file says about itself: ``targets``, ``input``, ``distance``, ``calibration``, ...
        about : mapping, optional
            `Prepared.about` of a measured map.
        """

    def examine(
        self,
        answer: Callable[[Array], Array],
        shape: tuple[int, int],
        prediction: Array,
        samples: Samples,
        calibration: Mapping[str, Any],
    ) -> dict[str, float]:
        """Return further scores of an evaluation: what takes asking the model again, or more of the data set.

        Parameters
        ----------
        answer : callable
            Images (S, C, y, x) in, predictions of the model out; of any size where the task takes `any_size`.
        shape : (height, width)
            Of the model's own input, px.
        prediction : (S, ...)
            Of ``samples``.
        samples : Samples
        calibration : mapping
            What `calibrate` returned.
        """
        return {}

    def validation(self, prediction: Array, samples: Samples, trained: Samples) -> tuple[dict[str, float], float]:
        """Return the scores of an epoch, cheap ones, `metric` among them; and the one that chooses the best epoch.

        Its direction is that of `metric`. ``trained``: the samples that the model is trained on.
        """
        found = self.metrics(prediction, samples, {})
        return found, found[self.metric]

    def calibrate(self, prediction: Array, samples: Samples) -> dict[str, Any]:
        """Return what turns predictions into answers, from samples held out: JSON-able, kept in the model file."""
        return {}

    def baselines(self, train: Samples, seed: int) -> dict[str, Predictor]:
        """Fit the simple methods that every network is measured against."""
        return {}

    def run_figures(
        self,
        sets: Mapping[str, tuple[Samples, Array]],
        *,
        calibration: Mapping[str, Any],
        history: Sequence[Mapping[str, float]] = (),
        examples: Samples | None = None,
    ) -> dict[str, Any]:
        """Draw a training (with its ``history`` and ``examples`` of its data) or an evaluation.

        ``sets``: samples with their predictions, by what they are called. Returns matplotlib figures by file name.
        """
        return {}

    def direction(self, name: str) -> bool | None:
        """Tell whether a larger value of the metric ``name`` is better; ``None`` where the task does not say.

        What stands before and after it (``unseen_``, ``mild.``, ``_U``) makes no difference.
        """
        own = {self.metric: self.larger_is_better, "loss": False}
        own |= dict.fromkeys(self.higher, True) | dict.fromkeys(self.lower, False)
        words = f"_{name.rpartition('.')[2]}_"
        found = [known for known in own if f"_{known}_" in words]
        return own[max(found, key=len)] if found else None

    def points(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, Array]:
        """Return what plots of a set of samples are drawn from: columns, as in `stm_models.data.predictions`."""
        return {}

    def panel_arrays(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, Array]:
        """Return what a panel needs beside predictions and maps: places ``positions.NAME`` (P, K, 2 or 3).

        y and x in px, and a confidence where there is one; NaN where a sample has fewer.
        """
        return {}

    def truth(self, samples: Samples, row: int) -> dict[str, Any]:
        """Return what is known of one sample, JSON-able, to stand beside an answer as ``true``."""
        return {}

    def words(self, answer: Mapping[str, Any]) -> str:
        """Say an answer, with the truth where it has one, in a few words for people."""
        return str(answer["name"])

    def explained(self, answer: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
        """Say what an explanation of an answer explains."""
        return str(metadata["targets"][metadata["explained"]]["name"])

    def places(self, answer: Mapping[str, Any], about: Mapping[str, Any]) -> Array:
        """Return what in an answered map has an explanation of its own: (N, 2), y and x in px of the image.

        The surest first; ``about`` as for `decode`. Answers in numbers have none.
        """
        return np.empty((0, 2))

    def answer_files(
        self,
        folder: Path,
        answer: Mapping[str, Any],
        image: Array | None,
        explained: PlaceMaps | None,
        about: Mapping[str, Any],
    ) -> list[Path]:
        """Write what belongs beside one answer (a table, a picture) into ``folder``; return the files' paths.

        Parameters
        ----------
        answer : mapping
            As decoded; its ``name`` is fit for a file name.
        image : (channel, y, x) float32 or None
            None, of a data set's later answers: tables alone are written, no pictures.
        explained : PlaceMaps or None
            Of the first of `places`, where an explanation was asked for and there are any.
        about : mapping
            `Prepared.about` of a measured map; else empty.
        """
        return []

    def reference_metrics(
        self, answer: Mapping[str, Any], about: Mapping[str, Any], reference: Reference
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """Score the decoded answer to a measured map, whose `Prepared.about` is ``about``, against a reference.

        Returns
        -------
        scores : dict of float
        notes : tuple of str
            What a reader of the scores must be told.

        Raises
        ------
        InputError
            When the task has no such reference, or the file cannot be read or does not fit.
        """
        raise InputError(
            f"--reference is {reference.path}, but nothing measured beside an image tells the truth of task "
            f"{self.name}: leave it out"
        )

    def on_the_fly(self, attributes: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        """Return what draws training samples like those of a data set while training; ``None``: they are not drawn.

        Returns
        -------
        where : str
            ``module:Class`` of a `stm_models.training.batches.Batches`, imported by the training alone: it may need
            torch. It is made as ``Class(parameters, count=…, batch_size=…, device=…)``, with the batches of an epoch,
            the samples of a batch and the training's device.
        parameters : mapping
            What the class takes from the task; its own business.
        """
        return None

    def known(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a data set says of its images that a network may want to know, by the names of options."""
        return {}

    def conventions(self) -> Mapping[str, Convention]:
        """File conventions of other people's code that the task reads and writes, by name."""
        return {}

    def search_space(self) -> Space:
        """Training parameters worth tuning, whatever the network."""
        return {}

    def reproduction(self) -> Reproduction | None:
        """Return how the results of the task's paper are made again; ``None`` where nobody has written it down."""
        return None

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the named sets of perturbed images that models may be trained and judged on."""
        return (CLEAN,)

    def channel_names(self, input_spec: Mapping[str, Any]) -> list[str]:
        """Name the channels of an input, for people."""
        return [f"channel {number}" for number in range(int(input_spec["channels"]))]

    def marks(self, attributes: Mapping[str, Any], row: Mapping[str, float]) -> dict[str, Array]:
        """Return positions (P, 2), in the unit of `axes`, where one sample's image has something to look at.

        ``attributes`` are the data set's, ``row`` every coordinate of the sample. By name, the innermost first.
        """
        return {}

    def regions(
        self, attributes: Mapping[str, Any], row: Mapping[str, float], shape: tuple[int, int], place: Array | None
    ) -> dict[str, Array]:
        """Return parts of one image that a map may lie on: (y, x) bool by name, none overlapping another.

        Parameters
        ----------
        attributes, row : mapping
            As for `marks`; of a single file ``attributes`` has ``input`` alone and ``row`` nothing.
        shape : (height, width)
        place : (2,), px, or None
            y and x of what is explained in an answered map.
        """
        return {}

    def explained_value(
        self, answer: Callable[[Array], Array], explained: int, prediction: Array, place: Array | None
    ) -> Callable[[Array], Array]:
        """Return images (S, C, y, x) -> (S,), the number that an explanation of one image is about.

        Parameters
        ----------
        answer : callable
            Images in, predictions out.
        explained : int
            Index of the target, where the answer is numbers.
        prediction : (T,) or (1, y, x)
            The answer to the image.
        place : (2,), px, or None
            y and x of what is explained in an answered map.
        """
        if place is None:
            return lambda images: np.asarray(answer(images))[:, explained]
        y, x = (round(float(part)) for part in place)
        return lambda images: np.asarray(answer(images))[:, 0, y, x]

    def pictures(self, data: OpenDataSet) -> Pictures:
        """Draw what only this task knows about a data set; numbers go beside the figures."""
        return Pictures()
