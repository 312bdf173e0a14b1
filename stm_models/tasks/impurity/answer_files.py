"""What is written beside an answer: a table, a picture, and what each impurity's score depends on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.figures.png import save
from stm_models.files import atomic_path
from stm_models.tasks.impurity import drawing
from stm_models.tasks.impurity.answers import positions, write_positions

__all__ = ["voltage_shares", "write"]

Array = NDArray[Any]
_CORE, _RINGS = 1.5, 8.0  # px of the input


def write(
    folder: Path, answer: Mapping[str, Any], image: Array, outputs: Mapping[str, Array], about: Mapping[str, Any]
) -> list[Path]:
    """Write NAME_positions.csv and NAME_overlay.png; with an explanation also NAME_voltages.csv and .png."""
    name = answer["name"]
    paths = [write_positions(folder / f"{name}_positions.csv", answer)]
    step = np.asarray(about.get("step", [1.0, 1.0]))
    pixel = np.asarray(answer["pixel_nm"]) * step
    found = positions(answer)
    in_nm = (found + 0.5) * answer["pixel_nm"]
    confidence = np.array([one["confidence"] for one in answer["impurities"]])
    first = about.get("first_row", 0) * answer["pixel_nm"][0]
    extent = (0.0, image.shape[2] * pixel[1], first, first + image.shape[1] * pixel[0])
    paths.append(save(drawing.overlay(image.mean(axis=0), in_nm, confidence, extent), folder / f"{name}_overlay.png"))
    maps = _explanation(outputs, image.shape)
    if maps is not None:
        here = (found - [about.get("first_row", 0), 0] + 0.5) / step - 0.5
        shares = voltage_shares(maps, here)
        paths.append(_write_shares(folder / f"{name}_voltages.csv", shares, about))
        titles = [f"{1000 * bias:+.4g} mV" for bias in about.get("windows", [])] or [
            f"map {i + 1}" for i in range(len(maps))
        ]
        paths.append(save(drawing.explanation(maps, titles, here), folder / f"{name}_voltages.png"))
    return paths


def voltage_shares(maps: Array, found: Array) -> Array:
    """Share of each voltage in what a score depends on: (N, V, 2) float64, in the core and in the rings; sums to 1.

    Parameters
    ----------
    maps : (V, H, W)
        Derivative of the scores with respect to the image.
    found : (N, 2), px
        y, x in the maps' pixels. A pixel within the rings of two impurities counts for both.
    """
    y, x = np.mgrid[: maps.shape[1], : maps.shape[2]]
    strength = np.abs(np.asarray(maps, np.float64))
    result = np.zeros((len(found), len(maps), 2))
    for i, (row, column) in enumerate(found):
        distance = np.hypot(y - row, x - column)
        result[i, :, 0] = strength[:, distance < _CORE].sum(axis=1)
        result[i, :, 1] = strength[:, (distance >= _CORE) & (distance <= _RINGS)].sum(axis=1)
        result[i] /= max(float(result[i].sum()), 1e-300)
    return result


def _explanation(outputs: Mapping[str, Array], shape: tuple[int, ...]) -> Array | None:
    for name, values in outputs.items():
        if name not in ("prediction", "distance") and np.squeeze(values).shape == tuple(shape):
            return np.squeeze(values)
    return None


def _write_shares(path: Path, shares: Array, about: Mapping[str, Any]) -> Path:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["impurity", "channel", "bias_V", "core", "rings"])
    biases = about.get("windows") or [""] * shares.shape[1]
    for i, rows in enumerate(shares):
        for v, (core, rings) in enumerate(rows):
            table.writerow([i, v, biases[v], f"{core:.4f}", f"{rings:.4f}"])
    with atomic_path(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
    return path
