"""A run's files, as far as the page shows them."""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath

from tracking.backend import MlflowException
from tracking.rows import download
from tracking.store import Store

__all__ = ["MEDIA", "listing", "picture"]

MEDIA = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
    ".webp": "image/webp",
}  # fmt: skip
_MOST = 500  # files listed
_LARGEST = 20 * 2**20  # bytes of a picture


def listing(store: Store, run_id: str) -> list[tuple[str, int]]:
    """Return path and size in bytes of a run's files, the first 500."""
    files: list[tuple[str, int]] = []
    folders = [""]
    while folders and len(files) < _MOST:
        for entry in store.client.list_artifacts(run_id, folders.pop(0) or None):
            if entry.is_dir:
                folders.append(entry.path)
            else:
                files.append((entry.path, int(entry.file_size or 0)))
    return sorted(files)[:_MOST]


def picture(store: Store, run_id: str, name: str) -> tuple[bytes, str] | None:
    """Return a picture of a run and its media type; ``None`` unless mlflow lists exactly this name."""
    path = PurePosixPath(name)
    media = MEDIA.get(path.suffix.lower())
    if media is None or path.is_absolute() or str(path) != name or not {"..", "."}.isdisjoint(path.parts):
        return None
    parent = str(path.parent) if path.parent.name else None
    try:
        entries = {entry.path: entry for entry in store.client.list_artifacts(run_id, parent)}
    except MlflowException:
        return None
    entry = entries.get(name)
    if entry is None or entry.is_dir or int(entry.file_size or 0) > _LARGEST:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Path(download(store, run_id, name, folder)).read_bytes(), media
