"""Writing a data set: a Zarr v3 store, filled group by group, that any interruption leaves whole."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from stm_models.data import digest
from stm_models.errors import InputError, one_line
from stm_models.tasks.plan import Group, GroupResult, Plan

__all__ = ["READ_ERRORS", "SCHEMA", "Store", "create", "open_finished", "open_root"]

SCHEMA = "stm-dataset/1"
READ_ERRORS = (RuntimeError, ValueError, KeyError, TypeError, OSError)
"""What zarr raises for files that are cut short, altered or not there."""

Array = NDArray[Any]


def create(path: str | Path, plan: Plan, attributes: Mapping[str, Any]) -> None:
    """Make a store with all arrays in their final shape and all that is known beforehand; atomic.

    Arrays per sample have one group per chunk; ``state_<name>``, ``group_digest`` and ``group_result``
    have a leading axis ``state`` with one row, and one chunk, per group.

    Parameters
    ----------
    path : path
        Where; nothing or an empty folder may be there.
    plan : Plan
        The data set to be.
    attributes : mapping
        Root attributes, JSON-able; ``task``, ``config``, ``recipe``, ... .

    Raises
    ------
    InputError
        When something else is there.
    ValueError
        When the plan's names clash or its group indices have gaps.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} is there and is no data set of ours: give another --out, or delete it")
    scalars = [variable.name for variable in plan.scalars]
    known = ["group", "chain", *(v.name for v in (*plan.parameters, *plan.samples)), *scalars]
    names = [*known, *plan.arrays]
    if [group.index for group in plan.groups] != list(range(len(plan.groups))):
        raise ValueError("the indices of a plan's groups must be 0, 1, 2, ... without gaps")
    if len(set(names)) < len(names) or "converged" not in scalars:
        raise ValueError(f"a plan's names must differ and have 'converged' among the scalars: {names}")
    part = path.parent / f".{path.name}.new"
    shutil.rmtree(part, ignore_errors=True)
    root = zarr.open_group(part, mode="w-", zarr_format=3)
    _add_known(root, plan)
    _add_results(root, plan)
    own = {"schema": SCHEMA, "complete": False, "digest": "", "samples_per_group": plan.samples_per_group}
    # CF's list of coordinates: xarray turns these arrays into coordinates of every variable.
    root.attrs.update({**attributes, **own, "coordinates": " ".join(known)})
    part.rename(path)


