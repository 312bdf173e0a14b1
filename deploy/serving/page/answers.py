"""One answer of a model with everything that a page draws, as JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.asking import PLACES_AT_MOST, answer
from deploy.model.fields import explain_places
from deploy.model.questions import Question
from deploy.model.session import Session
from stm_models.errors import InputError, unknown
from stm_models.explain.units import SLOPES, unit_of
from stm_models.tasks.registry import get

__all__ = ["MOST_VALUES", "describe_answer"]

MOST_VALUES = 4 * 2**20
"""Numbers that the image of one answer may have, over all channels."""


def describe_answer(
    session: Session, question: Question, explain: str | None = None, place: int | None = None
) -> dict[str, Any]:
    """Ask about one image.

    Parameters
    ----------
    explain : str, optional
        Name of an explanation to compute too.
    place : int, optional
        Number of the place whose score is explained, where the answer has `stm_models.tasks.base.Task.places`.

    Returns
    -------
    dict
        ``answer`` (see `deploy.model.asking.answer_from`), ``words``, ``values`` (name, value, unit, ``lower`` and
        ``upper`` where the model has an interval, ``spread`` where it is an ensemble, else null), ``tables`` (columns
        of the lists in ``answer``), ``image``,
        ``markers`` ((y, x) in px of the image), ``maps`` and ``model``. Arrays are objects of ``shape`` and
        ``base64``, little-endian float32; masked pixels are NaN.

    Raises
    ------
    InputError
        For an image that is too large, or an explanation or a place that there is not.
    """
    about, task = session.metadata, get(session.metadata.task)
    _, channels, height, width = question.images.shape
    if question.images[0].size > MOST_VALUES:
        raise InputError(
            f"the image has {channels} x {height} x {width} values, at most {MOST_VALUES} are answered here: crop it, "
            "or ask on the command line with 'stm predict'"
        )
    if explain is not None and explain not in about.explanations:
        raise unknown("explanation of this model", explain[:100], about.explanations)
    if explain is None and place is not None:
        raise InputError(f"place is {place}, but no explanation is asked for: give explain, too")
    described = about.as_dict()
    (entry,), outputs = answer(session, question, explain if place is None else None)
    places = task.places(entry, question.about)
    if place is not None and explain is not None:
        outputs = {**outputs, explain: _at_place(session, question, outputs, places, place, explain)}
    spec = {**described["input"], "height": height, "width": width}
    axes = task.axes(spec)
    image = question.images[0] if question.known is None else np.where(question.known, question.images[0], np.nan)
    maps = {}
    if explain is not None:
        target = about.targets[about.explained]
        shown = np.asarray(outputs[explain][0], np.float32)
        if question.known is not None and shown.shape[1:] == question.known.shape:
            shown = np.where(question.known, shown, np.nan)
        maps[explain] = {
            **_array(shown),
            "unit": unit_of(explain, target.unit, about.input.unit),
            "slope": explain in SLOPES,
            "of": f"place {place}" if place is not None else task.explained(entry, described),
        }
    return {
        "answer": entry,
        "words": task.words(entry),
        "values": _values(entry),
        "tables": {name: list(columns) for name, columns in task.tables.items()},
        "image": {
            **_array(image), "unit": about.input.unit, "extent": list(axes.extent), "labels": list(axes.labels),
            "channels": task.channel_names(spec),
        },
        "markers": places.tolist(),
        "places": min(len(places), PLACES_AT_MOST) if about.focusable else 0,
        "maps": maps,
        "model": {
            "sha256": about.sha256, "run_id": about.run_id, "task": about.task, "data": dict(about.data),
            "provider": session.provider,
        },
    }  # fmt: skip


def _at_place(
    session: Session,
    question: Question,
    outputs: Mapping[str, NDArray[Any]],
    places: NDArray[Any],
    place: int,
    explain: str,
) -> NDArray[np.float32]:
    """Return the explanation (1, C, H, W) of one place, zero where it does not reach."""
    if not 0 <= place < len(places):
        raise InputError(f"place is {place}: the answer has {len(places)} places, counted from 0")
    found = explain_places(session, question.images[0], outputs["prediction"][0, 0], places[place : place + 1], explain)
    (y, x), maps = found.corners[0], found.maps[0]
    whole = np.zeros((1, len(maps), *question.images.shape[2:]), np.float32)
    whole[0, :, y : y + maps.shape[1], x : x + maps.shape[2]] = maps
    return whole


def _values(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, **{key: found.get(key) for key in ("value", "unit", "lower", "upper", "spread")}}
        for name, found in entry.items()
        if isinstance(found, Mapping) and "value" in found
    ]


def _array(values: NDArray[Any]) -> dict[str, Any]:
    content = np.ascontiguousarray(values, "<f4")
    return {"shape": list(content.shape), "base64": base64.b64encode(content.tobytes()).decode("ascii")}
