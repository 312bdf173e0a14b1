"""Writing figures as small PNG files, and many of them on one sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from stm_models.files import atomic_path

__all__ = ["LARGEST", "contact_sheet", "save"]

LARGEST = 300_000
"""Bytes that a file may have."""
_DPI = 100
_SHEET_WIDTH = 1800  # pixels
_GAP = 12


def save(figure: Figure, path: str | Path, largest: int = LARGEST) -> Path:
    """Write a figure as PNG of at most ``largest`` bytes, atomically; with 256 colours or fewer pixels if need be."""
    return _write(_draw(figure), Path(path), largest)


def contact_sheet(figures: Sequence[Figure], path: str | Path, largest: int = LARGEST) -> Path:
    """Write some figures side by side and below each other on one sheet, as `save` does."""
    pictures = [_draw(figure) for figure in figures]
    rows: list[list[Image.Image]] = [[]]
    for picture in pictures:
        if rows[-1] and _width([*rows[-1], picture]) > _SHEET_WIDTH:
            rows.append([])
        rows[-1].append(picture)
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (max(map(_width, rows)), sum(heights) + _GAP * (len(rows) + 1)), "white")
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        left = _GAP
        for picture in row:
            sheet.paste(picture, (left, top))
            left += picture.width + _GAP
        top += height + _GAP
    return _write(sheet, Path(path), largest)


def _width(row: Sequence[Image.Image]) -> int:
    return sum(picture.width for picture in row) + _GAP * (len(row) + 1)


def _draw(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _write(picture: Image.Image, path: Path, largest: int) -> Path:
    scale, data = 1.0, _encoded(picture, largest)
    while len(data) > largest and scale > 0.05:
        scale *= min(0.9, 0.97 * (largest / len(data)) ** 0.5)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        data = _encoded(picture.resize(size, Image.Resampling.LANCZOS), largest)
    with atomic_path(path) as part:
        part.write_bytes(data)
    return path


def _encoded(picture: Image.Image, largest: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    if len(buffer.getvalue()) <= largest:
        return buffer.getvalue()
    buffer = io.BytesIO()
    # Rare colours, as of a mark, stay what they are.
    few = picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
