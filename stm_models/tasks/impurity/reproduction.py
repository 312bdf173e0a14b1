"""Figures 3 and 4 of arXiv:2006.15898 made again, and the paper's design beside ours and methods without training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from stm_models.config import Config
from stm_models.errors import InputError
from stm_models.signal.matching import chance_ratio, detection_scores, paper_ratio
from stm_models.signal.peaks import Peaks, find_peaks
from stm_models.tasks.impurity import scoring
from stm_models.tasks.impurity.ceiling import ceiling, references
from stm_models.tasks.impurity.occlusion import occlusion
from stm_models.tasks.impurity.reproduction_config import ABLATIONS, OURS, PRESETS, ReproductionConfig
from stm_models.tasks.reproduction import Ask, Baseline, Conclusion, DataSet, Finished, Reproduction, Training

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["RULES", "ImpurityReproduction", "by_tiles", "local_maxima"]

Array = NDArray[Any]
Floats = NDArray[np.float64]

RULES = ("all", "top")
"""Which maxima are taken: all of them, or as many of the highest as there are impurities."""
_STREAM = 40_000  # seeds of the experiments, apart from that of the presets to judge by


class ImpurityReproduction(Reproduction):
    """Ablations of the paper's network, our network, and detectors without training."""

    config: ClassVar[type[Config]] = ReproductionConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS

    def __init__(self) -> None:
        self._references: dict[str, list[Floats]] = {}

    def data_sets(self, config: ReproductionConfig) -> dict[str, DataSet]:
        """Tiles without and with noise, our fields, and two sets of each experiment: ``NAME`` and ``NAME judged``."""
        same: dict[str, Any] = {} if config.biases is None else {"biases": list(config.biases)}
        tiles = {**same, "fields": config.tiles, "size": config.tile}
        sets = {
            "no noise": DataSet("paper", {**tiles, "eta": [0, 0]}),
            "noise": DataSet("paper", {**tiles, "eta": [config.eta, config.eta]}),
            OURS: DataSet("quick", {**same, "fields": config.our_fields}),
        }
        for name in config.experiments:
            given = {**same, "generator": "experiment", "preset": [name], "size": config.field}
            sets[name] = DataSet("std", {**given, "fields": config.fields, "seed": _STREAM + config.seed})
            sets[_judged(name)] = DataSet("std", {**given, "fields": config.judged})
        return sets

    def trainings(self, config: ReproductionConfig) -> list[Training]:
        """Our network, then all ablations of one seed after those of the other; regularised ones per experiment."""
        judged = tuple(_judged(name) for name in config.experiments)
        made = [
            Training(OURS, config.seed + number, OURS, "quick", {"epochs": config.our_epochs}, judged=judged)
            for number in range(config.our_seeds)
        ]
        values = {"epochs": config.epochs, "patience": config.epochs, "confidence_weight": config.alpha}
        for number in range(config.seeds):
            for ablation in ABLATIONS:
                data, _, regularised = ablation.partition(" + ")
                for name in config.experiments if regularised else (None,):
                    made.append(
                        Training(
                            ablation if name is None else f"{ablation} ({name})", config.seed + number, data, "paper",
                            values, unlabelled=name, watched=config.experiments if name is None else (name,),
                            judged=judged if name is None else (_judged(name),),
                        )
                    )  # fmt: skip
        return made

    def untrained(self, config: ReproductionConfig) -> list[Training]:
        """Calibrate on our network's validation fields."""
        return [Training("untrained", 0, OURS, "quick", judged=tuple(_judged(name) for name in config.experiments))]

    def scoring(self, config: ReproductionConfig) -> dict[str, Any]:
        """Scores depend on the tiles of Fig. 4 and on how many impurities are occluded."""
        return {"tile": config.tile, "peaks": config.peaks}

    def watch(self, config: ReproductionConfig, ask: Ask, samples: Mapping[str, Samples]) -> dict[str, float]:
        """Return EXPERIMENT.RULE.MEASURE: the paper's ratio, its chance level, peaks per field, and F1 of the truth."""
        raw = _logits(ask)
        found: dict[str, float] = {}
        for name, part in samples.items():
            scores = by_tiles(raw, part.images, config.tile)
            truth, known = scoring.truths(part), self.references(part)
            for rule in RULES:
                peaks = [
                    local_maxima(one).positions if rule == "all" else local_maxima(one).first(len(true)).positions
                    for one, true in zip(scores, truth, strict=True)
                ]
                found |= {
                    f"{name}.{rule}.{key}": value for key, value in _ratios(peaks, truth, known, _shape(part)).items()
                }
        return found

    def judge(
        self, config: ReproductionConfig, training: Training | None, ask: Ask, samples: Mapping[str, Samples],
        calibration: Mapping[str, Any],
    ) -> dict[str, float]:  # fmt: skip
        """Return the task's metrics and what is kept without cores and rings, with the experiment's name before."""
        found: dict[str, float] = {}
        for key, part in samples.items():
            prediction = ask.prediction(part.images)
            scores = scoring.metrics(prediction, part, calibration)
            right = scoring.right_positions(prediction, part, calibration)
            kept = occlusion(_positive(training, ask), part.images, right, most=config.peaks)
            found |= {f"{key.split()[0]}.{name}": value for name, value in (scores | kept.record()).items()}
        return found

    def references(self, samples: Samples) -> list[Floats]:
        """Positions of each field from its bound-state map, the paper's reference answer; kept once fitted."""
        key = str(samples.path)
        if key not in self._references:
            self._references[key] = references(samples)
        return self._references[key]

    def conclude(
        self, config: ReproductionConfig, finished: Sequence[Finished], baselines: Sequence[Baseline],
        samples: Mapping[str, Samples],
    ) -> Conclusion:  # fmt: skip
        """Tables, findings and figures; see `reproduction_report`."""
        from stm_models.tasks.impurity import reproduction_figures, reproduction_report

        ceilings = {name: ceiling(samples[name], self.references(samples[name])) for name in config.experiments}
        untrained = {one.method: one.scores for one in baselines}
        report = reproduction_report.numbers(config, finished, untrained, ceilings)
        drawn = {
            f"fig4_{name}": reproduction_figures.ratio_against_epoch(finished, name, ceilings[name])
            for name in config.experiments
        }
        shown = config.experiments[-1]
        best = next(one for one in finished if one.training.name == f"{ABLATIONS[-1]} ({shown})")
        part = samples[shown].subset(np.array([0]))
        score = by_tiles(_logits(best.ask()), part.images, config.tile)[0]
        drawn["fig3"] = reproduction_figures.found_and_reference(
            samples=part, score=score, peaks=local_maxima(score), reference=self.references(samples[shown])[0],
            title=f"{shown}: {best.training.name}, seed {best.training.seed}, run {best.run_id[:8]}",
        )  # fmt: skip
        return Conclusion(report, reproduction_report.markdown(report), drawn)


