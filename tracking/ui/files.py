"""A run's files, as far as the page shows them or hands them out."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from stm_models.unfinished import scratch
from tracking.backend import MlflowException
from tracking.rows import download, entries
from tracking.store import Store

__all__ = ["fetch", "is_picture", "listing"]

_MEDIA = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
    ".webp": "image/webp",
}  # fmt: skip
_MOST = 500  # files listed
_LARGEST = 20 * 2**20  # bytes of a picture
_DOWNLOADED = 200 * 2**20  # bytes of a file


def is_picture(path: str) -> bool:
    """Tell whether a file is shown; SVG is not, since it may hold scripts."""
    return PurePosixPath(path).suffix.lower() in _MEDIA


def listing(store: Store, run_id: str) -> list[tuple[str, int]]:
    """Return path and size in bytes of a run's files, the first 500."""
    files: list[tuple[str, int]] = []
    folders = [""]
    while folders and len(files) < _MOST:
        for entry in entries(store, run_id, folders.pop(0) or None):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                files.append((entry.path, int(entry.file_size or 0)))
    return sorted(files)[:_MOST]


def fetch(store: Store, run_id: str, name: str, *, whole: bool = False) -> tuple[bytes, str] | None:
    """Return a file of a run and its media type; ``None`` unless mlflow lists exactly this name.

    Parameters
    ----------
    whole : bool
        Whether any file may be asked for, to be downloaded; else pictures alone.
    """
    path = PurePosixPath(name)
    media = "application/octet-stream" if whole else _MEDIA.get(path.suffix.lower())
    if media is None or path.is_absolute() or str(path) != name or not {"..", "."}.isdisjoint(path.parts):
        return None
    parent = str(path.parent) if path.parent.name else None
    try:
        known = {entry.path: entry for entry in entries(store, run_id, parent)}
    except MlflowException:
        return None
    entry = known.get(name)
    if entry is None or entry.is_dir or int(entry.file_size or 0) > (_DOWNLOADED if whole else _LARGEST):
        return None
    with scratch() as folder:
        return Path(download(store, run_id, name, folder)).read_bytes(), media
