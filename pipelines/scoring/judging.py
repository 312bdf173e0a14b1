"""Judging an exported file on states simulated for the purpose, with the baselines beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.asking import predict_all
from deploy.model.session import Session
from pipelines.evaluate import evaluate
from pipelines.learning.calibrating import calibration_samples
from pipelines.learning.parts import Parts
from pipelines.learning.recording import fit_baselines
from pipelines.settings import Settings
from pipelines.simulating.simulation import simulate
from stm_models.data.dataset import Samples, load
from stm_models.data.splits import strata
from tracking.store import Store

__all__ = ["at_trained_values", "judge"]


def judge(
    store: Store, chosen: Settings, parts: Parts, onnx: Path, out: Path, workers: int
) -> tuple[dict[str, float], dict[str, dict[str, float]], Path]:
    """Score file and baselines on new states like the training's and, where the task has them, at unseen values.

    Parameters
    ----------
    store : Store
        Gets an evaluation of the file on each data set.
    chosen : Settings
        Those of the training; ``evaluate`` says how many states, of what seed.
    parts : Parts
        What the file was trained on, and the baselines are, with ``train.refit`` both on validation samples too.
    onnx : Path
        The file.
    out : Path
        Folder of the data sets.
    workers : int
        Processes that simulate.

    Returns
    -------
    scores : dict
        Metrics of the file; those at unseen values begin with ``unseen_``.
    beside : dict of dict
        The same of each baseline.
    fresh : Path
        The last of the data sets.
    """
    task, trained = chosen.task, parts.train
    rounds = (False, True) if task.unseen else (False,)
    refit = chosen.train.refit
    held = calibration_samples(chosen, parts, refit=True).samples if refit else parts.validation
    baselines = fit_baselines(task, parts.fitted(refit), held, chosen.train.seed)
    session = Session(onnx)
    calibration = session.metadata.calibration
    names = [target.name for target in session.metadata.targets]
    scores: dict[str, float] = {}
    beside: dict[str, dict[str, float]] = {name: {} for name in baselines}
    fresh = out
    for unseen in rounds:
        # Mixed, so that no choice of seeds gives a state of the training or of the calibration again.
        purpose = 1 if unseen else 2  # a last 0 would change nothing
        seed = np.random.SeedSequence([chosen.simulate.seed, chosen.evaluate.seed, purpose]).generate_state(1)[0]
        config = task.fresh(chosen.simulate, int(seed), chosen.evaluate.states // len(rounds), unseen=unseen)
        fresh = out / ("fresh-unseen.zarr" if unseen else "fresh.zarr")
        simulate(task, config, fresh, workers=workers)
        evaluate(store, onnx, fresh)
        samples = load(fresh, targets=names, arrays=task.arrays)
        if task.unseen and not unseen:
            samples = at_trained_values(samples, trained.coordinates[task.stratify], task.stratify)
        prefix = "unseen_" if unseen else ""
        ours = task.metrics(predict_all(session, samples.images)["prediction"], samples, calibration)
        scores |= {f"{prefix}{key}": value for key, value in ours.items()}
        for name, (predictor, own) in baselines.items():
            theirs = task.metrics(predictor(samples), samples, own)
            beside[name] |= {f"{prefix}{key}": value for key, value in theirs.items()}
    return scores, beside, fresh


def at_trained_values(samples: Samples, trained: NDArray[Any], name: str) -> Samples:
    """Return those whose coordinate ``name`` has a trained value; all of them where it is continuous, and none has."""
    values = strata(np.concatenate([samples.coordinates[name], trained]))
    seen = np.isin(values[: len(samples)], values[len(samples) :])
    return samples.subset(seen) if seen.any() else samples
