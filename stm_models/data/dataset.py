"""Reading a finished data set into memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from stm_models.data.digest import StoredDigests
from stm_models.data.store import READ_ERRORS, open_root
from stm_models.errors import InputError

__all__ = ["Samples", "load"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Samples:
    """Images with their targets.

    Attributes
    ----------
    images : (S, C, H, W) float32
    targets : (S, T) float64
        In the order of ``attributes["targets"]``.
    coordinates : dict of str to (S,) array
        Everything known per sample: ``group``, ``chain``, the task's parameters and scalars,
        ``converged`` (bool), and ``sample``, the row in the store.
    attributes : dict
        The store's root attributes: ``task``, ``config``, ``recipe``, ``digest``, ``input``, ``targets``, ...
    path : Path
        Where the store is.
    """

    images: NDArray[np.float32]
    targets: NDArray[np.float64]
    coordinates: dict[str, Array]
    attributes: dict[str, Any]
    path: Path

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Array) -> Samples:
        """Return the samples at ``indices``: (n,) int, or a (S,) bool mask."""
        return replace(
            self,
            images=self.images[indices],
            targets=self.targets[indices],
            coordinates={name: values[indices] for name, values in self.coordinates.items()},
        )


def load(path: str | Path, *, verify: bool = False, include_unconverged: bool = False) -> Samples:
    """Read the images, targets and coordinates of a finished store.

    Parameters
    ----------
    path : path
        A store made by `stm_models.data.store`.
    verify : bool
        Compute every digest anew and compare; reads all arrays.
    include_unconverged : bool
        Keep the samples of groups flagged as not converged.

    Raises
    ------
    InputError
        When there is no store, it is not finished, damaged, altered, or holds NaN.
    """
    path = Path(path)
    root = open_root(path)
    attributes: dict[str, Any] = dict(root.attrs)
    if attributes.get("complete") is not True:
        raise InputError(f"{path} is not finished: run the same `stm simulate` command again, it continues")
    try:
        arrays = dict(root.arrays())
        for name, array in arrays.items():
            if array.nchunks_initialized < array.nchunks:
                raise ValueError(f"{array.nchunks - array.nchunks_initialized} chunks of {name} are missing")
        if verify:
            _verify(root)
        images = arrays["image"][:]
        coordinates = {name: arrays[name][:] for name in str(attributes["coordinates"]).split()}
        targets = np.stack([coordinates[target["name"]].astype(np.float64) for target in attributes["targets"]], axis=1)
    except READ_ERRORS as error:
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} is damaged ({line}): delete it and simulate again") from error
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(bad):
        raise InputError(
            f"{path} holds NaN or infinity in {len(bad)} images, first in sample {bad[0]}: delete it and simulate again"
        )
    coordinates["sample"] = np.arange(len(images))
    samples = Samples(images, targets, coordinates, attributes, path)
    if include_unconverged:
        return samples
    kept = coordinates["converged"]
    if not kept.any():
        raise InputError(f"no state of {path} converged: simulate with more iterations or a larger tolerance")
    return samples if kept.all() else samples.subset(np.flatnonzero(kept))


def _verify(root: zarr.Group) -> None:
    stored = StoredDigests(root)
    for index in range(root["group_digest"].shape[0]):
        if not stored.agrees(index):
            raise ValueError(f"the values of group {index} do not match their digest")
    if stored.content() != root.attrs["digest"]:
        raise ValueError("the digests of the groups do not match the data set's")
