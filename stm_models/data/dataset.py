"""Reading a finished data set into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from stm_models.data.digest import StoredDigests
from stm_models.data.store import READ_ERRORS, open_finished, open_root
from stm_models.errors import InputError, one_line, unknown

__all__ = ["Coordinate", "Samples", "described", "holds", "load", "stored", "task_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """Images with their targets.

    Attributes
    ----------
    images : (S, C, H, W) float32
    targets : (S, T) float64, or (S, T, H, W) float32 where the targets are arrays of the data set
        In the order of ``attributes["targets"]``.
    coordinates : dict of str to (S,) array
        Everything known per sample: ``group``, ``chain``, the task's parameters and scalars,
        ``converged`` (bool), and ``sample``, the row in the store.
    attributes : dict
        The store's root attributes: ``task``, ``config``, ``recipe``, ``digest``, ``input``, ``targets``, ...
    path : Path
        Where the store is.
    arrays : dict of str to (S, ...) array
        Those that `load` was asked for.
    """

    images: NDArray[np.float32]
    targets: Array
    coordinates: dict[str, Array]
    attributes: dict[str, Any]
    path: Path
    arrays: dict[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Array) -> Samples:
        """Return the samples at ``indices``: (n,) int, or a (S,) bool mask."""
        return replace(
            self,
            images=self.images[indices],
            targets=self.targets[indices],
            coordinates={name: values[indices] for name, values in self.coordinates.items()},
            arrays={name: values[indices] for name, values in self.arrays.items()},
        )


@dataclass(frozen=True)
class Coordinate:
    """What a data set says of one coordinate: its unit, and whether it is a ``parameter`` or ``scalar`` of the state.

    Else its role is ``sample``, where it differs between the images of a state, or ``index``, where it counts.
    """

    unit: str
    role: str


def load(
    path: str | Path,
    *,
    verify: bool = False,
    include_unconverged: bool = False,
    targets: Sequence[str] | None = None,
    arrays: Sequence[str] = (),
) -> Samples:
    """Read the images, targets and coordinates of a finished store.

    Parameters
    ----------
    path : path
        A store made by `stm_models.data.store`.
    verify : bool
        Compute every digest anew and compare; reads all arrays.
    include_unconverged : bool
        Keep the samples of groups flagged as not converged.
    targets : sequence of str, optional
        Labels to learn, among the data set's own targets and its ``possible_targets``; by default its own.
    arrays : sequence of str
        Further arrays of the data set to read.

    Raises
    ------
    InputError
        When there is no store, it is not finished, damaged, altered, or holds NaN, or for a target or an array
        that it does not have.
    """
    path = Path(path)
    root = open_finished(path)
    attributes: dict[str, Any] = dict(root.attrs)
    if targets is not None:
        attributes["targets"] = _chosen(path, attributes, targets)
    try:
        held = dict(root.arrays())
        for name in arrays:
            _has(path, root, name)
        for name, array in held.items():
            if array.nchunks_initialized < array.nchunks:
                raise ValueError(f"{array.nchunks - array.nchunks_initialized} chunks of {name} are missing")
        if verify:
            _verify(root)
        images = held["image"][:]
        coordinates = {name: held[name][:] for name in str(attributes["coordinates"]).split()}
        if targets is not None:
            _whole(path, root, list(targets))
        targets_of = _targets(held, coordinates, [target["name"] for target in attributes["targets"]])
        further = {name: held[name][:] for name in arrays}
    except READ_ERRORS as error:
        raise InputError(f"{path} is damaged ({one_line(error)}): delete it and simulate again") from error
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(bad):
        raise InputError(
            f"{path} holds NaN or infinity in {len(bad)} images, first in sample {bad[0]}: delete it and simulate again"
        )
    for number, target in enumerate(attributes["targets"]):
        lacking = np.count_nonzero(~np.isfinite(targets_of[:, number]).reshape(len(images), -1).all(axis=1))
        if lacking:
            raise InputError(
                f"{path} lacks the label {target['name']!r} in {lacking} of {len(images)} samples: "
                "choose other targets, or simulate again"
            )
    coordinates["sample"] = np.arange(len(images))
    samples = Samples(images, targets_of, coordinates, attributes, path, further)
    if include_unconverged:
        return samples
    kept = coordinates["converged"]
    if not kept.any():
        raise InputError(f"no state of {path} converged: simulate with more iterations or a larger tolerance")
    return samples if kept.all() else samples.subset(np.flatnonzero(kept))


def task_of(path: str | Path) -> str:
    """Return the name of the task that a finished store is of; reads no array.

    Raises
    ------
    InputError
        When there is no store, or it is not finished.
    """
    return str(open_finished(path).attrs.get("task"))


def holds(samples: Samples, name: str) -> bool:
    """Tell whether the data set has an array of this name."""
    return name in _arrays(open_root(samples.path))


def stored(samples: Samples, name: str) -> Array:
    """Read an array of the data set that `load` leaves on the disk, e.g. ``ldos``: (S, ...), a row per sample.

    Raises
    ------
    InputError
        When the data set does not hold it, or is damaged.
    """
    root = open_root(samples.path)
    _has(samples.path, root, name)
    try:
        return root[name].oindex[samples.coordinates["sample"]]
    except READ_ERRORS as error:
        raise InputError(f"{samples.path} is damaged ({name} cannot be read): delete it and simulate again") from error


def described(samples: Samples) -> dict[str, Coordinate]:
    """Return what the data set says of every coordinate, in its own order."""
    names = str(samples.attributes["coordinates"]).split()
    held = dict(open_root(samples.path).arrays())
    return {name: Coordinate(*(str(held[name].attrs.get(key, "")) for key in ("units", "role"))) for name in names}


def _arrays(root: zarr.Group) -> list[str]:
    return [key for key, array in root.arrays() if array.attrs.get("role") == "array"]


def _has(path: Path, root: zarr.Group, name: str) -> None:
    if name not in (held := _arrays(root)):
        raise InputError(
            f"{path} does not hold {name!r} (it holds {', '.join(held)}): simulate a data set that keeps it"
        )


def _targets(held: Mapping[str, zarr.Array[Any]], coordinates: Mapping[str, Array], names: Sequence[str]) -> Array:
    """Return the numbers called ``names`` as columns, or, where they are arrays of the data set, these as planes."""
    if held[names[0]].attrs.get("role") != "array":
        return np.stack([coordinates[name].astype(np.float64) for name in names], axis=1)
    planes = np.empty((held[names[0]].shape[0], len(names), *held[names[0]].shape[1:]), np.float32)
    for number, name in enumerate(names):
        planes[:, number] = held[name][:]
    return planes


def _chosen(path: Path, attributes: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    known = {target["name"]: target for target in (*attributes["targets"], *attributes.get("possible_targets", ()))}
    for name in names:
        if name not in known:
            raise unknown(f"target of the data set {path.name}", name, known)
    if not names or len(set(names)) < len(names):
        raise InputError(f"targets are {list(names)}: expected one or more different ones of {', '.join(known)}")
    return [dict(known[name]) for name in names]


def _whole(path: Path, root: zarr.Group, names: list[str]) -> None:
    """Refuse other maps than all of the data set in its order, which is what its networks answer with."""
    own = [target["name"] for target in root.attrs["targets"]]
    if names != own and any(name in _arrays(root) for name in names):
        raise InputError(f"targets of {path} are {names}: they are maps, expected {own} in this order; leave them out")


def _verify(root: zarr.Group) -> None:
    stored = StoredDigests(root)
    for index in range(root["group_digest"].shape[0]):
        if not stored.agrees(index):
            raise ValueError(f"the values of group {index} do not match their digest")
    if stored.content() != root.attrs["digest"]:
        raise ValueError("the digests of the groups do not match the data set's")
