"""A map as an instrument gives it, and the image that a network is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from stm_models.config import validate
from stm_models.errors import InputError

__all__ = ["Axes", "Prepared", "RawMap", "Reference", "SpecPart", "read_spec"]

Array = NDArray[Any]


class SpecPart(BaseModel):
    """Base of what a task reads of a model's ``input_spec``; other keys are others' affair."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


AnyPart = TypeVar("AnyPart", bound=SpecPart)


def read_spec(part: type[AnyPart], input_spec: Mapping[str, Any]) -> AnyPart:
    """Return a part of the description of a model's input.

    Raises
    ------
    InputError
        Naming the key that is missing or wrong.
    """
    try:
        return validate(part, input_spec, "the model's input")
    except InputError as error:
        raise InputError(f"{error}; write the model file anew with 'stm export'") from error


@dataclass(frozen=True)
class RawMap:
    """A real-space map as an instrument or a simulator gives it.

    Attributes
    ----------
    values : (channel, y, x) float64
    size_nm : (height, width) or None
        Physical size of the field; ``None`` when the file does not say.
    bias : (channel,) float64 or None
        Bias voltage of each channel in V.
    source : str
        File name and key, for the record.
    points : (n, 2) or None
        Positions in nm when the values are scattered: values is then (channel, 1, n).
    unit : str or None
        Of the values; ``None`` when the file does not say.
    channel : str or None
        Name of the signal in an instrument file.
    rotate : float
        Degrees counter-clockwise by which the field is to be turned.
    atom_width : float or None
        Standard deviation of one atom in nm, 0 where each is a single pixel; ``None`` when nobody said.
    unrecorded : (int, int)
        Rows of the file's field below and above these that were never recorded, and are left out; ``size_nm`` is
        without them.
    """

    values: Array
    size_nm: tuple[float, float] | None
    bias: Array | None
    source: str
    points: Array | None = None
    unit: str | None = None
    channel: str | None = None
    rotate: float = 0.0
    atom_width: float | None = None
    unrecorded: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Reference:
    """A file that tells the truth of the place of a measured map, and how it is read.

    Attributes
    ----------
    path : Path
    bias : float or None
        In V, of the map to take where the file has several.
    read_as : mapping or None
        ``size_nm`` and ``channel`` that the measured map was read with, where it is of this file; of another file no
        option says them.
    """

    path: Path
    bias: float | None = None
    read_as: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Axes:
    """Physical axes of a network input.

    Attributes
    ----------
    extent : (x0, x1, y0, y1)
        Outer edges of the field.
    labels : (x, y)
        With units.
    """

    extent: tuple[float, float, float, float]
    labels: tuple[str, str]

    @classmethod
    def of_centres(cls, x: float, y: float, shape: tuple[int, int], labels: tuple[str, str]) -> Axes:
        """Return those of ``shape`` (H, W) pixels, 2 or more, whose outermost centres lie at -x and x, -y and y.

        Examples
        --------
        >>> Axes.of_centres(1.0, 2.0, (3, 5), ("x", "y")).extent
        (-1.25, 1.25, -3.0, 3.0)
        """
        height, width = shape
        x, y = x * width / (width - 1), y * height / (height - 1)
        return cls((-x, x, -y, y), labels)


@dataclass(frozen=True)
class Prepared:
    """A network input made from a raw map.

    Attributes
    ----------
    image : (channel, y, x) float32
        Of the model's own height and width, unless the task says `Task.any_size`.
    known : (y, x) bool
        False where the map holds no information and the image is masked.
    notes : tuple of str
        What a reader of the prediction must be told.
    about : mapping of str to JSON-able
        What decoding the prediction needs to know of this map (a pixel's size, how it was preprocessed).
    """

    image: Array
    known: Array
    notes: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
