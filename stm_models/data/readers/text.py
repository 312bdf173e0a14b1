"""Text: Nanonis point spectra (``.dat``), and tables of ``x y value``; their content tells them apart."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np

from stm_models.data.arrays import limit
from stm_models.data.readers.headers import pairs, read_header, settings
from stm_models.data.readers.measurement import Measurement, Wanted
from stm_models.data.readers.signals import choose, derivative, no_names, split_unit
from stm_models.errors import InputError
from stm_models.physics.moire.constants import LATTICE_CONSTANT

__all__ = ["read"]

_LARGEST = 64 * 1024**2
_SPECTRUM = b"Experiment\t"
_TABLE = b"[DATA]"


def read(path: Path, wanted: Wanted) -> Measurement:
    """Read a point spectrum as (bias, 1, 1), bias ascending in V, or scattered points as (1, 1, n) with positions.

    Raises
    ------
    InputError
        When it is neither, is larger than 64 MiB, or its sweep or channel is not there.
    """
    limit(path.stat().st_size, path.name, _LARGEST)
    if wanted.key is not None:
        raise InputError(f"{path.name} is a table without names, got key {wanted.key!r}; leave the key out")
    with path.open("rb") as file:
        nanonis = file.read(len(_SPECTRUM)) == _SPECTRUM
    return _spectrum(path, wanted) if nanonis else _points(path, wanted)


def _points(path: Path, wanted: Wanted) -> Measurement:
    no_names(path, wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's about a file of comments only
        table = np.loadtxt(path, dtype=np.float64, ndmin=2, encoding="utf-8")
    if table.shape[1] != 3 or not len(table):
        raise InputError(f"{path.name}: got a table of shape {table.shape}; expected columns x y value in units of a")
    points = table[:, :2] * (LATTICE_CONSTANT / 10)
    if not np.isfinite(points).all():
        raise InputError(f"{path.name}: {np.sum(~np.isfinite(points))} positions are NaN or infinite; remove them")
    low, high = points.min(0), points.max(0)
    size = (float(high[1] - low[1]), float(high[0] - low[0]))
    return Measurement(table[:, 2].reshape(1, 1, -1), size, None, path.name, points, kind="table of points")


def _spectrum(path: Path, wanted: Wanted) -> Measurement:
    name = path.name
    text, start = read_header(path, _TABLE)
    header = pairs(text, "\t")
    with path.open("rb") as file:
        file.seek(start)
        file.readline()
        columns = file.readline().decode("latin-1").rstrip("\r\n").rstrip("\t").split("\t")
        body = file.read()
    table = np.loadtxt(io.BytesIO(body), dtype=np.float64, ndmin=2, encoding="latin-1") if body.strip() else np.empty(0)
    if table.ndim != 2 or table.shape[1] != len(columns):
        raise InputError(
            f"{name}: {len(columns)} columns are named, its table has shape {table.shape}; is it cut short?"
        )
    (swept, unit), names = split_unit(columns[0]), columns[1:]
    if unit != "V" or not swept.startswith("Bias") or not names:
        raise InputError(f"{name} is over {columns[0][:60]!r}; expected a spectrum over bias (V) with its signals")
    choice = choose(names, wanted.channel, name)
    order = np.argsort(table[:, 0], kind="stable")
    bias, values = table[order, 0], table[order, 1 + choice.index]
    if not np.isfinite(bias).all():
        raise InputError(f"{name}: {np.sum(~np.isfinite(bias))} bias values are NaN or infinite; remove them")
    if choice.derived:
        values = derivative(values, bias, name)
    return Measurement(
        values.reshape(-1, 1, 1),
        None,
        bias,
        f"{name}[{choice.name}]",
        kind="Nanonis point spectrum",
        unit=choice.unit,
        channel=choice.name,
        reason=choice.reason,
        channels=tuple(names),
        settings=settings(header),
        notes=("The file holds a spectrum at one point, no map.",),
    )
