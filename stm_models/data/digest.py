"""Two identities of a data set: the recipe, known beforehand, and the content, known afterwards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

__all__ = ["KNOWN_DIGITS", "StoredDigests", "group", "recipe"]

KNOWN_DIGITS = 9
"""Decimals kept of parameters and of values per sample."""

Array = NDArray[Any]


def recipe(task: str, config: Mapping[str, Any], simulator_version: str) -> str:
    """Return the SHA-256 (hex) of everything that decides what will be simulated.

    Parameters
    ----------
    task : str
        Name of the task.
    config : mapping
        The whole simulation config, JSON-able.
    simulator_version : str
        Changes whenever the same config gives other numbers.
    """
    return hashlib.sha256(_json({"task": task, "config": config, "simulator_version": simulator_version})).hexdigest()


def group(
    arrays: Mapping[str, Array],
    digits: Mapping[str, int],
    parameters: Mapping[str, float],
    samples: Mapping[str, Array],
    converged: bool,
) -> NDArray[np.uint64]:
    """Return the digest of one group, over values rounded to whole multiples of ``10**-digits``.

    Rounding is what lets two runs that differ in the last bits share a digest.

    Parameters
    ----------
    arrays : mapping of str to (samples_per_group, ...)
        As stored, i.e. already of the stored dtype.
    digits : mapping of str to int
        Decimals kept of each array.
    parameters, samples : mapping
        What was known beforehand; `KNOWN_DIGITS` decimals are kept.
    converged : bool
        Whether the state converged.

    Returns
    -------
    (4,) uint64
        The SHA-256, little-endian.

    Raises
    ------
    ValueError
        For a value that is not finite or too large to be rounded to so many decimals.
    """
    summary = hashlib.sha256(b"converged" if converged else b"flagged")
    for kind, values in (("array", arrays), ("parameter", parameters), ("sample", samples)):
        for name in sorted(values):
            whole = _rounded(name, np.asarray(values[name]), digits[name] if kind == "array" else KNOWN_DIGITS)
            summary.update(_json([kind, name, whole.shape]))
            summary.update(whole.tobytes())
    return np.frombuffer(summary.digest(), "<u8").astype(np.uint64)


class StoredDigests:
    """The digests of an open store, as written and computed anew from its values.

    Parameters
    ----------
    root : zarr.Group
        An open store, see `stm_models.data.store`.
    """

    def __init__(self, root: zarr.Group) -> None:
        self._arrays: dict[str, zarr.Array] = {}
        self._parameters: dict[str, Array] = {}
        self._samples: dict[str, Array] = {}
        for name, array in root.arrays():
            role = array.attrs.get("role")
            if role == "array":
                self._arrays[name] = array
            elif role == "parameter":
                self._parameters[name] = array[:]
            elif role == "sample":
                self._samples[name] = array[:]
        self._digits = {name: int(array.attrs["digits"]) for name, array in self._arrays.items()}
        self._written: zarr.Array = root["group_digest"]
        self._results: zarr.Array = root["group_result"]
        self._converged: int = self._results.attrs["fields"].index("converged")
        self._per_group = int(root.attrs["samples_per_group"])

    def agrees(self, index: int) -> bool:
        """Whether the values of group ``index`` still have the digest that was written with them."""
        return np.array_equal(self.group(index), self._written[index])

    def content(self) -> str:
        """Return the SHA-256 (hex) of the whole: every group's written digest and the arrays' layout."""
        layout = {
            name: {
                "dims": list(array.metadata.dimension_names),
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "digits": self._digits[name],
            }
            for name, array in self._arrays.items()
        }
        summary = hashlib.sha256(_json(layout))
        summary.update(np.ascontiguousarray(self._written[:], "<u8").tobytes())
        return summary.hexdigest()

    def group(self, index: int) -> NDArray[np.uint64]:
        """Return the (4,) uint64 digest of group ``index``, computed anew; see `group`."""
        rows = slice(index * self._per_group, (index + 1) * self._per_group)
        return group(
            {name: array[rows] for name, array in self._arrays.items()},
            self._digits,
            {name: float(values[rows.start]) for name, values in self._parameters.items()},
            {name: values[rows] for name, values in self._samples.items()},
            bool(self._results[index, self._converged] == 1.0),
        )


def _rounded(name: str, values: Array, digits: int) -> NDArray[np.int64]:
    if np.iscomplexobj(values):
        values = np.stack([values.real, values.imag], axis=-1)
    if values.dtype.kind in "bui":
        return np.ascontiguousarray(values, "<i8")
    scaled = values.astype(np.float64) * 10.0**digits
    if not np.all(np.abs(scaled) < 2.0**63):
        raise ValueError(f"{name} holds NaN, infinity or values too large to keep {digits} decimals of")
    return np.rint(scaled).astype("<i8")


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
