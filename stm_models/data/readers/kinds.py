"""Kinds of files: which suffix promises what, and what the first bytes say."""

from __future__ import annotations

from pathlib import Path

from stm_models.errors import InputError

__all__ = ["READABLE", "check_content", "readable"]

READABLE = {
    ".3ds": "Nanonis grid of spectra",
    ".sxm": "Nanonis scan",
    ".dat": "Nanonis point spectrum, or text with columns x y value in units of a",
    ".txt": "text with columns x y value in units of a",
    ".npy": "(y, x) or (channel, y, x)",
    ".npz": "data (bias, y, x), optional bias and size_nm",
    ".mat": "MATLAB 5 to 7.2, (y, x) or (y, x, bias)",
    ".png": "grey picture of 8 or 16 bits, uncalibrated",
    ".tif": "grey picture or stack of 8, 16 or 32 bits, uncalibrated",
    ".tiff": "as .tif",
    ".sm4": "RHK, with the package rhkpy",
}
"""Suffixes that `read` knows and what it expects in them."""

_MAGIC = (
    (b"\x93NUMPY", "NumPy array", ".npy"),
    (b"PK\x03\x04", "zip archive", ".npz"),
    (b"MATLAB ", "MATLAB file", ".mat"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file", None),
    (b"\x89PNG\r\n\x1a\n", "PNG picture", ".png"),
    (b"\xff\xd8\xff", "JPEG picture", None),
    (b"GIF8", "GIF picture", None),
    (b"%PDF", "PDF document", None),
    (b"\x1f\x8b", "gzip archive", None),
    (b"II*\x00", "TIFF picture", ".tif"),
    (b"MM\x00*", "TIFF picture", ".tif"),
    (b":NANONIS_VERSION:", "Nanonis scan", ".sxm"),
    (b"Grid dim=", "Nanonis grid", ".3ds"),
    (b"Experiment\t", "Nanonis spectrum", ".dat"),
    ("STiMage ".encode("utf-16-le"), "RHK file", ".sm4"),
)


def check_content(path: Path) -> None:
    """Refuse a file whose first bytes are another kind's than its suffix promises.

    Raises
    ------
    InputError
        Also for an unknown suffix and for HDF5 under ``.mat``.
    """
    suffix = path.suffix.lower()
    if suffix not in READABLE:
        raise InputError(f"cannot read {path.name}: kind {path.suffix or 'unknown'!r}; expected {readable()}")
    with path.open("rb") as file:
        head = file.read(64)
    for magic, what, usual in _MAGIC:
        # An RHK file starts with the length of its signature.
        if not head.startswith(magic) and not (usual == ".sm4" and head[2:].startswith(magic)):
            continue
        if suffix == ".mat" and magic.startswith(b"\x89HDF"):
            raise InputError(f"{path.name} is MATLAB 7.3 (HDF5); save it with -v7, or as .npz")
        if suffix != usual and not (suffix == ".tiff" and usual == ".tif"):
            way = f"rename it to {path.stem}{usual}" if usual else f"expected {readable()}"
            raise InputError(f"cannot read {path.name}: by its content it is a {what}; {way}")
        return


def readable() -> str:
    """List the kinds that can be read."""
    return "; ".join(f"{suffix} {what}" for suffix, what in READABLE.items())
