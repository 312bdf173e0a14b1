"""What is written beside an answer: a table, a picture, and what each impurity's score depends on."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.figures.png import save
from stm_models.files import atomic_path
from stm_models.tasks.impurity import drawing
from stm_models.tasks.impurity.answers import positions, write_positions
from stm_models.tasks.impurity.occlusion import regions
from stm_models.tasks.outputs import PlaceMaps

__all__ = ["voltage_shares", "write"]

Array = NDArray[Any]


def write(
    folder: Path, answer: Mapping[str, Any], image: Array | None, explained: PlaceMaps | None, about: Mapping[str, Any]
) -> list[Path]:
    """Write NAME_positions.csv, of an image NAME_overlay.png, of explained impurities NAME_voltages.csv and .png.

    Parameters
    ----------
    folder : Path
    answer : mapping
        As decoded, with a ``name`` that is fit for a file name.
    image : (V, H, W) float32 or None
        What was answered; None writes the table alone.
    explained : PlaceMaps or None
        Maps of the first impurities, in the answer's order; without an image they are not written.
    about : mapping
        `Prepared.about` of a measured map; else empty.

    Returns
    -------
    list of Path
        What was written.
    """
    name = answer["name"]
    paths = [write_positions(folder / f"{name}_positions.csv", answer)]
    if image is None:
        return paths
    step = np.asarray(about.get("step", [1.0, 1.0]))
    pixel = np.asarray(answer["pixel_nm"]) * step
    found = positions(answer)
    in_nm = (found + 0.5) * answer["pixel_nm"]
    confidence = np.array([one["confidence"] for one in answer["impurities"]])
    first = about.get("first_row", 0) * answer["pixel_nm"][0]
    extent = (0.0, image.shape[2] * pixel[1], first, first + image.shape[1] * pixel[0])
    paths.append(save(drawing.overlay(image.mean(axis=0), in_nm, confidence, extent), folder / f"{name}_overlay.png"))
    if explained is not None:
        shares = voltage_shares(explained.maps, explained.places - explained.corners)
        paths.append(_write_shares(folder / f"{name}_voltages.csv", shares, answer["bias_V"]))
        voltages = [f"{1000 * bias:+.4g} mV" for bias in answer["bias_V"]]
        labels = [f"impurity {i} ({score:.2f})" for i, score in enumerate(confidence)]
        paths.append(save(drawing.explanation(explained, voltages, labels), folder / f"{name}_voltages.png"))
    return paths


def voltage_shares(maps: Array, found: Array) -> Array:
    """Share of each voltage in what each score depends on: (K, V, 2) float64, in core and rings; sums to 1 or 0.

    Parameters
    ----------
    maps : (K, V, h, w)
        Derivative of each impurity's own score with respect to the image.
    found : (K, 2), px
        y, x of each impurity in the pixels of its maps.
    """
    result = np.zeros((*maps.shape[:2], 2))
    for one, own, place in zip(result, maps, found, strict=True):
        strength = np.abs(np.asarray(own, np.float64))
        for number, mask in enumerate(regions((maps.shape[2], maps.shape[3]), place).values()):
            one[:, number] = strength[:, mask].sum(axis=1)
        one /= max(float(one.sum()), 1e-300)
    return result


def _write_shares(path: Path, shares: Array, biases: Sequence[float]) -> Path:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["impurity", "channel", "bias_V", "core", "rings"])
    for i, rows in enumerate(shares):
        for v, (core, rings) in enumerate(rows):
            table.writerow([i, v, biases[v], f"{core:.4f}", f"{rings:.4f}"])
    with atomic_path(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
    return path
