"""Which rings of |k| carry U: what a model loses without each, and what each by itself tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stm_models.regression.baselines import Baseline, fit_baselines
from stm_models.regression.metrics import mae

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples
    from stm_models.tasks.outputs import Predictor

__all__ = ["edges", "masks", "radius", "ring_errors", "ring_method", "ring_methods"]

Array = NDArray[Any]
Floats = NDArray[np.float64]


def ring_methods(train: Samples, rings: int, seed: int) -> dict[str, Predictor]:
    """Fit a kernel ridge regression to the pixels of each ring alone: it has learnt to do without the others."""

    def predictor(fitted: Baseline, ring: NDArray[np.bool_]) -> Predictor:
        return lambda samples: fitted(_pixels(samples.images, ring))

    groups, made = train.coordinates["group"], {}
    for number, ring in enumerate(masks(train.attributes["input"], rings)):
        images = _pixels(train.images, ring)
        fitted = fit_baselines(("kernel_ridge",), images, train.targets, groups, seed)["kernel_ridge"]
        made[ring_method(number)] = predictor(fitted, ring)
    return made


def ring_method(number: int) -> str:
    """Name of the regression on one ring, counted from the centre."""
    return f"ring_{number}"


def ring_errors(predict: Callable[[Array], Array], samples: Samples, rings: int) -> dict[str, float]:
    """Return the MAE where a ring has the mean image's values, ``without_N``, and where all else has, ``alone_N``.

    The mean is over ``samples``: what is replaced tells nothing of U. ``N`` is the ring's number from the centre.
    """
    mean = samples.images.mean(axis=0, dtype=np.float64).astype(np.float32)
    found = {}
    for number, ring in enumerate(masks(samples.attributes["input"], rings)):
        for kind, kept in (("without", ~ring), ("alone", ring)):
            changed = np.where(kept, samples.images, mean)
            found[f"{kind}_{number}"] = float(mae(predict(changed), samples.targets)[0])
    return found


def radius(spec: Mapping[str, Any]) -> Floats:
    """Return |k| (H, W), in 1/a, of the pixels of an input."""
    kx = np.linspace(-spec["kx_max"], spec["kx_max"], spec["width"])
    ky = np.linspace(-spec["ky_max"], spec["ky_max"], spec["height"])
    return np.hypot(kx, ky[:, None])


def edges(distance: Floats, rings: int) -> Floats:
    """Return ``rings`` + 1 radii from 0 that hold every pixel, evenly spaced."""
    return np.linspace(0, np.nextafter(float(distance.max()), np.inf), rings + 1)


def masks(spec: Mapping[str, Any], rings: int) -> list[NDArray[np.bool_]]:
    """Return the pixels (H, W) of each ring."""
    distance = radius(spec)
    return [(distance >= low) & (distance < high) for low, high in pairwise(edges(distance, rings))]


def _pixels(images: Array, ring: NDArray[np.bool_]) -> Array:
    return images[:, :, ring][:, :, None]