def open_root(path: str | Path, mode: str = "r") -> zarr.Group:
    """Open a store of ours.

    Raises
    ------
    InputError
        When there is none at ``path``, or a newer program wrote it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no data set at {path}: check the path, or make one with `stm simulate`")
    if not (path / "zarr.json").is_file():
        what = "is an empty folder" if path.is_dir() and not any(path.iterdir()) else "is no Zarr v3 store"
        raise InputError(f"{path} {what}: give a data set made by `stm simulate`")
    try:
        root = zarr.open_group(path, mode=mode, zarr_format=3)
        schema = root.attrs.get("schema")
    except READ_ERRORS as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}): delete it and simulate again") from error
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema!r}, expected {SCHEMA!r}: give a data set made by this version's `stm simulate`"
        )
    return root


def open_finished(path: str | Path) -> zarr.Group:
    """Open a store of ours to read it.

    Raises
    ------
    InputError
        When there is none at ``path``, a newer program wrote it, or it is not finished.
    """
    root = open_root(path)
    if root.attrs.get("complete") is not True:
        raise InputError(f"{path} is not finished: run the same `stm simulate` command again, it continues")
    return root


class Store:
    """A store that is being filled. One process decides (`mend`, `finish`), any number `write` groups.

    Parameters
    ----------
    path : path
        A store made by `create`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._root = open_root(path, "r+")
        self.attributes: dict[str, Any] = dict(self._root.attrs)
        self.per_group = int(self.attributes["samples_per_group"])
        self._arrays = {name: self._whole(array) for name, array in self._root.arrays()}
        self._results = self._arrays["group_result"]
        self._fields: list[str] = list(self._results.attrs["fields"])

    def write(self, group: Group, result: GroupResult) -> None:
        """Store one group; only when all else is written does it count as finished.

        Raises
        ------
        ValueError
            When the result does not fit the plan or holds NaN.
        """
        rows = slice(group.index * self.per_group, (group.index + 1) * self.per_group)
        arrays, digits = {}, {}
        for name, array in self._of("array").items():
            arrays[name] = _fitted(name, result.arrays[name], array, (self.per_group, *array.shape[1:]))
            digits[name] = int(array.attrs["digits"])
        converged = bool(result.scalars["converged"])
        summary = digest.group(arrays, digits, group.parameters, group.samples, converged)
        for name, values in arrays.items():
            self._arrays[name][rows] = values
        for name, array in self._of("state").items():
            state = _filled_up(np.asarray(result.state[name.removeprefix("state_")]), array.shape[1:])
            array[group.index] = _fitted(name, state, array, array.shape[1:])
        self._arrays["group_digest"][group.index] = summary
        self._results[group.index] = [
            float(converged) if name == "converged" else float(result.scalars[name]) for name in self._fields
        ]

    def state(self, index: int) -> dict[str, Array]:
        """Return what group ``index`` left for its successor, to the last bit, zeros after a smaller one.

        Raises
        ------
        ValueError
            When it is not there.
        """
        state = {name.removeprefix("state_"): array[index] for name, array in self._of("state").items()}
        if not all(np.all(np.isfinite(values)) for values in state.values()):
            raise ValueError(f"the state of group {index} is not there")
        return state

    def scalar(self, name: str) -> NDArray[np.float64]:
        """Return one scalar of every group, (group,) float64, NaN where a group is not finished."""
        values: NDArray[np.float64] = self._results[:, self._fields.index(name)]
        return values

    def holds(self, index: int) -> bool:
        """Whether group ``index`` is finished, by looking for its last file: cheap, and true for other writers too."""
        return (self.path / "group_result" / f"c.{index}.0").exists()

    def count_finished(self) -> int:
        """Return how many groups are finished, by counting files: cheap enough to poll."""
        with os.scandir(self.path / "group_result") as entries:
            return sum(e.name.startswith("c.") and not e.name.endswith(".partial") for e in entries)

    def mend(self) -> NDArray[np.bool_]:
        """Clear away what an interruption left and return which groups are finished, (group,) bool.

        A finished group whose files are cut short, gone or altered is marked unfinished.

        Raises
        ------
        InputError
            When what the store says of all groups cannot be read.
        """
        self._sweep()
        try:
            stored = digest.StoredDigests(self._root)
        except READ_ERRORS as error:
            raise InputError(f"{self.path} is damaged ({one_line(error)}): delete it and simulate again") from error
        results = self.path / "group_result"
        finished = np.zeros(self._results.shape[0], bool)
        for index in range(len(finished)):
            chunk = results / f"c.{index}.0"
            if not chunk.exists():
                continue
            try:
                self.state(index)
                finished[index] = stored.agrees(index)
            except READ_ERRORS:
                finished[index] = False
            if not finished[index]:
                chunk.unlink()
        return finished

    def finish(self) -> str:
        """Write scalars per sample and the content digest, mark the store complete; return the digest."""
        for name in self._fields:
            array = self._arrays[name]
            array[:] = np.repeat(self.scalar(name), self.per_group).astype(array.dtype)
        whole = digest.StoredDigests(self._root).content()
        self._sweep()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Consolidated metadata", UserWarning)
            root = zarr.consolidate_metadata(self.path, zarr_format=3)
        # One atomic write of the root's metadata makes the store complete.
        root.attrs.update({"digest": whole, "complete": True})
        self.attributes = dict(root.attrs)
        return whole

    def _of(self, role: str) -> dict[str, zarr.Array]:
        return {name: array for name, array in self._arrays.items() if array.attrs.get("role") == role}

    def _sweep(self) -> None:
        for part in self.path.rglob("*.partial"):
            part.unlink(missing_ok=True)

    @staticmethod
    def _whole(array: zarr.Array) -> zarr.Array:
        # A chunk that equals the fill value is written too, so that a missing file always means a loss.
        return array.with_config({"write_empty_chunks": True})


