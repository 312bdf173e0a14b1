"""What answers a task's questions, and what it shows of answers and of data: columns, maps at places, pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from stm_models.data.dataset import Samples

__all__ = ["Column", "Pictures", "PlaceMaps", "Predictor"]

Array = NDArray[Any]
Predictor = Callable[["Samples"], Array]
"""Samples in, predictions in the form of the task's networks out: a row per sample."""


@dataclass(frozen=True)
class Column:
    """One column of the table that compares a model with its baselines: its title, the metric, its format."""

    title: str
    metric: str
    format: str = ".4f"


@dataclass(frozen=True)
class PlaceMaps:
    """What an answered map depends on at some of its places, each explained by itself.

    Attributes
    ----------
    method : str
        Name of the explanation.
    places : (K, 2) float64, px
        y and x in the image, as `Task.places` gave them.
    pixels : (K, 2) int64
        y and x of the pixel whose score is explained.
    corners : (K, 2) int64
        y and x, in the image, of the first pixel of each map.
    maps : (K, C, h, w) float32
        Of the image around the place; unit of the target per unit of the image.
    """

    method: str
    places: Array
    pixels: Array
    corners: Array
    maps: Array


@dataclass(frozen=True)
class Pictures:
    """What only a task can draw of a data set.

    Attributes
    ----------
    figures : mapping of str to matplotlib.figure.Figure
        By the name of the picture, fit for a file name.
    numbers : mapping of str to JSON-able
        What each picture shows.
    skipped : mapping of str to str
        Why a picture could not be drawn.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
