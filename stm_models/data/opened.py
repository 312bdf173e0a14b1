"""A finished data set that is looked at piece by piece, however large it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from stm_models.data.store import READ_ERRORS, open_finished
from stm_models.errors import InputError, one_line
from stm_models.sampling import evenly

__all__ = ["OpenDataSet"]

Array = NDArray[Any]
_MOST_BYTES = 512 * 1024**2


class OpenDataSet:
    """A finished store of which only the coordinates are in memory.

    Attributes
    ----------
    path : Path
    attributes : dict
        The store's root attributes.
    coordinates : dict of str to (S,) array
        Everything known per sample, those of groups that did not converge too.

    Raises
    ------
    InputError
        When there is no store, it is not finished, or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        root = open_finished(self.path)
        self.attributes: dict[str, Any] = dict(root.attrs)
        try:
            self._arrays: dict[str, zarr.Array] = dict(root.arrays())
            names = str(self.attributes["coordinates"]).split()
            self.coordinates: dict[str, Array] = {name: self._arrays[name][:] for name in names}
        except READ_ERRORS as error:
            raise self._damaged(error) from error

    def __len__(self) -> int:
        return len(self.coordinates["group"])

    @property
    def arrays(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array per sample, without the sample axis: ``image`` and what else there is."""
        return {n: a.shape[1:] for n, a in self._arrays.items() if a.attrs.get("role") == "array"}

    @property
    def has_states(self) -> bool:
        """Whether the simulated states are stored beside the images."""
        return any(array.attrs.get("role") == "state" for array in self._arrays.values())

    def row(self, sample: int) -> dict[str, float]:
        """Return every coordinate of one sample as a number."""
        return {name: float(values[sample]) for name, values in self.coordinates.items()}

    def read(self, name: str, rows: NDArray[np.int64]) -> Array:
        """Return some rows of one array, (n, ...).

        Raises
        ------
        InputError
            When it is damaged or holds NaN.
        """
        try:
            array = self._arrays[name]
            # One row at a time: a chunk holds a whole group, and only the wanted image of it is kept.
            values = np.empty((len(rows), *array.shape[1:]), array.dtype)
            for place, row in enumerate(rows):
                values[place] = array[int(row)]
        except READ_ERRORS as error:
            raise self._damaged(error) from error
        if not np.isfinite(values).all():
            raise InputError(f"{self.path} holds NaN or infinity in {name}: delete it and simulate again")
        return values

    def state(self, group: int) -> dict[str, Array]:
        """Return what one group left for its successor, to the last bit; empty when no states are stored.

        Raises
        ------
        InputError
            When it is damaged.
        """
        try:
            return {
                name.removeprefix("state_"): array[group]
                for name, array in self._arrays.items()
                if array.attrs.get("role") == "state"
            }
        except READ_ERRORS as error:
            raise self._damaged(error) from error

    def spread(self, parameter: str, *, most: int) -> NDArray[np.int64]:
        """Choose converged samples evenly over a parameter and its groups, ascending in that order.

        Their images take 512 MiB in memory at most.

        Parameters
        ----------
        parameter : str
            A coordinate.
        most : int
            Samples at most.

        Raises
        ------
        InputError
            When no group converged.
        """
        rows = np.flatnonzero(self.coordinates["converged"])
        if not len(rows):
            raise InputError(f"no state of {self.path} converged: simulate with more iterations or a larger tolerance")
        image = self._arrays["image"]
        most = max(1, min(most, _MOST_BYTES // int(np.prod(image.shape[1:]) * image.dtype.itemsize)))
        rows = rows[np.lexsort((rows, self.coordinates[parameter][rows]))]
        return evenly(rows, most)

    def _damaged(self, error: BaseException) -> InputError:
        return InputError(f"{self.path} is damaged ({one_line(error)}): delete it and simulate again")
