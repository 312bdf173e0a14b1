"""What tasks share whose answers are a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.tasks.base import Task
from stm_models.tasks.outputs import Column, Predictor
from stm_models.tasks.verdict import verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stm_models.data.dataset import Samples

__all__ = ["RegressionTask"]

Array = NDArray[Any]


class RegressionTask(Task):
    """Numbers with units: errors, parity pictures, regressions on principal components beside it."""

    metric: ClassVar[str] = "mae"
    higher: ClassVar[tuple[str, ...]] = ("r2",)
    lower: ClassVar[tuple[str, ...]] = ("rmse",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("MAE", "mae"), Column("MAE unseen", "unseen_mae"), Column("R² unseen", "unseen_r2", ".5f"),
    )  # fmt: skip
    losses: ClassVar[tuple[str, ...]] = ("mse", "huber", "l1")

    def metrics(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, float]:
        """Return MAE, RMSE and R², each the mean over targets, and of each target where there are several."""
        from stm_models.regression.metrics import metrics

        return metrics(prediction, samples.targets, [target["name"] for target in samples.attributes["targets"]])

    def validation(self, prediction: Array, samples: Samples, trained: Samples) -> tuple[dict[str, float], float]:
        """Return the metrics, and the MAE; that of several targets in units of their spread in the training data."""
        from stm_models.regression.metrics import mae
        from stm_models.regression.scaling import target_statistics

        errors = mae(prediction, samples.targets)
        if len(errors) > 1:
            errors = errors / target_statistics(trained.targets)[1].astype(np.float64)
        return self.metrics(prediction, samples, {}), float(errors.mean())

    def baselines(self, train: Samples, seed: int) -> dict[str, Predictor]:
        """Fit the mean, ridge regression and kernel ridge regression on principal components."""
        from stm_models.regression.baselines import BASELINES, Baseline, fit_baselines

        def predictor(fitted: Baseline) -> Predictor:
            return lambda samples: fitted(samples.images)

        found = fit_baselines(BASELINES, train.images, train.targets, train.coordinates["group"], seed)
        return {name: predictor(fitted) for name, fitted in found.items()}

    def points(self, prediction: Array, samples: Samples, calibration: Mapping[str, Any]) -> dict[str, Array]:
        """Return true and predicted values of every target, ``true:U`` and ``predicted:U``."""
        columns = {}
        for column, target in enumerate(samples.attributes["targets"]):
            columns[f"true:{target['name']}"] = samples.targets[:, column]
            columns[f"predicted:{target['name']}"] = np.asarray(prediction, np.float64)[:, column]
        return columns

    def run_figures(
        self,
        sets: Mapping[str, tuple[Samples, Array]],
        *,
        calibration: Mapping[str, Any],
        history: Sequence[Mapping[str, float]] = (),
        examples: Samples | None = None,
    ) -> dict[str, Figure]:
        """Draw parity and residuals of every target; of a training its examples and learning curve too."""
        from stm_models import figures

        drawn = {}
        (first, _), *_ = sets.values()
        targets = first.attributes["targets"]
        for column, target in enumerate(targets):
            pairs = {name: (part.targets[:, column], found[:, column]) for name, (part, found) in sets.items()}
            about = {"label": target["name"], "unit": target["unit"]}
            suffix = f"_{target['name']}" if column else ""
            drawn[f"parity{suffix}"] = figures.parity(pairs, **about)
            drawn[f"residuals{suffix}"] = figures.residuals(pairs, **about)
        if history:
            drawn["learning_curve"] = figures.learning_curve(history, unit=targets[0]["unit"])
        if examples is not None:
            spec = examples.attributes["input"]
            drawn["examples"] = figures.examples(
                examples.images, examples.targets[:, 0], label=targets[0]["name"], unit=targets[0]["unit"],
                image_unit=spec["unit"], axes=self.axes(spec),
            )  # fmt: skip
        return drawn

    def decode(
        self, outputs: Mapping[str, Array], metadata: Mapping[str, Any], about: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Name the numbers with their units and bounds, and say how far the image lies from the training data.

        Of an ensemble the ``spread`` of its members too: a standard deviation.
        """
        answers = []
        for row, values in enumerate(np.asarray(outputs["prediction"], float)):
            answer: dict[str, Any] = {}
            for column, target in enumerate(metadata["targets"]):
                found: dict[str, Any] = {"value": float(values[column]), "unit": target["unit"]}
                if "lower" in outputs:
                    found |= {name: float(outputs[name][row, column]) for name in ("lower", "upper")}
                    found["level"] = metadata["interval"]["level"]
                if "spread" in outputs:
                    found["spread"] = float(outputs["spread"][row, column])
                answer[target["name"]] = found
            answers.append(answer | verdict(outputs, row, novelty=metadata.get("novelty")))
        return answers

    def truth(self, samples: Samples, row: int) -> dict[str, Any]:
        """Return the targets' values by name."""
        names = [target["name"] for target in samples.attributes["targets"]]
        return {name: float(value) for name, value in zip(names, samples.targets[row], strict=True)}

    def words(self, answer: Mapping[str, Any]) -> str:
        """List the values with their intervals, the true ones in brackets."""
        true = answer.get("true", {})
        return ", ".join(
            f"{name} = {found['value']:.3f} {found['unit']}{_between(found)}"
            + (f" (true {true[name]:.3f})" if name in true else "")
            for name, found in answer.items() if isinstance(found, dict) and "value" in found
        )  # fmt: skip

    def explained(self, answer: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
        """Give the explained target with its value."""
        target = metadata["targets"][metadata["explained"]]
        return f"{target['name']} = {answer[target['name']]['value']:.3f} {target['unit']}"


def _between(found: Mapping[str, Any]) -> str:
    parts = []
    if "lower" in found:
        parts.append(f"{found['lower']:.3f} to {found['upper']:.3f} at {100 * found['level']:.3g} %")
    if "spread" in found:
        parts.append(f"members ± {found['spread']:.3f}")
    return "".join(f", {part}" for part in parts)