def by_tiles(raw: Callable[[Array], Array], images: Array, tile: int) -> Floats:
    """Scores (S, H, W) of images (S, C, H, W) cut into squares that the network sees by themselves, put together."""
    count, channels, height, width = images.shape
    rows, columns = height // tile, width // tile
    cut = images.reshape(count, channels, rows, tile, columns, tile).transpose(0, 2, 4, 1, 3, 5)
    scores = np.asarray(raw(np.ascontiguousarray(cut).reshape(-1, channels, tile, tile)))[:, 0]
    whole = scores.reshape(count, rows, columns, tile, tile).transpose(0, 1, 3, 2, 4).reshape(count, height, width)
    return np.asarray(whole, np.float64)


def local_maxima(score: Array) -> Peaks:
    """All pixels that are higher than their eight neighbours, the highest first: the paper's found impurities."""
    return find_peaks(score, threshold=-np.inf, min_distance=1.0, shape="pixel")


def _ratios(
    found: Sequence[Floats], truth: Sequence[Floats], known: Sequence[Floats], shape: tuple[int, int]
) -> dict[str, float]:
    rng = np.random.default_rng(5)
    chance = [chance_ratio(f, k, shape, rng) for f, k in zip(found, known, strict=True)]
    return {
        "ratio": float(np.mean([paper_ratio(f, k) for f, k in zip(found, known, strict=True)])),
        "chance": float(np.mean(chance)),
        "count": float(np.mean([len(one) for one in found])),
        "f1": detection_scores(found, truth, shape=shape, resamples=1)["f1"],
    }


def _logits(ask: Ask) -> Callable[[Array], Array]:
    if ask.raw is None:
        raise InputError(
            "the network answers with numbers: expected one that answers with a map, e.g. voltage_attention"
        )
    return ask.raw


def _positive(training: Training | None, ask: Ask) -> Callable[[Array], Array]:
    # A softmax is divided by its sum, which the occluded peak itself is part of: its exponential is taken instead.
    raw = ask.raw
    if training is None or training.name == OURS or raw is None:
        return lambda images: ask.prediction(images)[:, 0]
    return lambda images: np.exp(raw(images)[:, 0])


def _judged(name: str) -> str:
    return f"{name} judged"


def _shape(samples: Samples) -> tuple[int, int]:
    return int(samples.images.shape[2]), int(samples.images.shape[3])
