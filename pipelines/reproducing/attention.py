"""Where a trained network looks over a data set, for a reproduction: records and figures, a method each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from stm_models.data.dataset import Samples
from stm_models.errors import InputError
from stm_models.explain import localisation
from stm_models.explain.attention import attention, bins_for, bins_of
from stm_models.explain.by_target import mean_maps_by_target
from stm_models.explain.torch_maps import torch_maps
from stm_models.explain.units import unit_of
from stm_models.figures import explanation as figures
from stm_models.networks.bundle import Bundle
from stm_models.tasks.base import Task

__all__ = ["Looked", "look"]


@dataclass(frozen=True)
class Looked:
    """The shares of the task's regions against the target in numbers, with words, and both as figures by name."""

    record: dict[str, Any]
    figures: dict[str, Figure]


def look(task: Task, found: Bundle, samples: Samples, methods: Sequence[str], seed: int) -> dict[str, Looked]:
    """Relate maps of the explained number to the regions that the task knows.

    Parameters
    ----------
    task : Task
    found : Bundle
        The trained model.
    samples : Samples
        With targets that are numbers, those of the model in its order.
    methods : sequence of str
        Names of `stm_models.explain.methods.METHODS`; those that the model has no map of are left out.
    seed : int
        Of the bootstrap over states.

    Returns
    -------
    dict of str to Looked
        By method.

    Raises
    ------
    InputError
        Where the task knows no regions of the images, or there are too few states.
    """
    target = int(found.info["explained"])
    about, values = samples.attributes["targets"][target], samples.targets[:, target]
    bins = bins_for(samples.coordinates["group"])
    which = bins_of(values, bins)
    known = torch_maps(found, target)
    ways = {method: partial(known[method], found.model) for method in methods if method in known}
    if not ways:
        return {}
    seen = mean_maps_by_target(
        samples.images, which, ways, lambda rows, images: [_regions(task, samples, row) for row in rows]
    )
    looked = {}
    for method in ways:
        moves = attention(
            values, seen.shares(method), seen.areas, samples.coordinates["group"], seen.names, compared=task.compared,
            bins=bins, seed=seed,
        )  # fmt: skip
        name, unit = about["name"], about["unit"]
        drawn = {
            "attention": figures.attention(moves, method=method, quantity=name, unit=unit),
            "maps": figures.mean_maps(
                seen.means[method].mean,
                [f"{name} = {values[which == one].mean():.2f} {unit}" for one in np.unique(which)],
                axes=task.axes(samples.attributes["input"]), title=f"mean {method}",
                unit=unit_of(method, unit, samples.attributes["input"]["unit"]),
            ),
        }  # fmt: skip
        looked[method] = Looked({"statement": moves.statement(name, unit), **moves.record()}, drawn)
    return looked


def _regions(task: Task, samples: Samples, row: int) -> dict[str, Any]:
    shape = (samples.images.shape[2], samples.images.shape[3])
    own = {name: float(values[row]) for name, values in samples.coordinates.items()}
    found = task.regions(samples.attributes, own, shape, None)
    if not found:
        raise InputError(f"the task {task.name} knows no regions of {samples.path}: expected some to explain it by")
    return localisation.partition(found, shape)
