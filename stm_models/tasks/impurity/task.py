"""The task impurity: find impurities in stacks of dI/dV maps by the oscillations around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.config import Config, validate
from stm_models.search import Range, Space
from stm_models.tasks.base import Task
from stm_models.tasks.impurity import answers, scoring, simulation
from stm_models.tasks.impurity.config import ImpuritySimulation
from stm_models.tasks.impurity.labels import HEAT_WIDTH
from stm_models.tasks.impurity.spec import Channels, Raster, differences
from stm_models.tasks.inputs import Axes, Prepared, RawMap, Reference, read_spec
from stm_models.tasks.outputs import Column, PlaceMaps, Predictor
from stm_models.tasks.plan import Plan, Simulator, Variable

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples
    from stm_models.tasks.reproduction import Reproduction

__all__ = ["ImpurityTask"]

Array = NDArray[Any]


class ImpurityTask(Task):
    """Maps of dI/dV at several biases in, positions of impurities out. After arXiv 2006.15898."""

    name: ClassVar[str] = "impurity"
    title: ClassVar[str] = "Impurity positions from Friedel oscillations in dI/dV maps"
    targets: ClassVar[tuple[Variable, ...]] = (
        Variable("heat", "1", "largest of the Gaussian peaks at the impurities"),
        Variable("pixel", "1", "1 at the nearest pixel of each impurity"),
    )
    arrays: ClassVar[tuple[str, ...]] = ("positions",)
    stratify: ClassVar[str] = "count"
    unseen: ClassVar[bool] = False
    metric: ClassVar[str] = "f1"
    larger_is_better: ClassVar[bool] = True
    higher: ClassVar[tuple[str, ...]] = ("precision", "recall", "without_core", "paper_ratio")
    lower: ClassVar[tuple[str, ...]] = ("error_px", "false_positives", "without_rings", "confidence_error")
    columns: ClassVar[tuple[Column, ...]] = (
        Column("F1", "f1", ".3f"), Column("precision", "precision", ".3f"), Column("recall", "recall", ".3f"),
        Column("error (px)", "error_px", ".3f"),
    )  # fmt: skip
    tables: ClassVar[Mapping[str, tuple[str, ...]]] = {"impurities": answers.COLUMNS}
    limits: ClassVar[str] = (
        "It was trained on simulated fields of one surface at given biases. Confidences and position errors hold for "
        "fields like these; where the distance says that a field lies outside, check positions by hand. Defects "
        "without Friedel oscillations (steps, adsorbates above the surface state) are not looked for."
    )
    default_network: ClassVar[str] = "fieldnet"
    losses: ClassVar[tuple[str, ...]] = ("focal_heat", "pixel_entropy")
    standardise: ClassVar[bool] = False
    any_size: ClassVar[bool] = True
    unlabelled: ClassVar[bool] = True
    simulation: ClassVar[type[Config]] = ImpuritySimulation
    compared: ClassVar[tuple[str, str] | None] = ("core", "rings")

    def plan(self, config: ImpuritySimulation) -> Plan:
        """Lay out independent fields, each a group of its own."""
        return simulation.plan(config)

    def simulator(self, config: ImpuritySimulation, *, device: str = "cpu") -> Simulator:
        """Return the function that makes one field; ``device`` makes no difference."""
        return simulation.simulator(config)

    def fresh(self, config: ImpuritySimulation, seed: int, states: int, *, unseen: bool) -> ImpuritySimulation:
        """Return a config for pseudo-experiments of ``config.preset`` on frames of the model's size.

        They share no random number with training, and average as many biases.
        """
        return config.model_copy(update={"generator": "experiment", "seed": seed, "fields": states})

    def held_out(self, config: ImpuritySimulation, seed: int, states: int) -> ImpuritySimulation:
        """Return a config for further fields of the same kind."""
        return config.model_copy(update={"seed": seed, "fields": states})

    def prepare(self, raw: RawMap, input_spec: Mapping[str, Any]) -> Prepared:
        """Average over the bias windows, bring pixels to the model's size, remove background; see `measured`."""
        from stm_models.tasks.impurity.measured import prepare

        return prepare(raw, input_spec)

    def input_differences(self, got: Mapping[str, Any], expected: Mapping[str, Any]) -> list[tuple[str, str, str]]:
        """Compare material, biases, their windows, the pixels' size and the preparation; see `spec.differences`."""
        return differences(got, expected)

    def axes(self, input_spec: Mapping[str, Any]) -> Axes:
        """Nanometres from the corner of the first pixel."""
        pixel = read_spec(Raster, input_spec).pixel_nm
        return Axes((0.0, input_spec["width"] * pixel, 0.0, input_spec["height"] * pixel), ("x (nm)", "y (nm)"))

    def metrics(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, float]:
        """Return precision, recall, F1, error and more at the calibrated threshold; see `scoring.metrics`."""
        return scoring.metrics(prediction, samples, calibration)

    def examine(
        self,
        answer: Callable[[Array], Array],
        shape: tuple[int, int],
        prediction: Array,
        samples: Samples,
        calibration: Mapping[str, Any],
    ) -> dict[str, float]:
        """Return what is kept without core and rings, and beside bound-state maps their ceiling; see `examination`."""
        from stm_models.tasks.impurity.examination import examine

        return examine(answer, shape, prediction, samples, calibration)

    def validation(self, prediction: Array, samples: Samples, trained: Samples) -> tuple[dict[str, float], float]:
        """Return the F1 of the best threshold."""
        best = float(scoring.calibrate(prediction, samples).get("f1", 0.0))
        return {"f1": best}, best

    def calibrate(self, prediction: Array, samples: Samples) -> dict[str, Any]:
        """Learn threshold, confidence and position radius."""
        return scoring.calibrate(prediction, samples)

    def baselines(self, train: Samples, seed: int) -> dict[str, Predictor]:
        """Return the blob filter and the matched filter; nothing is fitted."""
        from stm_models.tasks.impurity.baselines import predictors

        return predictors(train.attributes["input"])

    def points(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, Array]:
        """Return confidence of every maximum and whether it is right, and how many impurities there are."""
        return scoring.points(prediction, samples, calibration)

    def panel_arrays(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, Array]:
        """Return true and found positions."""
        return scoring.panel_arrays(prediction, samples, calibration)

    def run_figures(
        self,
        sets: Mapping[str, tuple[Samples, Array]],
        *,
        calibration: Mapping[str, Any],
        history: Sequence[Mapping[str, float]] = (),
        examples: Samples | None = None,
    ) -> dict[str, Any]:
        """Draw maps with true and found positions, precision against recall, and reliability."""
        from stm_models.tasks.impurity import drawing

        drawn = {
            "true_and_found": drawing.true_and_found(sets, calibration),
            "precision_recall": drawing.precision_recall(sets, calibration),
            "reliability": drawing.reliability_diagram(sets, calibration),
        }
        return drawn | ({"learning_curve": drawing.learning_curve(history)} if history else {})

    def decode(
        self, outputs: Mapping[str, Array], metadata: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """List the impurities with their positions and confidences; see `answers.decode`."""
        return answers.decode(outputs, metadata, about)

    def truth(self, samples: Samples, row: int) -> dict[str, Any]:
        """Return the number and the positions of the impurities."""
        (true,) = scoring.truths(samples.subset(np.array([row])))
        return {"count": len(true), "positions": [[float(x), float(y)] for y, x in true]}

    def words(self, answer: Mapping[str, Any]) -> str:
        """Say how many there are, and how sure the least sure one is."""
        return answers.words(answer)

    def explained(self, answer: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
        """Say that one map is about the highest score alone; `places` has maps of the others."""
        return f"the strongest of {answers.words(answer)}" if answer["count"] > 1 else "the strongest score"

    def places(self, answer: Mapping[str, Any], about: Mapping[str, Any]) -> Array:
        """Return the positions of the impurities, the highest first."""
        return answers.places(answer, about)

    def answer_files(
        self,
        folder: Path,
        answer: Mapping[str, Any],
        image: Array | None,
        explained: PlaceMaps | None,
        about: Mapping[str, Any],
    ) -> list[Path]:
        """Write the table of positions, a picture, and what each position depends on; see `answer_files`."""
        from stm_models.tasks.impurity.answer_files import write

        return write(folder, answer, image, explained, about)

    def reference_metrics(
        self, answer: Mapping[str, Any], about: Mapping[str, Any], reference: Reference
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """Score against a table of positions or a bound-state map; see `reference.reference_scores`."""
        from stm_models.tasks.impurity.reference import reference_scores

        return reference_scores(answer, about, reference)

    def on_the_fly(self, attributes: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
        """Return the recipe of fields with Friedel waves, like those of the data set.

        Pseudo-experiments have none, nor have channels that are averages over dense biases: no such are drawn.
        """
        config = validate(ImpuritySimulation, attributes["config"], "the data set's config")
        if config.generator not in ("friedel", "mixed") or config.dense_biases is not None:
            return None
        return "stm_models.training.synthetic:SyntheticBatches", {
            "recipe": asdict(config.recipe()), "biases": list(config.biases), "material": config.material,
            "pixel_size": config.pixel_size, "heat_width": HEAT_WIDTH,
        }  # fmt: skip

    def reproduction(self) -> Reproduction:
        """Return the figures 3 and 4 of arXiv 2006.15898, and the paper's design beside ours."""
        from stm_models.tasks.impurity.reproduction import ImpurityReproduction

        return ImpurityReproduction()

    def channel_names(self, input_spec: Mapping[str, Any]) -> list[str]:
        """Name the channels by their bias."""
        return [f"{1000 * bias:+.4g} mV" for bias in read_spec(Channels, input_spec).biases]

    def regions(
        self, attributes: Mapping[str, Any], row: Mapping[str, float], shape: tuple[int, int], place: Array | None
    ) -> dict[str, Array]:
        """Return core and rings of the explained impurity."""
        from stm_models.tasks.impurity.occlusion import regions

        return {} if place is None else regions(shape, place)

    def explained_value(
        self, answer: Callable[[Array], Array], explained: int, prediction: Array, place: Array | None
    ) -> Callable[[Array], Array]:
        """Return the highest score within 2 px of the explained impurity, on a scale that other scores do not move."""
        from stm_models.tasks.impurity.occlusion import peak_score

        if place is None:
            return super().explained_value(answer, explained, prediction, place)
        return peak_score(answer, prediction, place)

    def search_space(self) -> Space:
        """Learning rate and weight decay, whatever the network."""
        return {"learning_rate": Range(1e-3, 1e-2, log=True), "weight_decay": Range(1e-6, 1e-3, log=True)}
