"""From a trained model and held-out samples to its intervals and its novelty, and how well both hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.learning.calibrating import CalibrationSamples, names_of
from pipelines.settings import Settings
from stm_models.data.dataset import Samples
from stm_models.networks.map_network import MapNetwork
from stm_models.networks.model import Model
from stm_models.regression.metrics import interval_scores
from stm_models.tasks.perturbation import CLEAN, Perturbation, find
from stm_models.tasks.verdict import UNUSUAL, blind
from stm_models.training.appearance import Appearance
from stm_models.training.intervals import Interval, Residuals, least_groups
from stm_models.training.novelty import Novelty
from stm_models.training.perturbations import perturbed
from stm_models.training.predict import features, in_batches, predict
from stm_models.training.reproducible import mixed

__all__ = ["Trust", "trust"]

_COPIES = 2
_FOLDS = 5

Array = NDArray[Any]


@dataclass(frozen=True)
class Trust:
    """What a model knows of its own errors.

    Attributes
    ----------
    novelty : Novelty
    interval : Interval or None
        Of models that answer with numbers, where there are enough held-out states.
    about : dict
        ``distance``, ``interval`` and ``novelty`` of the model's file: what they were calibrated on.
    scores : dict of str to float
        Estimates for new states of every set of images: ``coverage`` and ``width`` of the interval, ``false_alarms``;
        those of perturbed images with the set's name before them.
    notes : dict of str to str
        What a reader should know, by what it is of: ``interval``, ``spread`` (of the interval), ``novelty``.
    held : tuple of (S, C, H, W) float32
        Images that the model was not fitted to, of each set of images that it claims to know.
    """

    novelty: Novelty
    interval: Interval | None
    about: dict[str, Any]
    scores: dict[str, float]
    notes: dict[str, str]
    held: tuple[Array, ...]


@dataclass(frozen=True)
class _Seen:
    """What a model makes of samples: (S, F) features, (S, N) noise, (S, ...) prediction and truth, (S,) states.

    ``apart`` (S, T) is the spread of an ensemble's members over the targets'; T = 0 of one network.
    """

    features: Array
    noise: Array
    apart: Array
    prediction: Array
    group: Array
    truth: Array

    def residuals(self, novelty: Novelty, kind: int) -> Residuals:
        with torch.no_grad():
            hints = novelty.hints(*map(torch.from_numpy, (self.features, self.noise, self.apart))).numpy()
        return Residuals(hints, self.prediction - self.truth, self.group, np.full(len(self.group), kind))


def trust(
    settings: Settings, model: Model, trained: Samples, held: CalibrationSamples, perturbation: Perturbation, seed: int
) -> Trust:
    """Calibrate a model on every set of images that it claims to know: the judged ones where it was trained on any.

    And those that the set of its training claims.

    Parameters
    ----------
    trained : Samples
        What the model was fitted to.
    held : CalibrationSamples
    perturbation : Perturbation
        Of the training images.
    seed : int
        Of the training.
    """
    known = [perturbed(perturbation, trained, mixed(seed, copy, 5)) for copy in range(_COPIES)] if (
        perturbation != CLEAN
    ) else [trained.images]  # fmt: skip
    appearance = None if isinstance(model.network, MapNetwork) else Appearance.fit(np.concatenate(known), seed)
    shown = np.concatenate([features(model, images, appearance=appearance) for images in known])
    novelty = Novelty.fit(shown, appearance)
    sets = {one.name: held.as_set(one) for one in _claimed(settings, perturbation)}
    parts = {name: pair for name, pair in sets.items() if pair is not None}
    seen = {name: _see(model, appearance, part) for name, (_, part) in parts.items()}
    novelty, quantiles = novelty.calibrated({name: (one.features, one.group) for name, one in seen.items()})
    attributes, level = held.samples.attributes, settings.calibrate.level
    shared = {
        "source": held.source, "recipe": attributes["recipe"], "digest": attributes["digest"], "sets": list(seen),
        "groups": len(np.unique(held.samples.coordinates["group"])), "samples": len(held.samples),
    }  # fmt: skip
    about: dict[str, Any] = {"distance": {"quantiles": quantiles}, "novelty": shared, "interval": None}
    interval, scores = None, _false_alarms(novelty, seen)
    notes = {"novelty": unknown} if (unknown := blind(shared["groups"])) else {}
    # With a fold left out there are still enough.
    needed = math.floor(least_groups(level) * _FOLDS / (_FOLDS - 1)) + 1
    bounded = not isinstance(model.network, MapNetwork)
    if bounded and shared["groups"] < needed:
        notes["interval"] = (
            f"no bounds: {shared['groups']} states calibrate, a level of {level:g} takes {needed}: ask for more with "
            "calibrate.states, or hold out more states of imported data, of which half calibrate"
        )
    elif bounded:
        learnt = [
            _see(model, appearance, part).residuals(novelty, kind) for kind, (part, _) in enumerate(parts.values())
        ]
        found = {name: one.residuals(novelty, kind) for kind, (name, one) in enumerate(seen.items())}
        interval = Interval.fit(_joined(learnt), _joined(found.values()), level=level, seed=seed)
        scores |= _coverage(interval, found, level)
        spread = {
            "part": held.part, "digest": held.spread.attributes["digest"],
            "groups": len(np.unique(held.spread.coordinates["group"])), "samples": len(held.spread),
        }  # fmt: skip
        about["interval"] = {"level": level, **shared, "spread": spread}
        if not interval.learnt:
            notes["spread"] = (
                "bounds are equally wide for all images that look alike: what was held out for it does not tell how "
                f"errors differ from image to image (states: {spread['groups']})"
            )
    return Trust(novelty, interval, about, scores, notes, tuple(part.images for part, _ in parts.values()))


def _claimed(settings: Settings, perturbation: Perturbation) -> list[Perturbation]:
    """Return the sets of images that a model trained on ``perturbation`` is to know."""
    if perturbation == CLEAN:
        return [CLEAN]
    sets, judged = settings.task.perturbations(), settings.split.judged
    names = [one.name for one in sets if one.judged] if judged is None else judged
    return [find(sets, name) for name in dict.fromkeys((*names, *perturbation.claims))]


def _prefix(name: str) -> str:
    return "" if name == CLEAN.name else f"{name}."


def _see(model: Model, appearance: Appearance | None, part: Samples) -> _Seen:
    images, shown = part.images, features(model, part.images, appearance=appearance)
    noise = in_batches(model, model.noise, images)
    if isinstance(model.network, MapNetwork):
        return _Seen(shown, noise, noise[:, :0], part.targets, names_of(part), part.targets)
    apart = in_batches(model, model.apart, images)
    return _Seen(shown, noise, apart, predict(model, images), names_of(part), part.targets)


def _joined(parts: Any) -> Residuals:
    parts = list(parts)
    names = ("hints", "error", "group", "kinds")
    return Residuals(*(np.concatenate([getattr(one, name) for one in parts]) for name in names))


def _coverage(interval: Interval, found: Mapping[str, Residuals], level: float) -> dict[str, float]:
    """Coverage and mean width per set, each fold of the states judged by the factor that the others give."""
    bounds: dict[str, list[tuple[Array, Array, Array]]] = {name: [] for name in found}
    states = np.unique(_joined(found.values()).group)
    for fold in range(_FOLDS):
        own = states[fold::_FOLDS]
        others = _joined(one.subset(~np.isin(one.group, own)) for one in found.values())
        made = interval.calibrated(others, level)
        for name, one in found.items():
            rest = one.subset(np.isin(one.group, own))
            lower, upper = (
                bound.numpy()
                for bound in made(torch.from_numpy(rest.hints), torch.zeros(rest.error.shape, dtype=torch.float32))
            )
            bounds[name].append((lower, upper, -rest.error))
    scores = {name: interval_scores(*map(np.concatenate, zip(*one, strict=True))) for name, one in bounds.items()}
    return {f"{_prefix(name)}{key}": value for name, own in scores.items() for key, value in own.items()}


def _false_alarms(novelty: Novelty, seen: Mapping[str, _Seen]) -> dict[str, float]:
    """Share of each set's images that a novelty calibrated on the other folds' states calls strange."""
    alarms: dict[str, list[Array]] = {name: [] for name in seen}
    states = np.unique(np.concatenate([one.group for one in seen.values()]))
    for fold in range(_FOLDS if len(states) >= 2 * _FOLDS else 0):
        own = states[fold::_FOLDS]
        parts = {name: np.isin(one.group, own) for name, one in seen.items()}
        made, _ = novelty.calibrated(
            {name: (one.features[~parts[name]], one.group[~parts[name]]) for name, one in seen.items()}
        )
        for name, one in seen.items():
            rest = torch.from_numpy(one.features[parts[name]])
            alarms[name].append(made.p_value(made(rest)).numpy() < UNUSUAL)
    return {
        f"{_prefix(name)}false_alarms": float(np.concatenate(found).mean())
        for name, found in alarms.items() if found
    }  # fmt: skip
