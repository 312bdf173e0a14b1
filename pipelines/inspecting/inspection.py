"""Looking at a data set or at one measured file: figures, and the numbers behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from stm_models.data import readers
from stm_models.data.opened import OpenDataSet
from stm_models.data.readers import Measurement
from stm_models.errors import InputError
from stm_models.figures import dataset, measured
from stm_models.signal.similarity import levels, principal_components, similarity
from stm_models.signal.spectrum import peaks, spectrum
from stm_models.tasks.base import Task
from stm_models.tasks.registry import get

__all__ = ["MOST_IMAGES", "Inspection", "of_data_set", "of_file"]

MOST_IMAGES = 2000
"""Images of a data set that are looked at, spread evenly; fewer when they are so large that memory counts."""
_COLUMNS = 6
_CHANNELS = 3
_COMPONENTS = 8
_MAPS = 8
_SMALLEST_MAP = 4


@dataclass(frozen=True)
class Inspection:
    """Figures by name, all numbers (JSON-able), and the few that are worth comparing between data sets."""

    figures: dict[str, Figure]
    report: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)


def of_data_set(data: OpenDataSet) -> Inspection:
    """Look at a finished data set of any task.

    Raises
    ------
    InputError
        When it is damaged, no state converged, or its task is unknown.
    """
    about, known = data.attributes, data.coordinates
    task = get(str(about["task"]))
    rows = data.spread(task.stratify, most=MOST_IMAGES)
    images, values = data.read("image", rows), known[task.stratify][rows].astype(np.float64)
    words = {"label": task.stratify, "unit": _unit(data, task.stratify)}
    centres, level = levels(values)
    converged = int(np.count_nonzero(known["converged"]))
    report: dict[str, Any] = {
        "kind": "data set", "data": str(data.path.absolute()), "task": task.name,
        **{key: about.get(key) for key in ("recipe", "digest", "simulator_version")},
        "samples": len(data), "groups": len(np.unique(known["group"])), "unconverged_samples": len(data) - converged,
        "images_used": len(rows), "image_shape": list(images.shape[1:]), "image_unit": about["input"]["unit"],
        "parameter": {"name": task.stratify, "unit": words["unit"], "levels": centres.tolist(),
                      "images_per_level": np.bincount(level).tolist()},
        "skipped": {},
    }  # fmt: skip
    figures = {"images": _images(task, data, images, rows, centres, level, words, report)}
    metrics = _patterns(task, about["input"], images, values, centres, level, words, figures, report)
    own = task.pictures(data)
    figures |= own.figures
    report |= own.numbers
    report["skipped"] |= own.skipped
    return Inspection(figures, report, metrics)


def of_file(
    path: Path,
    key: str | None = None,
    size_nm: tuple[float, float] | None = None,
    bias: float | None = None,
    channel: int | str | None = None,
) -> Inspection:
    """Look at one file that `stm_models.data.readers` reads; what it does not say is listed as unknown.

    Parameters
    ----------
    path : Path
    key, size_nm, bias, channel
        As for `stm_models.data.readers.read`: an array's name, (height, width) in nm, V, and a signal or the number of
        a map.

    Returns
    -------
    Inspection
        ``spectrum``, ``map`` and ``fourier``, those that can be drawn; it has no metrics.

    Raises
    ------
    InputError
        As `stm_models.data.readers.read`, and for a map of too few pixels without a spectrum.
    """
    raw = readers.read(path, key=key, size_nm=size_nm, bias=bias, channel=channel)
    count = len(raw.values)
    report: dict[str, Any] = {
        "kind": "file", "file": str(path.absolute()), "source": raw.source, "format": raw.kind, "channels": count,
        **_extent(raw),
        "bias_V": None if raw.bias is None else raw.bias.tolist(),
        "channel": raw.channel, "channel_reason": raw.reason, "unit": raw.unit, "channels_of_file": list(raw.channels),
        "orientation": raw.orientation, "settings": dict(raw.settings), "notes": list(raw.notes),
        "statistics": _statistics(raw), "skipped": {}, "unknown": _unknown(raw),
    }  # fmt: skip
    figures: dict[str, Figure] = {}
    if count > 1 and raw.bias is not None:
        figures["spectrum"] = measured.spectra(raw)
    if raw.points is None and min(raw.values.shape[1:]) < _SMALLEST_MAP:
        rows, columns = raw.values.shape[1:]
        report["skipped"]["map"] = f"{rows} x {columns} pixels are too few for maps and their Fourier transforms"
        if not figures:
            raise InputError(
                f"{raw.source} has {rows} x {columns} pixels; expected at least {_SMALLEST_MAP} x {_SMALLEST_MAP}, or "
                "a spectrum over several biases"
            )
        return Inspection(figures, report)
    shown = _evenly(count, _MAPS)
    titles = [_channel(raw, number) for number in shown]
    transforms = [spectrum(raw, number) for number in shown]
    axes = transforms[0][1]
    magnitudes = [magnitude for magnitude, _ in transforms]
    figures |= {"map": measured.maps(raw, shown, titles), "fourier": measured.fourier(magnitudes, axes, titles)}
    report["channels_drawn"] = shown
    report["fourier"] = {
        "window": "Hann, mean removed", "unit": axes.labels[0].partition("(")[2].rstrip(")"),
        "peaks": [peaks(magnitude, axes) for magnitude in magnitudes],
    }  # fmt: skip
    return Inspection(figures, report)


def _statistics(raw: Measurement) -> dict[str, list[float]]:
    # Map by map: a large stack is not copied.
    return {
        name: [float(measure(one)) for one in raw.values]
        for name, measure in (("lowest", np.min), ("highest", np.max), ("mean", np.mean), ("deviation", np.std))
    }


def _images(
    task: Task,
    data: OpenDataSet,
    images: NDArray[np.float32],
    rows: NDArray[np.int64],
    centres: NDArray[np.float64],
    level: NDArray[np.int64],
    words: dict[str, str],
    report: dict[str, Any],
) -> Figure:
    first = np.array([np.argmax(level == number) for number in _evenly(len(centres), _COLUMNS)])
    spec = data.attributes["input"]
    names = task.channel_names(spec)
    channels = _evenly(len(names), _CHANNELS)
    samples = [data.row(int(rows[index])) for index in first]
    marks = [task.marks(data.attributes, sample) for sample in samples]
    if not any(marks):
        marks = []
        report["skipped"]["marks"] = "the data set does not say which structure its images are of"
    unit = "" if words["unit"] == "1" else f" {words['unit']}"
    report["images"] = {
        "samples": rows[first].tolist(), words["label"]: [sample[words["label"]] for sample in samples],
        "channels": [names[number] for number in channels], "highest": float(images[first].max()),
        "marks": [{name: points.tolist() for name, points in kinds.items()} for kinds in marks],
    }  # fmt: skip
    return dataset.images(
        images[first], [f"{words['label']} = {sample[words['label']]:.3g}{unit}" for sample in samples],
        rows={names[number]: number for number in channels},
        axes=task.axes(spec), unit=spec["unit"], marks=marks,
    )  # fmt: skip


def _patterns(
    task: Task,
    spec: dict[str, Any],
    images: NDArray[np.float32],
    values: NDArray[np.float64],
    centres: NDArray[np.float64],
    level: NDArray[np.int64],
    words: dict[str, str],
    figures: dict[str, Figure],
    report: dict[str, Any],
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    try:
        found = similarity(images, level)
        report["similarity"] = {
            "definition": "cosine between the mean standardised images of two levels",
            "matrix": found.matrix.tolist(),
            "within_level": [None if np.isnan(value) else float(value) for value in found.within],
        }
        if len(centres) > 1:
            metrics |= {"mean_similarity": float(found.between.mean()), "lowest_similarity": float(found.between.min())}
        figures["similarity"] = dataset.similarity_matrix(found, centres, **words)
    except InputError as error:
        report["skipped"]["similarity"] = str(error)
    try:
        components = principal_components(images, _COMPONENTS)
        report["components"] = {
            "explained_variance": components.explained.tolist(), words["label"]: values.tolist(),
            "scores": np.round(components.scores, 9).tolist(),
        }  # fmt: skip
        for number, share in enumerate(components.explained, start=1):
            metrics[f"explained_variance_{number}"] = float(share)
        figures["components"] = dataset.components(
            components, values, axes=task.axes(spec), label=words["label"], unit=words["unit"]
        )
    except InputError as error:
        report["skipped"]["components"] = str(error)
    report["metrics"] = metrics
    return metrics


def _evenly(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, first and last among them."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _unit(data: OpenDataSet, name: str) -> str:
    return next((str(t["unit"]) for t in data.attributes["targets"] if t["name"] == name), "1")


def _channel(raw: Measurement, number: int) -> str:
    return f"{1000 * raw.bias[number]:+.4g} mV" if raw.bias is not None else f"channel {number}"


def _extent(raw: Measurement) -> dict[str, Any]:
    size = None if raw.size_nm is None else {"height": raw.size_nm[0], "width": raw.size_nm[1]}
    if raw.points is not None:
        return {"points": len(raw.points), "pixels": None, "size_nm": size, "pixel_nm": None}
    rows, columns = raw.values.shape[1:]
    pixel = None if raw.size_nm is None else {"height": raw.size_nm[0] / rows, "width": raw.size_nm[1] / columns}
    return {"points": None, "pixels": {"height": rows, "width": columns}, "size_nm": size, "pixel_nm": pixel}


def _unknown(raw: Measurement) -> list[str]:
    unknown = []
    if raw.size_nm is None and raw.values.shape[1:] != (1, 1):
        unknown.append("size: the file does not state it, so wave vectors are per pixel; give --size-nm HEIGHTxWIDTH")
    if raw.bias is None:
        unknown.append("bias: the file does not state it")
    if raw.settings and "setpoint" not in raw.settings:
        unknown.append("set-point: the file does not state it")
    if raw.unit is None:
        unknown.append("unit of the values: the file does not state it")
    return unknown
