"""Scores of explanations: of each image that is explained, and over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.fields import tiles_around
from deploy.model.questions import Question
from deploy.model.session import Session
from pipelines.explaining.explainers import Explainer
from stm_models.explain import localisation
from stm_models.explain.faithfulness import curves, max_sensitivity, random_orders
from stm_models.progress import Progress
from stm_models.tasks.registry import get

__all__ = ["ScoreOptions", "Subject", "judge_maps", "subjects", "summary"]

Array = NDArray[Any]


@dataclass(frozen=True)
class ScoreOptions:
    """Steps of the curves, random orders and noises beside them, radius of the noise, and the seed of it all."""

    steps: int = 16
    draws: int = 8
    noises: int = 4
    radius: float = 0.02
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """One explained number of one image.

    Attributes
    ----------
    image : (C, H, W) float32
        Of the model's size: the image, or of a larger field the part around what is explained.
    prediction : (T,) or (1, H, W)
        The answer to it.
    place : (2,) int64 or None
        y and x of the explained pixel of an answered map.
    row : mapping
        Coordinates of the sample, where it is one of a data set.
    """

    name: str
    image: Array
    prediction: Array
    place: Array | None
    attributes: Mapping[str, Any]
    row: Mapping[str, float]

    def regions(self, task: Any) -> dict[str, NDArray[np.bool_]]:
        """Return the task's regions of the image and the rest; nothing where it knows none."""
        shape = (self.image.shape[1], self.image.shape[2])
        known = task.regions(self.attributes, self.row, shape, self.place)
        return localisation.partition(known, shape) if known else {}


def subjects(session: Session, question: Question, prediction: Array, count: int) -> list[Subject]:
    """Return what the maps of the first ``count`` images of a question explain."""
    about, source = session.metadata, question.source
    attributes = {"input": about.as_dict()["input"]} if source is None else source.attributes
    found = []
    for number, (name, image) in enumerate(zip(question.names[:count], question.images, strict=False)):
        row = {} if source is None else {k: float(v[question.rows[number]]) for k, v in source.coordinates.items()}
        answer, place = prediction[number], None
        if answer.ndim == 3:
            image, answer, place = _part(session, image, answer)
        found.append(Subject(name, image, answer, place, attributes, row))
    return found


def judge_maps(
    session: Session, ways: Sequence[Explainer], asked: Sequence[Subject], reference: Array, options: ScoreOptions
) -> list[dict[str, Any]]:
    """Score the maps of every method on every subject.

    Parameters
    ----------
    session : Session
        The model file, which answers to the changed images.
    ways : sequence of Explainer
    asked : sequence of Subject
    reference : (C, H, W) float32
        What removed pixels take the values of; of the model's size.
    options : ScoreOptions

    Returns
    -------
    list of dict
        Of each subject ``name``, ``place`` (y, x in the judged image, or None), ``regions`` (``area`` and ``effect`` of
        each: the change of the answer when it takes the reference's values) and ``methods``: of each the record of
        `stm_models.explain.faithfulness.Curves`, ``max_sensitivity`` (None where it has no bound) and ``share`` of
        each region.

    Raises
    ------
    InputError
        When the reference has not the shape of the subjects' images, or a map or an answer is not finite.
    """
    task = get(session.metadata.task)
    found = []
    with Progress(len(asked) * len(ways), "scores", "map") as bar:
        for one in asked:
            answer = task.explained_value(
                lambda images: session.run(images)["prediction"], session.metadata.explained, one.prediction, one.place
            )
            random = random_orders(
                answer, one.image, reference, steps=options.steps, draws=options.draws, seed=options.seed
            )
            regions = one.regions(task)
            area = localisation.areas(regions)
            effect = localisation.effects(answer, one.image, reference, regions)
            methods = {}
            for way in ways:
                methods[way.method] = _scores(way, one, answer, reference, random, regions, options)
                bar.update(note=f"{way.method} of {one.name}")
            found.append(
                {
                    "name": one.name, "place": None if one.place is None else one.place.tolist(),
                    "regions": {name: {"area": area[name], "effect": effect[name]} for name in regions},
                    "methods": methods,
                }
            )  # fmt: skip
    return found


def summary(scores: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return means over subjects of what compares methods, by method; shares as ``share.REGION``.

    ``deletion`` and ``insertion`` are gains over random orders, ``_beaten`` the shares of these that are worse.
    """
    found = {}
    for method in scores[0]["methods"] if scores else ():
        rows = [one["methods"][method] for one in scores]
        means = {}
        for kind in ("deletion", "insertion"):
            means[kind] = float(np.mean([row[kind]["gain"] for row in rows]))
            means[f"{kind}_beaten"] = float(np.mean([row[kind]["beaten"] for row in rows]))
        steady = [row["max_sensitivity"] for row in rows if row["max_sensitivity"] is not None]
        if steady:
            means["max_sensitivity"] = float(np.mean(steady))
        for region in rows[0]["share"]:
            means[f"share.{region}"] = float(np.mean([row["share"].get(region, 0.0) for row in rows]))
        found[method] = means
    return found


def _scores(
    way: Explainer, one: Subject, answer: Any, reference: Array, random: Any, regions: Any, options: ScoreOptions
) -> dict[str, Any]:
    def maps(images: Array) -> Array:
        return way.maps(images, one.place)

    own = maps(one.image[None])[0]
    record = curves(answer, one.image, own, reference, random=random, steps=options.steps, seed=options.seed).record()
    change = max_sensitivity(maps, one.image, map=own, radius=options.radius, draws=options.noises, seed=options.seed)
    record["max_sensitivity"] = change if np.isfinite(change) else None
    return {**record, "share": localisation.shares(own, regions)}


def _part(session: Session, image: Array, answer: Array) -> tuple[Array, Array, Array]:
    """The part of a field around its strongest answer, the answer to it, and y and x of the strongest there."""
    if image.shape[1:] != session.metadata.input.shape[1:]:
        strongest = np.unravel_index(np.argmax(answer[0]), answer.shape[1:])
        (image,), _ = tiles_around(image, np.array([strongest]), session.metadata.input.shape[1:])
        # Near its border a part alone is answered a little otherwise: what is explained is its own strongest answer.
        answer = session.run(image[None])["prediction"][0]
    return image, answer, np.array(np.unravel_index(np.argmax(answer[0]), answer.shape[1:]))
