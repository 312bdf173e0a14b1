"""Where attention goes over a data set: mean maps, and shares of regions, against the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.questions import Question
from deploy.model.session import Session
from pipelines.explaining.explainers import Explainer
from pipelines.explaining.judged_maps import subjects
from stm_models import sampling
from stm_models.data.dataset import Samples, described
from stm_models.errors import InputError
from stm_models.explain.attention import attention, bins_for, bins_of
from stm_models.explain.by_target import ByTarget, MeanMaps, mean_maps_by_target
from stm_models.explain.units import unit_of
from stm_models.figures import explanation as figures
from stm_models.figures.png import save
from stm_models.files import atomic_path, write_json
from stm_models.progress import Progress
from stm_models.tasks.registry import get

__all__ = ["by_target", "evenly", "quantity"]

Array = NDArray[Any]


def by_target(
    session: Session, ways: Sequence[Explainer], samples: Samples, out: Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Average maps over bins of the target, and relate what regions get of them to it.

    Writes attention.json, and of each method METHOD_by_target.npz (``edges``, the least and largest value in each bin,
    ``samples``, ``mean``, and ``strength``, the mean of the absolute values, (B, C, H, W), of ``grad_cam`` with one
    channel), METHOD_by_target.png (its sum over channels) and METHOD_attention.png.

    Parameters
    ----------
    samples : Samples
        Of the model's size.
    seed : int
        Of the bootstrap over simulated states.

    Returns
    -------
    record : dict
        What attention.json holds.
    files : list of str

    Raises
    ------
    InputError
        For images of another size, and for too few states to tell anything.
    """
    about, task = session.metadata, get(session.metadata.task)
    if samples.images.shape[1:] != about.input.shape:
        raise InputError(
            f"{samples.path}: its images have shape {samples.images.shape[1:]}, expected the model's own, "
            f"{about.input.shape}, to average their maps"
        )
    name, unit, values = quantity(session, samples)
    states = len(np.unique(samples.coordinates["group"]))
    bins = bins_for(samples.coordinates["group"])
    which = bins_of(values, bins)
    found = _gather(session, ways, samples, which)
    record: dict[str, Any] = {
        "model": about.sha256, "data": str(samples.path.absolute()), "digest": samples.attributes["digest"],
        "trained_on_this_data": samples.attributes["digest"] == about.data.get("digest"),
        "calibrated_on_this_data": about.calibrated_on(samples.attributes["digest"]),
        "samples": len(samples), "states": states, "quantity": name, "unit": unit, "seed": seed, "methods": {},
    }  # fmt: skip
    files = []
    edges = np.array(
        [(values[which == number].min(), values[which == number].max()) for number in range(which.max() + 1)]
    )
    for way in ways:
        files += _write_means(session, way, found.means[way.method], edges, (name, unit), out)
        record["methods"][way.method] = {"statement": "the task knows no regions of these images"}
        if found.names:
            shares = attention(
                values, found.shares(way.method), found.areas, samples.coordinates["group"],
                found.names, compared=task.compared, bins=bins, seed=seed,
            )  # fmt: skip
            record["methods"][way.method] = {"statement": shares.statement(name, unit), **shares.record()}
            drawn = figures.attention(shares, method=way.method, quantity=name, unit=unit)
            files.append(save(drawn, out / f"{way.name}_attention.png"))
    write_json(out / "attention.json", record)
    return record, [str(path.absolute()) for path in (out / "attention.json", *files)]


def evenly(samples: Samples, values: Array, most: int) -> Samples:
    """Return at most ``most`` samples, evenly spread over sorted ``values``."""
    return samples.subset(np.sort(sampling.evenly(np.argsort(values, kind="stable"), most)))


def quantity(session: Session, samples: Samples) -> tuple[str, str, Array]:
    """Return name, unit and values (S,) of the explained target; for target maps, of the task's ``stratify``."""
    about = session.metadata
    if samples.targets.ndim == 2:
        target = about.targets[about.explained]
        return target.name, target.unit, samples.targets[:, about.explained]
    name = get(about.task).stratify
    return name, described(samples)[name].unit or "1", samples.coordinates[name].astype(np.float64)


def _gather(session: Session, ways: Sequence[Explainer], samples: Samples, which: Array) -> ByTarget:
    task = get(session.metadata.task)

    def regions(rows: Array, images: Array) -> list[dict[str, Array]]:
        question = Question(images, [f"sample-{row:05d}" for row in rows], source=samples, rows=rows)
        asked = subjects(session, question, session.run(images)["prediction"], len(rows))
        return [one.regions(task) for one in asked]

    def maps(way: Explainer) -> Callable[[Array], Array]:
        return lambda images: way.maps(images, None)

    with Progress(len(samples) * len(ways), "maps", "map") as bar:
        return mean_maps_by_target(
            samples.images, which, {way.method: maps(way) for way in ways}, regions, done=bar.update
        )


def _write_means(
    session: Session, way: Explainer, means: MeanMaps, edges: Array, of: tuple[str, str], out: Path
) -> list[Path]:
    """Write the mean maps of one method as arrays and as a picture."""
    about, (name, unit) = session.metadata, of
    path = out / f"{way.name}_by_target.npz"
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file, edges=edges, samples=means.counts, mean=means.mean.astype(np.float32),
            strength=means.strength.astype(np.float32),
        )  # fmt: skip
    suffix = "" if unit == "1" else f" {unit}"
    picture = figures.mean_maps(
        means.mean,
        [f"{name} = {low:.3g}" + (f" to {high:.3g}" if high > low else "") + suffix for low, high in edges],
        axes=get(about.task).axes(about.as_dict()["input"]), title=f"mean {way.method}",
        unit=unit_of(way.method, about.targets[about.explained].unit, about.input.unit),
    )  # fmt: skip
    return [path, save(picture, path.with_suffix(".png"))]
