"""The results of arXiv 2602.18890 made again on simulated data, and what lies beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from stm_models.config import Config
from stm_models.regression import baselines as regressions
from stm_models.tasks.hubbard import reproduction_plan as plan
from stm_models.tasks.hubbard.reproduction_config import PRESETS, ReproductionConfig
from stm_models.tasks.hubbard.reproduction_rings import ring_methods
from stm_models.tasks.hubbard.reproduction_scores import scores
from stm_models.tasks.reproduction import Ask, Baseline, Conclusion, DataSet, Finished, Reproduction, Training

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples
    from stm_models.tasks.outputs import Predictor

__all__ = ["HubbardReproduction"]


class HubbardReproduction(Reproduction):
    """The paper's networks and regressions beside ours, on tests that share no state with the training."""

    config: ClassVar[type[Config]] = ReproductionConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def data_sets(self, config: ReproductionConfig) -> dict[str, DataSet]:
        """See `reproduction_plan`."""
        return plan.data_sets(config)

    def trainings(self, config: ReproductionConfig) -> list[Training]:
        """See `reproduction_plan`."""
        return plan.trainings(config)

    def untrained(self, config: ReproductionConfig) -> list[Training]:
        """See `reproduction_plan`."""
        return plan.untrained(config)

    def methods(self, config: ReproductionConfig, training: Training, train: Samples) -> dict[str, Predictor]:
        """Fit the paper's ridge and kernel ridge regressions, on 3 principal components, and `ring_methods`."""
        seed = training.seed
        found = regressions.fit_baselines(
            ("ridge", "kernel_ridge"), train.images, train.targets, train.coordinates["group"], seed, components=3
        )

        def predictor(fitted: regressions.Baseline) -> Predictor:
            return lambda samples: fitted(samples.images)

        made = {f"{name}_3": predictor(fitted) for name, fitted in found.items()}
        return {**made, **(ring_methods(train, config.rings, seed) if training.name == plan.BASIC else {})}

    def scoring(self, config: ReproductionConfig) -> dict[str, Any]:
        """Scores depend on the rings alone."""
        return {"rings": config.rings}

    def watch(self, config: ReproductionConfig, ask: Ask, samples: Mapping[str, Samples]) -> dict[str, float]:
        """Nothing is watched."""
        return {}

    def judge(
        self, config: ReproductionConfig, training: Training | None, ask: Ask, samples: Mapping[str, Samples],
        calibration: Mapping[str, Any],
    ) -> dict[str, float]:  # fmt: skip
        """See `reproduction_scores`."""
        return scores(ask, samples, config.rings)

    def conclude(
        self, config: ReproductionConfig, finished: Sequence[Finished], baselines: Sequence[Baseline],
        samples: Mapping[str, Samples],
    ) -> Conclusion:  # fmt: skip
        """See `reproduction_numbers` and `reproduction_report`."""
        from stm_models.tasks.hubbard import reproduction_figures, reproduction_numbers, reproduction_report

        report = reproduction_numbers.numbers(config, finished, baselines, samples)
        drawn = reproduction_figures.figures(report, samples[plan.TEST])
        return Conclusion(report, reproduction_report.markdown(report), drawn)
