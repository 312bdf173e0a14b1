"""Headers of Nanonis files.

Our own parser rather than nanonispy2, measured on cut and flipped copies of real files (version 1.2.0): that package
takes a truncated grid without a word, gives multi-segment grids a linear bias axis, wants keys that old files lack,
knows no orientation, and answers damage with KeyError, IndexError or UnicodeDecodeError. What it would save is the
header alone; the tests compare both on every real file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stm_models.data.arrays import Extent, extent
from stm_models.errors import InputError

__all__ = ["check_size", "field_size", "numbers", "pairs", "read_header", "sections", "settings"]

_MOST = 4 * 1024**2
_LONGEST = 80  # of a setting: telling whether it is a number takes time that grows with the length's square
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
# What is worth knowing of the instrument, by the names that versions of the software use.
_SETTINGS = {
    "bias_V": ("Bias>Bias (V)", "BIAS"),
    "setpoint": ("Z-Controller>Setpoint",),
    "setpoint_unit": ("Z-Controller>Setpoint unit",),
    "controller": ("Z-Controller>Controller name",),
    "controller_status": ("Z-Controller>Controller status",),
    "lock_in_amplitude": ("Lock-in>Amplitude",),
    "lock_in_frequency_Hz": ("Lock-in>Frequency (Hz)",),
    "x_m": ("X (m)",),
    "y_m": ("Y (m)",),
    "date": ("Start time", "Date", "Saved Date", "REC_DATE"),
}


def read_header(path: Path, end: bytes) -> tuple[str, int]:
    """Return the text before the tag ``end`` and where the tag ends, looking at the first 4 MiB only.

    Raises
    ------
    InputError
        When the tag is missing.
    """
    with path.open("rb") as file:
        head = file.read(_MOST)
    found = head.find(end)
    if found < 0:
        raise InputError(
            f"{path.name} is cut short or damaged: its header has no end ({end.decode('ascii').strip()} is missing)"
        )
    return _text(head[:found]), found + len(end)


def pairs(text: str, separator: str) -> dict[str, str]:
    """Split ``key<separator>value`` lines; of a repeated key (a comment may hold anything) the first counts."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, mark, value = line.partition(separator)
        if mark:
            found.setdefault(key.strip(), value.strip().strip('"'))
    return found


def sections(text: str) -> dict[str, str]:
    """Split ``:KEY:`` lines and what stands below each of them."""
    found: dict[str, str] = {}
    for part in re.split(r"^(?=:[^\n]*:\s*$)", text, flags=re.MULTILINE):
        title, _, body = part.partition("\n")
        title = title.strip()
        if title.startswith(":") and title.endswith(":"):
            found.setdefault(title[1:-1], body.strip("\r\n"))
    return found


def numbers(header: Mapping[str, str], key: str, count: int, source: str, *, whole: bool = False) -> list[float]:
    """Return exactly ``count`` finite numbers of one header entry.

    Parameters
    ----------
    header : mapping of str to str
        As `pairs` or `sections` split it.
    key : str
        Of the entry; the first 1000 characters of its text are read.
    count : int
    source : str
        What messages call the file.
    whole : bool
        Whether only positive whole numbers will do, at most 1e9.

    Returns
    -------
    list of float
        In the order of the text; what stands between them is passed over.

    Raises
    ------
    InputError
        When the entry is missing, holds fewer or more numbers, one that is not finite or, with ``whole``, one that is
        not positive and whole.
    """
    if key not in header:
        raise InputError(f"{source}: its header lacks {key!r}; is the file damaged?")
    found = [float(text) for text in _NUMBER.findall(header[key][:1000])]
    wrong = len(found) != count or not all(map(math.isfinite, found))
    if wrong or (whole and not all(value == int(value) and 1 <= value <= 1e9 for value in found)):
        what = "positive whole number" if whole else "number"
        raise InputError(
            f"{source}: its header says {key} = {header[key][:60]!r}; expected {count} {what}{'s' * (count > 1)}"
        )
    return found


def check_size(path: Path, expected: int, what: str) -> None:
    """Raise InputError unless the file has exactly the bytes that its header announces, ``what`` in words."""
    size = path.stat().st_size
    if size < expected:
        raise InputError(
            f"{path.name} is cut short, or its header is damaged: {size} bytes, but {what} take {expected}"
        )
    if size > expected:
        raise InputError(f"{path.name} has {size} bytes, but {what} take {expected}: its header is damaged")


def field_size(height: float, width: float, source: str) -> Extent | None:
    """Return (height, width) in nm of a field in m; None for a line or a point, one side of which is 0.

    Raises
    ------
    InputError
        For a size that is negative or beyond what `extent` takes.
    """
    return None if 0 in (height, width) else extent((1e9 * height, 1e9 * width), source)


def settings(header: Mapping[str, str]) -> dict[str, Any]:
    """Return set-point, lock-in and date as far as the header has them, numbers as float."""
    found: dict[str, Any] = {}
    for name, keys in _SETTINGS.items():
        text = next((header[key].strip() for key in keys if header.get(key, "").strip()), None)
        if text is not None:
            is_number = len(text) <= _LONGEST and _NUMBER.fullmatch(text)
            found[name] = float(text) if is_number else text[:_LONGEST]
    return found


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
