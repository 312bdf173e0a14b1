"""What the network of a run makes of samples that it was not fitted to: its last features, drawn in a plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.inspecting.inspection import Inspection
from pipelines.learning.training_data import TrainingData, training_data
from stm_models.data.dataset import Samples, described, load
from stm_models.errors import InputError, unknown
from stm_models.figures import representation as figures
from stm_models.networks import bundle
from stm_models.networks.ensemble import members_of
from stm_models.sampling import evenly
from stm_models.signal import embedding
from stm_models.tasks.base import Task
from stm_models.tasks.perturbation import Perturbation
from stm_models.training.perturbations import perturbed
from stm_models.training.predict import features
from tracking import runs
from tracking.store import Store

__all__ = ["Trained", "look", "shown", "trained"]

Array = NDArray[Any]

_MOST = 1500
_COLOURS = 8
_KNOWN = ("group", "chain", "sample", "converged")


@dataclass(frozen=True)
class Trained:
    """A run's model, and what it was fitted to.

    Attributes
    ----------
    data : TrainingData
    """

    run_id: str
    bundle: bundle.Bundle
    data: TrainingData

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return self.data.task


def trained(store: Store, run_id: str) -> Trained:
    """Return the model that a run trained.

    Raises
    ------
    InputError
        When there is no such run, or it trained no model.
    """
    row = runs.get(store, run_id)
    try:
        folder = runs.download(store, run_id, "bundle")
    except InputError as error:
        raise InputError(
            f"run {run_id} ({row.name}, {row.outcome}) has no model to look into: give a finished training run"
        ) from error
    return Trained(run_id, bundle.load(folder), training_data(store, row))


def shown(model: Trained, data: str | Path | None) -> tuple[Samples, Array]:
    """Return the samples to look at, evenly spread over what splits are stratified over, and of what kind each is.

    Of the run's own data set those for validation and of unseen values; all of another one.

    Raises
    ------
    InputError
        For a data set that cannot be read or does not fit the model.
    """
    path = Path(data) if data else model.data.where()
    samples = load(path, verify=True, include_unconverged=model.data.split.include_unconverged)
    _check_fits(model, samples)
    kinds = np.full(len(samples), "samples", object)
    if samples.attributes["digest"] == model.data.digest:
        chosen = model.data.divided(samples)
        kinds[:] = ""
        kinds[chosen.validation], kinds[chosen.unseen] = "validation", "unseen values"
    rows = np.flatnonzero(kinds != "")
    rows = rows[np.argsort(samples.coordinates[model.task.stratify][rows], kind="stable")]
    rows = np.sort(evenly(rows, _MOST))
    return samples.subset(rows), kinds[rows].astype(str)


def look(
    model: Trained,
    samples: Samples,
    kinds: Array,
    *,
    perturbation: Perturbation | None = None,
    seed: int = 0,
    colours: Sequence[str] = (),
) -> tuple[Inspection, dict[str, Array]]:
    """Embed the features of samples, and of the same ones perturbed, by principal components and t-SNE.

    Parameters
    ----------
    kinds : (S,) str
        From `shown`, with the samples.
    perturbation : Perturbation, optional
        Shows every sample twice; the principal components stay those of the images as they are.
    seed : int
        Of the perturbation and of t-SNE.
    colours : sequence of str
        Coordinates of the data set to colour by; by default what splits are stratified over, the targets, then the
        others that vary.

    Returns
    -------
    Inspection
    table : dict of str to (N,) array
        The points with what is known of them, a column each.

    Raises
    ------
    InputError
        For an unknown colour, features that do not vary, or data that lack what the perturbation is made from.
    """
    chosen = _colours(model, samples, colours)
    clean = features(model.bundle.model, samples.images)
    found, coordinates = clean, samples.coordinates
    metrics: dict[str, float] = {}
    if perturbation is not None:
        changed = features(model.bundle.model, perturbed(perturbation, samples, seed))
        metrics["displacement"] = embedding.displacement(clean, changed)
        found = np.concatenate([clean, changed])
        coordinates = {name: np.concatenate([values, values]) for name, values in coordinates.items()}
        kinds = np.concatenate([kinds, np.char.add(kinds, f", {perturbation.name}")])
    plane, explained = embedding.principal_plane(found, np.arange(len(found)) < len(samples))
    near = embedding.neighbourhoods(found, seed)
    metrics |= {"explained_variance_1": float(explained[0]), "explained_variance_2": float(explained[1])}
    for name in chosen:
        values = samples.coordinates[name].astype(np.float64)
        known = np.isfinite(values)
        of_these = found[-len(samples) :][known]
        score = embedding.agreement(of_these, values[known], samples.coordinates["group"][known])
        metrics |= {f"agreement_{name}": score} if np.isfinite(score) else {}

    labels = {_label(name, unit): coordinates[name].astype(np.float64) for name, unit in chosen.items()}
    network, digest = model.bundle.info["network"], samples.attributes["digest"]
    title = f"{found.shape[1]} features of {network}"
    shares = (f"PC 1 ({100 * explained[0]:.3g} %)", f"PC 2 ({100 * explained[1]:.3g} %)")
    drawn = {
        "pca": figures.plane(plane, kinds, labels, title=f"{title}: principal components", axes=shares),
        "tsne": figures.plane(near, kinds, labels, title=f"{title}: t-SNE", axes=("t-SNE 1", "t-SNE 2")),
    }
    own = digest == model.data.digest
    notes = []
    if count := len(members_of(model.bundle.model.network)):
        notes.append(f"the features are those of the first of the ensemble's {count} members")
    if not own:
        notes.append(f"{samples.path} is not the data set that the run was trained on: all of its samples are shown")
    if own and model.data.train.refit:
        notes.append("the model was fitted again with the validation samples")
    report: dict[str, Any] = {
        "kind": "run", "run": model.run_id, "task": model.task.name, "network": network,
        "data": str(samples.path.absolute()), "digest": digest, "features": int(found.shape[1]),
        "images_used": len(samples), "kinds": {str(kind): int(np.sum(kinds == kind)) for kind in dict.fromkeys(kinds)},
        "perturbation": None if perturbation is None else {**perturbation.record(), "seed": seed},
        "colours": chosen, "metrics": metrics, "notes": notes, "skipped": {},
        "definitions": {
            "agreement": "R2 of the mean over the 10 nearest samples of other states, all perturbed if asked for",
            "displacement": "rms move of the features by the perturbation, in units of their spread",
        },
    }  # fmt: skip
    table = {
        "sample": coordinates["sample"], "kind": kinds, "pc_1": plane[:, 0], "pc_2": plane[:, 1],
        "tsne_1": near[:, 0], "tsne_2": near[:, 1], **{name: coordinates[name] for name in chosen},
    }  # fmt: skip
    return Inspection(drawn, report, metrics), table


def _check_fits(model: Trained, samples: Samples) -> None:
    expected = tuple(model.bundle.model.pixel_mean.shape)
    kept = slice(0, 1) if model.task.any_size else slice(0, 3)
    for what, got, wanted in (
        ("task", samples.attributes["task"], model.task.name),
        ("image shape", samples.images.shape[1:][kept], expected[kept]),
        *model.task.input_differences(samples.attributes["input"], model.bundle.info["input"]),
    ):
        if got != wanted:
            raise InputError(
                f"{samples.path}: its {what} is {got}, the model's is {wanted}: "
                "give a data set that was simulated as the one that the model was trained on (task, preset, --set)"
            )


def _colours(model: Trained, samples: Samples, names: Sequence[str]) -> dict[str, str]:
    """Return what to colour by, with units."""
    known = described(samples)
    for name in names:
        if name not in known:
            raise unknown(f"coordinate of the data set {samples.path.name}", name, known)
    if names:
        return {name: known[name].unit for name in dict.fromkeys(names)}
    targets = [target["name"] for target in model.bundle.info["targets"]]
    first = [name for name in (model.task.stratify, *targets) if name in known]
    states = len(np.unique(samples.coordinates["group"]))
    others = [name for name in known if name not in _KNOWN and _is_quantity(samples.coordinates[name], states)]
    possible = {target["name"] for target in samples.attributes.get("possible_targets", ())}
    roles = {"parameter": 0, "sample": 1}
    others.sort(key=lambda name: roles.get(known[name].role, 2 if name in possible else 3))
    return {name: known[name].unit for name in list(dict.fromkeys([*first, *others]))[:_COLOURS]}


def _is_quantity(values: Array, states: int) -> bool:
    """Tell what varies from constants, and from numbers that merely name the states."""
    different = np.unique(values[np.isfinite(values)])
    names = len(different) == states and np.array_equal(different, np.round(different))
    return len(different) > 1 and not names


def _label(name: str, unit: str) -> str:
    return name if unit == "1" else f"{name} ({unit})"
