"""Explanations by name, and which of them a model has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from stm_models.errors import unknown
from stm_models.explain import cam, expected_gradients, grad_x_input, gradient, guided, integrated_gradients
from stm_models.explain.path import Path, attribute
from stm_models.networks.bundle import Bundle
from stm_models.networks.model import Model

__all__ = ["METHODS", "PATHS", "Steps", "available", "compute", "path_of"]

Compute = Callable[..., Tensor]

METHODS: dict[str, Compute] = {
    "gradient": gradient.slope,
    "grad_x_input": grad_x_input.grad_x_input,
    "grad_cam": cam.grad_cam,
    "guided": guided.guided,
    "integrated_gradients": attribute,
    "expected_gradients": attribute,
}
"""Functions of (model, image (B, C, H, W), focus or None, target=…); those of `PATHS` take ``path=…`` besides."""
PATHS = ("integrated_gradients", "expected_gradients")
_REFUSALS: dict[str, Callable[[Model], str]] = {
    "grad_cam": cam.refusal,
    "guided": guided.refusal,
    "integrated_gradients": integrated_gradients.refusal,
    "expected_gradients": expected_gradients.refusal,
}


@dataclass(frozen=True)
class Steps:
    """How finely lines are sampled: points of integrated gradients, draws and their seed of expected gradients."""

    integrated: int = 32
    expected: int = 50
    background: int = 16
    seed: int = 0


def available(bundle: Bundle) -> dict[str, str]:
    """Return for each method why the bundle's model does not have it; empty where it has."""
    found = {name: _REFUSALS.get(name, lambda _: "")(bundle.model) for name in METHODS}
    for name, needed in (("integrated_gradients", bundle.baseline), ("expected_gradients", bundle.background)):
        if needed is None and not found[name]:
            found[name] = "the run kept no training images to compare with: train it again"
    return found


def compute(bundle: Bundle, name: str, *, target: int = 0, steps: Steps | None = None) -> Compute:
    """Return the function of an image (B, C, H, W), and a focus or None, that gives the map.

    Raises
    ------
    InputError
        For an unknown name. What `available` refuses is the caller's to leave out.
    """
    if name not in METHODS:
        raise unknown("explanation", name, METHODS)
    more = {"path": path_of(bundle, name, steps or Steps())} if name in PATHS else {}
    return partial(METHODS[name], bundle.model, target=target, **more)


def path_of(bundle: Bundle, name: str, steps: Steps) -> Path:
    """Return the lines and points of a method of `PATHS`."""
    if name == "integrated_gradients":
        assert bundle.baseline is not None, "available() told so"  # noqa: S101
        return integrated_gradients.path(bundle.baseline.numpy(), steps.integrated)
    assert bundle.background is not None, "available() told so"  # noqa: S101
    return expected_gradients.path(bundle.background[: steps.background].numpy(), steps.expected, steps.seed)
