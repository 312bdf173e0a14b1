"""What a score map says: impurities with positions and confidences, in numbers and in words."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.files import atomic_path
from stm_models.signal.peaks import Peaks
from stm_models.tasks.impurity.scoring import calibration_of, maxima
from stm_models.tasks.impurity.spec import Channels, Raster
from stm_models.tasks.inputs import read_spec
from stm_models.tasks.verdict import verdict

__all__ = ["COLUMNS", "decode", "places", "positions", "words", "write_positions"]

COLUMNS = ("x_px", "y_px", "x_nm", "y_nm", "confidence", "radius_px", "score", "radius_nm")
"""Of a table of positions: pixels count from zero at the centre of the file's first pixel, nm from its corner."""


def decode(
    outputs: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any], about: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """List the impurities of each score map (S, 1, H, W) above the calibrated threshold.

    Pixels are those of the file, ``about`` of whose preparation says how they lie to the map's; ``step`` of them, y and
    x, are one of the map. Of an ensemble each impurity has the ``spread`` of its members' scores there.
    """
    about = about or {}
    pixel = about.get("pixel_nm") or [read_spec(Raster, metadata["input"]).pixel_nm] * 2
    biases = about.get("windows") or read_spec(Channels, metadata["input"]).biases
    step = about.get("step", [1.0, 1.0])
    calibration = calibration_of(metadata.get("calibration") or {})
    answers = []
    for row, score in enumerate(np.asarray(outputs["prediction"])[:, 0]):
        found = maxima(score).above(calibration.threshold)
        y = (found.y + 0.5) * step[0] - 0.5 + about.get("first_row", 0)
        x = (found.x + 0.5) * step[1] - 0.5
        confidence = calibration.apply(found.height)
        radius = calibration.position_radius(found.height) * np.sqrt(step[0] * step[1])
        spread = _there(outputs["spread"][row, 0], found) if "spread" in outputs else None
        impurities = [
            {
                "x_px": round(float(x[i]), 3), "y_px": round(float(y[i]), 3),
                "x_nm": round(float((x[i] + 0.5) * pixel[1]), 4), "y_nm": round(float((y[i] + 0.5) * pixel[0]), 4),
                "confidence": round(float(confidence[i]), 4), "score": round(float(found.height[i]), 4),
                "radius_px": round(float(radius[i]), 3) if np.isfinite(radius[i]) else None,
                "radius_nm": round(float(radius[i]) * math.sqrt(pixel[0] * pixel[1]), 4)
                if np.isfinite(radius[i]) else None,
                **({} if spread is None else {"spread": round(float(spread[i]), 4)}),
            }
            for i in range(len(found))
        ]  # fmt: skip
        answer: dict[str, Any] = {
            "count": len(impurities),
            "impurities": impurities,
            "threshold": calibration.threshold,
            "pixel_nm": [float(size) for size in pixel],
            "step": [float(size) for size in step],
            "bias_V": [float(bias) for bias in biases],
        }
        answers.append(answer | verdict(outputs, row, "the positions", metadata.get("novelty")))
    return answers


def _there(values: NDArray[Any], found: Peaks) -> NDArray[Any]:
    """Return the values (N,) of a map (H, W) at the pixels of its peaks."""
    y, x = (
        np.rint(at).astype(int).clip(0, size - 1) for at, size in zip((found.y, found.x), values.shape, strict=True)
    )
    there: NDArray[Any] = values[y, x]
    return there


def positions(answer: Mapping[str, Any]) -> NDArray[np.float64]:
    """Positions of an answer: (N, 2) float64, y and x in the file's pixels."""
    return np.array([[one["y_px"], one["x_px"]] for one in answer["impurities"]], np.float64).reshape(-1, 2)


def places(answer: Mapping[str, Any], about: Mapping[str, Any]) -> NDArray[np.float64]:
    """Positions of an answer: (N, 2) float64, y and x in the image's pixels; the inverse of `decode`."""
    step = np.asarray(about.get("step", [1.0, 1.0]))
    return (positions(answer) - [about.get("first_row", 0), 0] + 0.5) / step - 0.5


def words(answer: Mapping[str, Any]) -> str:
    """Say how many there are, and how sure the least sure one is."""
    count = answer["count"]
    text = f"{count} {'impurity' if count == 1 else 'impurities'}"
    if "true" in answer:
        text += f" (true {answer['true']['count']})"
    if count:
        text += f", weakest confidence {min(one['confidence'] for one in answer['impurities']):.2f}"
    return text


def write_positions(path: Path, answer: Mapping[str, Any]) -> Path:
    """Write the table of positions; an empty one has its header alone, that of an ensemble a last column, spread."""
    found = answer["impurities"]
    columns = [*COLUMNS, *(["spread"] if any("spread" in one for one in found) else [])]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows([{name: one[name] for name in columns} for one in found])
    with atomic_path(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
    return path
