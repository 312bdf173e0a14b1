"""SHAP values of a torch model by the package shap itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import InputError, one_line, unknown
from stm_models.explain.integrated_gradients import refusal
from stm_models.networks.model import Model
from stm_models.training.predict import predict

__all__ = ["KINDS", "TOLERANCE", "shap_values"]

Array = NDArray[Any]

KINDS = ("gradient", "deep")
TOLERANCE = 0.01
"""DeepExplainer's values must add up to the prediction's difference from its mean within so much of its spread."""
_BATCH = 32


def shap_values(
    model: Model,
    images: Array,
    background: Array,
    *,
    kind: str = "gradient",
    target: int = 0,
    places: Array | None = None,
    draws: int = 200,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Return the SHAP values of a prediction, pixel by pixel.

    Parameters
    ----------
    model : Model
        Left as it is: the package works on a copy, since a failed DeepExplainer leaves its hooks behind.
    images : (S, C, H, W) float32
    background : (N, C, H, W) float32
        Images that an absent pixel is taken from, e.g. of the training data.
    kind : "gradient" or "deep"
        GradientExplainer (expected gradients: an estimate from ``draws`` random images and points on the way), or
        DeepExplainer, which draws nothing but knows few layers.
    target : int
        Index of the target.
    places : (S, 2) int, optional
        y and x of the pixel explained in each answered map; by default the strongest one.
    draws, seed : int
        Of GradientExplainer.

    Returns
    -------
    (S, C, H, W) float32
        In the target's unit. Their sum is the prediction minus its mean over the background; with GradientExplainer
        on average over draws.

    Raises
    ------
    InputError
        For an unknown kind, a target that does not exist, shapes that do not fit, a model whose values do not add up
        (a map of a softmax), and for "deep" on one whose layers the package cannot take apart exactly.
    """
    if kind not in KINDS:
        raise unknown("kind of SHAP values", kind, KINDS)
    _check(model, images, background, target, draws)
    explain = _gradient if kind == "gradient" else _deep
    found = np.empty(images.shape, np.float32)
    for row, image in enumerate(images):
        place = None if places is None else (int(places[row][0]), int(places[row][1]))
        scalar = _Scalar(copy.deepcopy(model).eval(), target, place)
        found[row] = explain(scalar, image, background, draws, seed)
    return found


class _Scalar(nn.Module):
    """A model's one explained number: (B, 1) of images (B, C, H, W)."""

    def __init__(self, model: Model, target: int, place: tuple[int, int] | None) -> None:
        super().__init__()
        self.model, self.target, self.place = model, target, place

    def forward(self, x: Tensor) -> Tensor:
        answer = self.model(x)[:, self.target]
        if answer.ndim == 1:
            return answer[:, None]
        if self.place is None:
            return answer.amax(dim=(1, 2))[:, None]
        return answer[:, self.place[0], self.place[1]][:, None]


def _gradient(scalar: _Scalar, image: Array, background: Array, draws: int, seed: int) -> Array:
    shap = _package()
    with torch.enable_grad(), _numpy_state():
        explainer = shap.GradientExplainer(scalar, _tensor(scalar, background), batch_size=_BATCH)
        values = explainer.shap_values(_tensor(scalar, image[None]), nsamples=draws, rseed=seed)
    return np.asarray(values).reshape(image.shape)


def _deep(scalar: _Scalar, image: Array, background: Array, draws: int, seed: int) -> Array:
    shap = _package()
    expected = predict(scalar, background)[:, 0]
    difference = float(predict(scalar, image[None])[0, 0] - expected.mean())
    try:
        with torch.enable_grad(), _numpy_state():
            explainer = shap.DeepExplainer(scalar, _tensor(scalar, background))
            values = np.asarray(explainer.shap_values(_tensor(scalar, image[None]), check_additivity=False))
    except Exception as error:
        raise _refused(f"the package fails on it ({one_line(error, 160)})") from error
    scale = max(abs(difference), float(expected.std()), 1e-12)
    off = abs(float(values.sum()) - difference)
    if not off <= TOLERANCE * scale:
        raise _refused(
            f"its values add up to {values.sum():.4g} where the prediction differs from its mean by {difference:.4g}, "
            f"which is off by more than {100 * TOLERANCE:g} % of {scale:.3g}"
        )
    return values.reshape(image.shape)


def _refused(why: str) -> InputError:
    return InputError(
        f"shap's DeepExplainer is not exact for this network: {why}; take GradientExplainer with --method shap"
    )


def _tensor(scalar: _Scalar, images: Array) -> Tensor:
    return torch.tensor(np.ascontiguousarray(images, np.float32)).to(scalar.model.pixel_mean)


def _package() -> Any:
    import shap

    return shap


@contextmanager
def _numpy_state() -> Iterator[None]:
    """Give numpy's global generator back as it was: the package seeds it."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _check(model: Model, images: Array, background: Array, target: int, draws: int) -> None:
    shape, count = tuple(model.pixel_mean.shape), len(model.target_mean)
    if why := refusal(model):
        raise InputError(f"the model has no SHAP values: {why}; choose a map of the file, e.g. --method gradient")
    if not 0 <= target < count:
        raise InputError(f"target {target} does not exist: expected 0 to {count - 1}")
    for name, values in (("images", images), ("background", background)):
        if values.ndim != 4 or len(values) == 0 or values.shape[1:] != shape:
            raise InputError(f"{name} have shape {values.shape}: expected (samples, *{shape}), at least one")
    if draws < 1:
        raise InputError(f"draws is {draws}: expected at least 1")
