"""What the task reads of the description of a model's input; see `simulation.input_spec`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveFloat

from stm_models.tasks.inputs import SpecPart

__all__ = ["CLOSE_PIXELS", "Channels", "Preparing", "Raster", "differences"]

CLOSE_PIXELS = 0.03
"""Pixels whose sizes differ by no larger a share count as equal."""
_ROUNDING = 1e-6  # V
_COMPARED = {
    "material": "material", "biases": "set of biases (V)", "half_width": "half width of the bias windows (V)",
    "pixel_nm": "pixel size (nm)", "preparation": "preparation",
}  # fmt: skip


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


def differences(got: Mapping[str, Any], expected: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """List in what two kinds of prepared maps differ; see `stm_models.tasks.base.Task.input_differences`."""
    return [
        (words, _said(got[key]), _said(expected[key]))
        for key, words in _COMPARED.items()
        if key in got and key in expected and not _same(key, got[key], expected[key])
    ]


def _same(key: str, got: Any, expected: Any) -> bool:
    if key == "preparation":
        return all(got[name] == expected[name] for name in got.keys() & expected.keys())
    if key == "material":
        return bool(got == expected)
    share, rest = (CLOSE_PIXELS, 0.0) if key == "pixel_nm" else (0.0, _ROUNDING)
    return np.shape(got) == np.shape(expected) and np.allclose(got, expected, rtol=share, atol=rest)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in sorted(value.items()))
    return ", ".join(f"{one:g}" if isinstance(one, float) else str(one) for one in np.atleast_1d(value).tolist())