def _add_known(root: zarr.Group, plan: Plan) -> None:
    def add(name: str, values: Array, role: str, unit: str, description: str) -> None:
        array = _add(root, name, values.shape, values.shape, str(values.dtype), ("sample",))
        array.attrs.update({"role": role, "units": unit, "long_name": description})
        array[:] = values

    groups, count = plan.groups, plan.samples_per_group
    chain_of = {group.index: number for number, chain in enumerate(plan.chains) for group in chain}
    states = [group.index if group.state is None else group.state for group in groups]
    add("group", np.repeat(states, count), "index", "1", "simulated state")
    chains = [chain_of[group.index] for group in groups]
    add("chain", np.repeat(chains, count), "index", "1", "chain of warm starts")
    for variable in plan.parameters:
        values = np.repeat([float(group.parameters[variable.name]) for group in groups], count)
        add(variable.name, values, "parameter", variable.unit, variable.description)
    for variable in plan.samples:
        values = np.concatenate([np.asarray(group.samples[variable.name], np.float64) for group in groups])
        add(variable.name, values, "sample", variable.unit, variable.description)


def _add_results(root: zarr.Group, plan: Plan) -> None:
    states, count = len(plan.groups), plan.samples_per_group
    total = states * count
    for variable in plan.scalars:
        dtype = "bool" if variable.name == "converged" else "float64"
        array = _add(root, variable.name, (total,), (total,), dtype, ("sample",))
        array.attrs.update({"role": "scalar", "units": variable.unit, "long_name": variable.description})
    for name, spec in plan.arrays.items():
        shape, chunks = (total, *spec.shape), (count, *spec.shape)
        array = _add(root, name, shape, chunks, spec.dtype, ("sample", *spec.dims))
        array.attrs.update({"role": "array", "units": spec.unit, "long_name": spec.description})
        array.attrs.update({"digits": spec.digits})
    for name, spec in plan.state.items():
        shape, chunks = (states, *spec.shape), (1, *spec.shape)
        array = _add(root, f"state_{name}", shape, chunks, spec.dtype, ("state", *spec.dims))
        array.attrs.update({"role": "state", "units": spec.unit, "long_name": spec.description})
    array = _add(root, "group_digest", (states, 4), (1, 4), "uint64", ("state", "word"))
    array.attrs.update({"role": "digest", "long_name": "SHA-256 of the rounded values"})
    fields = [variable.name for variable in plan.scalars]
    array = _add(root, "group_result", (states, len(fields)), (1, len(fields)), "float64", ("state", "field"))
    array.attrs.update({"role": "result", "fields": fields})


def _add(
    root: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: str,
    dims: tuple[str, ...],
) -> zarr.Array:
    return root.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        dimension_names=dims,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=np.nan if np.dtype(dtype).kind in "fc" else 0,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )


def _fitted(name: str, values: Array, array: zarr.Array, shape: tuple[int, ...]) -> Array:
    fitted = np.asarray(values).astype(array.dtype)
    if fitted.shape != shape:
        raise ValueError(f"{name} has shape {fitted.shape}, the plan says {shape}")
    if not np.all(np.isfinite(fitted)):
        raise ValueError(f"{name} holds NaN or infinity")
    return fitted


def _filled_up(values: Array, shape: tuple[int, ...]) -> Array:
    """Append zeros to a state that is smaller than the largest of the data set."""
    missing = [full - size for full, size in zip(shape, values.shape, strict=False)]
    if values.ndim != len(shape) or min(missing, default=0) < 0:
        return values  # does not fit: refused by who stores it
    return np.pad(values, [(0, zeros) for zeros in missing])
