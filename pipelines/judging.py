"""Judging an exported file on states simulated for the purpose, with the baselines beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deploy.serving.session import Session
from pipelines.asking import predict_all
from pipelines.evaluate import evaluate
from pipelines.fitting import Parts
from pipelines.settings import Settings
from pipelines.simulation import simulate
from stm_models.data.dataset import load
from stm_models.regression.baselines import fit_baselines
from stm_models.regression.metrics import metrics
from tracking.store import Store

__all__ = ["judge"]


def judge(
    store: Store, chosen: Settings, parts: Parts, onnx: Path, out: Path, workers: int
) -> tuple[dict[str, float], dict[str, dict[str, float]], Path]:
    """Score file and baselines on new states at targets of the training and on new states at unseen ones.

    Returns
    -------
    scores : dict
        Metrics of the file; those at unseen targets begin with ``unseen_``.
    beside : dict of dict
        The same of each baseline.
    fresh : Path
        Data set of the states at unseen targets.
    """
    task, half = chosen.task, chosen.evaluate.states // 2
    trained = parts.train
    baselines = fit_baselines(
        task.baselines, trained.images, trained.targets, trained.coordinates["group"], chosen.train.seed
    )
    session = Session(onnx)
    names = [target.name for target in session.metadata.targets]
    scores: dict[str, float] = {}
    beside: dict[str, dict[str, float]] = {name: {} for name in baselines}
    fresh = out
    for unseen in (False, True):
        # Mixed, so that no choice of either seed gives a state of the training again.
        seed = np.random.SeedSequence([chosen.simulate.seed, chosen.evaluate.seed, unseen]).generate_state(1)[0]
        config = task.fresh(chosen.simulate, int(seed), half, unseen=unseen)
        fresh = out / ("fresh-unseen.zarr" if unseen else "fresh.zarr")
        simulate(task, config, fresh, workers=workers)
        evaluate(store, onnx, fresh)
        samples = load(fresh, targets=names)
        if not unseen:
            values = samples.coordinates[task.stratify]
            samples = samples.subset(np.isin(values.round(9), trained.coordinates[task.stratify].round(9)))
        prefix = "unseen_" if unseen else ""
        ours = metrics(predict_all(session, samples.images)["prediction"], samples.targets, names)
        scores |= {f"{prefix}{key}": value for key, value in ours.items()}
        for name, predictor in baselines.items():
            theirs = metrics(predictor(samples.images), samples.targets, names)
            beside[name] |= {f"{prefix}{key}": value for key, value in theirs.items()}
    return scores, beside, fresh
