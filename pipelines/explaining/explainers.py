"""Where maps come from: outputs of a model file, or the package shap on a run's torch model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.session import Session
from stm_models.errors import InputError, unknown

if TYPE_CHECKING:
    from pipelines.inspecting.representation import Trained

__all__ = ["SHAP", "Explainer", "chosen", "explainers", "needs_run"]

Array = NDArray[Any]
SHAP = {"shap": "gradient", "shap:deep": "deep"}
"""Methods that need the torch model, with the explainer of the package that each stands for."""
_BATCH = 16


@dataclass(frozen=True)
class Explainer:
    """One way to explain.

    Attributes
    ----------
    method : str
        As asked for.
    name : str
        Fit for a file name.
    maps : callable
        Images (S, C, H, W) of the model's size, and y and x (2,) px of what is explained in an answered map or None
        for the strongest, to maps (S, C, H, W).
    """

    method: str
    name: str
    maps: Callable[[Array, Array | None], Array]


def chosen(text: str | None, session: Session) -> list[str]:
    """Return the methods that ``--method`` names: several separated by commas, all those of the file, or the first.

    Raises
    ------
    InputError
        For a method that there is not, and when nothing is left: the file has no explanations.
    """
    known = session.metadata.explanations
    names: list[str] = []
    for name in [part.strip() for part in text.split(",")] if text else known[:1]:
        if name != "all" and name not in known and name not in SHAP:
            raise unknown("explanation of this model", name, [*known, "all", *SHAP])
        names += known if name == "all" else [name]
    if not names:
        raise InputError(f"{session.path} has no explanations: write it anew with 'stm export', or --method shap")
    return list(dict.fromkeys(names))


def explainers(
    methods: Sequence[str], session: Session, model: Trained | None, background: Array | None, draws: int, seed: int
) -> list[Explainer]:
    """Make an explainer of each method.

    Parameters
    ----------
    model : Trained or None
        The run's torch model; those of `SHAP` need it and its ``background`` (N, C, H, W).
    draws, seed : int
        Of shap's GradientExplainer.

    Raises
    ------
    InputError
        When the torch model is missing.
    """
    made = []
    for method in methods:
        if method not in SHAP:
            made.append(Explainer(method, method, _of_file(session, method)))
            continue
        if model is None or background is None:
            raise needs_run(f"--method {method}", session)
        maps = _of_torch(session, model, background, method, draws, seed)
        made.append(Explainer(method, method.replace(":", "_"), maps))
    return made


def needs_run(option: str, session: Session) -> InputError:
    """Return the error for an option that a model file alone cannot serve."""
    return InputError(
        f"{option} needs the torch weights of a run, and {session.path.name} is a model file: give the run's address, "
        f"runs:/{session.metadata.run_id or 'ID'}"
    )


def _of_file(session: Session, method: str) -> Callable[[Array, Array | None], Array]:
    width = session.metadata.input.shape[2]

    def maps(images: Array, place: Array | None) -> Array:
        focus = None
        if place is not None and session.metadata.focusable:
            focus = [int(place[0]) * width + int(place[1])]
        parts = [
            session.run(images[first : first + _BATCH], (method,), focus)[method]
            for first in range(0, len(images), _BATCH)
        ]
        return np.concatenate(parts)

    return maps


def _of_torch(
    session: Session, model: Trained, background: Array, method: str, draws: int, seed: int
) -> Callable[[Array, Array | None], Array]:
    from stm_models.explain.shap_values import shap_values

    explained = session.metadata.explained

    def maps(images: Array, place: Array | None) -> Array:
        if images.shape[1:] != session.metadata.input.shape:
            raise InputError(
                f"--method {method} got an image of shape {images.shape[1:]}: expected the model's own size, "
                f"{session.metadata.input.shape}; choose a method of the file for larger fields"
            )
        places = None if place is None else np.broadcast_to(np.asarray(place, np.int64), (len(images), 2))
        return shap_values(
            model.bundle.model, images, background, kind=SHAP[method], target=explained, places=places,
            draws=draws, seed=seed,
        )  # fmt: skip

    return maps
