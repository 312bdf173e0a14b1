"""RHK files (``.sm4``) through the package rhkpy, which is large and therefore optional."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from stm_models.data.arrays import LARGEST, extent, finite, limit
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.signals import DERIVATIVE, derivative
from stm_models.errors import InputError, unknown

__all__ = ["read"]

_UNITS = {"topography": "nm", "current": "pA", "lia": "pA"}


def read(path: Path, wanted: Wanted) -> Measurement:
    """Read the dI/dV map of a file, (bias, y, x) with bias ascending in V, else its topograph (1, y, x).

    Repetitions and both directions of the sweep are averaged. The size of a file is bounded, what rhkpy does with
    the bytes is its own affair.

    Raises
    ------
    InputError
        When rhkpy is missing or cannot read the file, or there is no such signal.
    """
    limit(path.stat().st_size, path.name, LARGEST // 2)
    if wanted.key is not None:
        raise InputError(f"{path.name} holds signals, got key {wanted.key!r}; choose one with --channel NAME")
    try:
        import rhkpy
    except ImportError as error:
        raise InputError(
            f"{path.name} is an RHK file, which needs the package rhkpy (some 600 MB): pip install rhkpy, or export "
            "the map as .npz"
        ) from error
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = rhkpy.rhkdata(str(path))
    if getattr(file, "datatype", None) not in ("map", "image"):
        raise InputError(
            f"{path.name} holds {getattr(file, 'datatype', 'nothing known')!r}; expected a map or an image"
        )
    images = ["topography", "current", "lia"]
    spectra = ["lia", "current", DERIVATIVE] if file.datatype == "map" else []
    named = [*(f"spectra {name}" for name in spectra), *(f"image {name}" for name in images)]
    channel = wanted.channel if isinstance(wanted.channel, str) else named[0] if spectra else "image topography"
    if channel == DERIVATIVE and spectra:
        channel = f"spectra {DERIVATIVE}"
    if channel not in named:
        raise unknown(f"channel of {path.name}", channel, named)
    reason = "asked for by name" if wanted.channel else "lock-in spectra" if spectra else "the file has no spectra"
    return _spectra(path, file, channel, reason, named) if channel.startswith("spectra") else (
        _image(path, file, channel, reason, named)
    )  # fmt: skip


def _spectra(path: Path, file: Any, channel: str, reason: str, named: list[str]) -> Measurement:
    name, signal = path.name, channel.removeprefix("spectra ")
    cube = file.spectra["current" if signal == DERIVATIVE else signal]
    for averaged in ("repetitions", "biasscandir"):
        if averaged in cube.dims:
            cube = cube.mean(averaged)
    values = np.asarray(cube.transpose("bias", "specpos_y", "specpos_x"), np.float64)
    limit(values.nbytes, name)
    bias, unit = np.asarray(file.spectra["bias"], np.float64), cube.attrs.get("units", _UNITS.get(signal))
    if not finite(bias):
        raise InputError(f"{name}: its bias values are not all finite; is the file damaged?")
    if signal == DERIVATIVE:
        values = np.moveaxis(derivative(np.moveaxis(values, 0, -1), bias, name), -1, 0)
        unit = f"{unit}/V"
    if bias[0] > bias[-1]:
        bias, values = bias[::-1], values[::-1]
    x, y = (np.asarray(file.spectra[axis], np.float64) for axis in ("specpos_x", "specpos_y"))
    return Measurement(
        values,
        extent((_span(y), _span(x)), name) if min(len(x), len(y)) > 1 else None,
        bias,
        f"{name}[{channel}]",
        kind="RHK map of spectra",
        unit=unit,
        channel=channel,
        reason=reason,
        channels=tuple(named),
        orientation="as rhkpy gives it",
        settings=_settings(file.spectra.attrs),
        notes=("Repetitions and both directions of the sweep are averaged.",),
    )


def _image(path: Path, file: Any, channel: str, reason: str, named: list[str]) -> Measurement:
    name, signal = path.name, channel.removeprefix("image ")
    image = file.image[signal]
    if "scandir" in image.dims:
        image = image.sel(scandir="forward")
    values = np.asarray(image.transpose("y", "x"), np.float64)
    limit(values.nbytes, name)
    about = file.image.attrs
    return Measurement(
        values[None],
        extent((about["size_y"], about["size_x"]), name),
        np.array([float(about["bias"])]),
        f"{name}[{channel}]",
        kind="RHK image",
        unit=image.attrs.get("units", _UNITS.get(signal)),
        channel=channel,
        reason=reason,
        channels=tuple(named),
        orientation="as rhkpy gives it; the forward image",
        settings=_settings(about),
        notes=() if signal == "lia" else (f"The map is {signal}, no dI/dV.",),
    )


def _span(positions: Any) -> float:
    """Return the width of a field whose pixels have their centres here."""
    return float(np.ptp(positions) * len(positions) / (len(positions) - 1))


def _settings(about: Any) -> dict[str, Any]:
    named = {
        "bias_V": "bias",
        "setpoint": "setpoint",
        "setpoint_unit": "setpoint units",
        "lock_in_amplitude": "LI amplitude",
        "lock_in_frequency_Hz": "LI frequency",
        "date": "measurement date",
    }
    return {
        ours: about[theirs] if isinstance(about[theirs], str) else float(about[theirs])
        for ours, theirs in named.items()
        if theirs in about
    }
