"""Where attention goes over a data set: mean maps, and shares of regions, against the target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.session import Session
from pipelines.explainers import Explainer
from pipelines.judged_maps import subjects
from pipelines.questions import Question
from stm_models.data.dataset import Samples, described
from stm_models.errors import InputError
from stm_models.explain import localisation
from stm_models.explain.attention import MeanMaps, attention, bins_of
from stm_models.explain.units import unit_of
from stm_models.figures import explanation as figures
from stm_models.figures.png import save
from stm_models.files import atomic_path, write_json
from stm_models.progress import Progress
from stm_models.tasks.registry import get

__all__ = ["by_target", "evenly", "quantity"]

Array = NDArray[Any]
_BATCH = 16
_BINS = 8
_STATES = 3  # in a bin, at least about


def by_target(
    session: Session, ways: Sequence[Explainer], samples: Samples, out: Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Average maps over bins of the target, and relate what regions get of them to it.

    Writes attention.json, and of each method METHOD_by_target.npz (``edges`` of the bins' values, ``samples``, ``mean``
    and ``strength``, the mean of the absolute values, (B, C, H, W)), METHOD_by_target.png and METHOD_attention.png.

    Parameters
    ----------
    samples : Samples
        Sorted as they come; of the model's size.
    seed : int
        Of the bootstrap over simulated states.

    Returns
    -------
    record : dict
        What attention.json holds, by method.
    files : list of str
    """
    about, task = session.metadata, get(session.metadata.task)
    if samples.images.shape[1:] != about.input.shape:
        raise InputError(
            f"{samples.path}: its images have shape {samples.images.shape[1:]}, expected the model's own, "
            f"{about.input.shape}, to average their maps"
        )
    name_of, unit, values = quantity(session, samples)
    states = len(np.unique(samples.coordinates["group"]))
    bins = max(2, min(_BINS, states // _STATES))
    which = bins_of(values, bins)
    averages = {way.method: MeanMaps(int(which.max()) + 1, about.input.shape) for way in ways}
    shares: dict[str, list[list[float]]] = {way.method: [] for way in ways}
    areas: list[list[float]] = []
    names: list[str] = []
    with Progress(len(samples) * len(ways), "maps", "map") as bar:
        for first in range(0, len(samples), _BATCH):
            rows = np.arange(first, min(first + _BATCH, len(samples)))
            part = samples.subset(rows)
            question = Question(part.images, [f"sample-{row:05d}" for row in rows], source=part)
            asked = subjects(session, question, session.run(part.images)["prediction"], len(rows))
            regions = [one.regions(task) for one in asked]
            names = names or list(regions[0])
            areas += [[localisation.areas(one).get(name, 0.0) for name in names] for one in regions]
            for way in ways:
                maps = way.maps(part.images, None)
                averages[way.method].add(maps, which[rows])
                for one, own in zip(regions, maps, strict=True):
                    share = localisation.shares(own, one)
                    shares[way.method].append([share.get(name, 0.0) for name in names])
                bar.update(len(rows), way.method)
    record: dict[str, Any] = {
        "model": about.sha256, "data": str(samples.path.absolute()), "digest": samples.attributes["digest"],
        "trained_on_this_data": samples.attributes["digest"] == about.data.get("digest"),
        "samples": len(samples), "states": states,
        "quantity": name_of, "unit": unit, "seed": seed, "methods": {},
    }  # fmt: skip
    files = []
    axes = task.axes(about.as_dict()["input"])
    edges = [(float(values[which == b].min()), float(values[which == b].max())) for b in range(which.max() + 1)]
    suffix = "" if unit == "1" else f" {unit}"
    titles = [f"{name_of} = {low:.3g}" + (f" to {high:.3g}" if high > low else "") + suffix for low, high in edges]
    for way in ways:
        mean = averages[way.method]
        path = out / f"{way.name}_by_target.npz"
        with atomic_path(path) as part_path, part_path.open("wb") as file:
            np.savez_compressed(
                file, edges=np.array(edges), samples=mean.counts, mean=mean.mean.astype(np.float32),
                strength=mean.strength.astype(np.float32),
            )  # fmt: skip
        picture = figures.mean_maps(
            mean.mean[:, 0], titles, axes=axes, title=f"mean {way.method}",
            unit=unit_of(way.method, about.targets[about.explained].unit, about.input.unit),
        )  # fmt: skip
        files += [path, save(picture, path.with_suffix(".png"))]
        record["methods"][way.method] = entry = {"statement": "the task knows no regions of these images"}
        if names:
            found = attention(
                values, np.array(shares[way.method]), np.array(areas), samples.coordinates["group"], names,
                compared=task.compared, bins=bins, seed=seed,
            )  # fmt: skip
            entry.update(found.record(), statement=found.statement(name_of, unit))
            drawn = figures.attention(found, method=way.method, quantity=name_of, unit=unit)
            files.append(save(drawn, out / f"{way.name}_attention.png"))
    write_json(out / "attention.json", record)
    return record, [str(path.absolute()) for path in (out / "attention.json", *files)]


def evenly(samples: Samples, values: Array, most: int) -> Samples:
    """Return at most ``most`` samples, evenly spread over sorted ``values``."""
    ranked = np.argsort(values, kind="stable")
    kept = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int))]
    return samples.subset(np.sort(kept))


def quantity(session: Session, samples: Samples) -> tuple[str, str, Array]:
    """Return name, unit and values (S,) of the explained target; for target maps, of the task's ``stratify``."""
    about = session.metadata
    if samples.targets.ndim == 2:
        target = about.targets[about.explained]
        return target.name, target.unit, samples.targets[:, about.explained]
    name = get(about.task).stratify
    return name, described(samples)[name].unit or "1", samples.coordinates[name].astype(np.float64)
