"""What a store keeps as files: where it lies on this machine, or as a copy that the process removes at its end."""

from __future__ import annotations

import atexit
import functools
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stm_models.unfinished import scratch
from tracking.backend import append_to_uri_path, get_artifact_repository

__all__ = ["behind", "fetched", "lies_here"]


def behind(address: str, destination: str | None) -> str:
    """Return where the files of an ``mlflow-artifacts:`` address lie for the server that keeps them in ``destination``.

    Any other address, and one that leads out of there, stays as it is.
    """
    parts = urlsplit(address)
    if destination is None or parts.scheme != "mlflow-artifacts" or ".." in unquote(parts.path).split("/"):
        return address
    return str(append_to_uri_path(destination, parts.path.lstrip("/")))


def fetched(address: str, name: str, tracking_uri: str, folder: str | Path | None = None) -> Path:
    """Return the file or folder ``name`` below the artifact address ``address``.

    Parameters
    ----------
    folder : path, optional
        Where to copy it; else it is not copied when it lies on this machine, or goes to a temporary folder of
        this process. mlflow's own download leaves a folder behind for each call.

    Raises
    ------
    MlflowException, OSError
        When there is no such file, or it cannot be fetched.
    """
    repository = get_artifact_repository(address, tracking_uri=tracking_uri)
    if folder is None and not lies_here(address):
        folder = tempfile.mkdtemp(dir=_own())
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(repository.download_artifacts(name, None if folder is None else str(folder)))


def lies_here(address: str) -> bool:
    """Tell whether an artifact address is a folder of this machine."""
    return urlsplit(address).scheme in ("", "file")


@functools.cache
def _own() -> Path:
    until_the_end = ExitStack()
    atexit.register(until_the_end.close)
    return until_the_end.enter_context(scratch())
