"""The panel: the same few named samples for every run of a data set, in one .npz file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data import npz
from stm_models.data.dataset import Samples
from stm_models.errors import InputError, one_line
from stm_models.files import atomic_path
from stm_models.sampling import evenly

__all__ = ["Panel", "choose", "load", "save"]

SCHEMA = "stm-panel/1"
PREFIX = "array:"

Array = NDArray[Any]


@dataclass(frozen=True)
class Panel:
    """What a panel file holds.

    Attributes
    ----------
    names : (P,) str
        One name per sample, the same in every run of the data set.
    rows : (P,) int64
        Row of each sample in the store.
    images : (P, C, H, W) float32
    targets : (P, T) float64 or (P, T, H, W) float32
    target_names : (T,) str
    digest : str
        Content digest of the data set.
    arrays : dict of str to (P, ...) array
        What a run adds: outputs, maps.
    """

    names: NDArray[np.str_]
    rows: NDArray[np.int64]
    images: NDArray[np.float32]
    targets: Array
    target_names: NDArray[np.str_]
    digest: str
    arrays: dict[str, Array]


def choose(samples: Samples, among: NDArray[Any], count: int = 12) -> NDArray[np.int64]:
    """Return indices of at most ``count`` samples, evenly spread over the sorted first target, or the rows for maps.

    It draws nothing at random: the same ``among`` (best what no seed changes: the unseen samples, or all)
    gives the same panel.

    Parameters
    ----------
    samples : Samples
    among : (n,) int
        Indices to choose from.
    count : int
        Size of the panel.
    """
    order = np.asarray(among, np.int64)
    values = samples.targets[order, 0] if samples.targets.ndim == 2 else np.zeros(len(order))
    return evenly(order[np.lexsort((samples.coordinates["sample"][order], values))], count)


def save(path: str | Path, samples: Samples, indices: NDArray[Any], arrays: Mapping[str, Array]) -> None:
    """Write the samples at ``indices`` and what a run made of them, atomically.

    Parameters
    ----------
    path : path
        Ends in ``.npz``.
    samples : Samples
    indices : (P,) int
        See `choose`.
    arrays : mapping of str to (P, ...) array
        Named results, e.g. ``prediction`` and ``gradient``.

    Raises
    ------
    ValueError
        When an array does not have one row per sample.
    """
    chosen = samples.subset(np.asarray(indices, np.int64))
    for name, values in arrays.items():
        if len(values) != len(chosen):
            raise ValueError(f"panel array {name!r} has {len(values)} rows for {len(chosen)} samples")
    target = samples.attributes["targets"][0]
    unit = "" if target["unit"] == "1" else f" {target['unit']}"
    rows = chosen.coordinates["sample"]
    names = [f"sample {row}" for row in rows]
    if chosen.targets.ndim == 2:
        values = chosen.targets[:, 0]
        names = [f"{target['name']} = {v:.4g}{unit}, {name}" for v, name in zip(values, names, strict=True)]
    content: dict[str, Any] = {
        "schema": np.array(SCHEMA),
        "names": np.array(names, dtype=np.str_),
        "rows": rows.astype(np.int64),
        "images": chosen.images,
        "targets": chosen.targets,
        "target_names": np.array([t["name"] for t in samples.attributes["targets"]], dtype=np.str_),
        "digest": np.array(samples.attributes["digest"]),
        **{PREFIX + name: np.asarray(values) for name, values in arrays.items()},
    }
    with atomic_path(path) as part:
        np.savez_compressed(part, allow_pickle=False, **content)


def load(path: str | Path) -> Panel:
    """Read a panel file.

    Raises
    ------
    InputError
        When it is no panel file.
    """
    try:
        content = npz.read(path, SCHEMA)
        return Panel(
            names=content["names"],
            rows=content["rows"],
            images=content["images"],
            targets=content["targets"],
            target_names=content["target_names"],
            digest=str(content["digest"]),
            arrays={n.removeprefix(PREFIX): v for n, v in content.items() if n.startswith(PREFIX)},
        )
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is no panel file ({one_line(error)}): give the panel.npz of a run") from error
