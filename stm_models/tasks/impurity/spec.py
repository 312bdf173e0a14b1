"""What the task reads of the description of a model's input; see `simulation.input_spec`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from stm_models.tasks.inputs import SpecPart

__all__ = ["Channels", "Preparing", "Raster"]


class Raster(SpecPart):
    """Its pixels."""

    pixel_nm: PositiveFloat


class Channels(SpecPart):
    """What each channel is, in V."""

    biases: Annotated[tuple[float, ...], Field(min_length=1)]


class Preparing(Raster, Channels):
    """What a measured stack is prepared with."""

    half_width: float
    reach: float
    band_bottom: float
    material: str
    preparation: dict[str, Any]
