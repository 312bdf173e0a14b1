"""What an absent pixel looks like: the mean image of the training data, or the best that is known of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.questions import Question, load_fitting
from deploy.model.session import Session
from stm_models.errors import InputError
from stm_models.networks.bundle_files import training_mean
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import Store

__all__ = ["background_of", "mean_image"]

Array = NDArray[Any]


def mean_image(
    session: Session, store: Store | None, run_id: str | None, question: Question, background: Array | None
) -> tuple[NDArray[np.float32] | None, str]:
    """Return the image (C, H, W) that removed pixels are taken from, and where it comes from.

    ``background``; zeros where the task's images have no background left; else the mean of the run's training data
    as its model keeps it, or of the data set that is asked about. ``None`` where nothing of this is known.

    Parameters
    ----------
    background : (C, H, W), optional
        The mean of a data set that the user chose.
    """
    shape = session.metadata.input.shape
    if background is not None:
        return background, "mean of the images of --background"
    if not get(session.metadata.task).standardise:
        return np.zeros(shape, np.float32), "zero: images are prepared without background"
    if store is not None and run_id is not None:
        kept = training_mean(runs.download(store, run_id, "bundle"))
        if kept is not None and kept.shape == shape:
            return kept, "mean of the training images"
    if question.source is not None and len(question.source) > 1:
        return _mean(question.source.images), "mean of the data set that is explained"
    return None, "unknown: a model file alone does not hold it; give --background DATA.zarr, or the model's run"


def background_of(
    path: str | Path, session: Session, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return ``count`` drawn images (N, C, H, W) of a data set that fits the model, and the mean (C, H, W) of all.

    Raises
    ------
    InputError
        As `load_fitting`, and for images of another size than the model's own.
    """
    images = load_fitting(path, session.metadata).images
    if images.shape[1:] != session.metadata.input.shape:
        raise InputError(
            f"--background {path}: its images have shape {images.shape[1:]}, expected the model's own, "
            f"{session.metadata.input.shape}"
        )
    return images[np.sort(np.random.default_rng([seed, 5]).permutation(len(images))[:count])], _mean(images)


def _mean(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(images.mean(axis=0, dtype=np.float64), np.float32)
