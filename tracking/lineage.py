"""Where a model comes from, and what was made from a data set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stm_models.data.store import open_finished
from stm_models.errors import InputError, unknown
from stm_models.files import sha256
from tracking import models, registry, rows
from tracking.addresses import REGISTERED
from tracking.registry import ModelVersionInfo
from tracking.rows import RunRow
from tracking.spool import PREFIX
from tracking.store import Store

__all__ = ["MEMBERS", "origin", "trace"]

MEMBERS = "ensemble.runs"
"""The tag with the ids of the runs that an ensemble is made of, separated by commas."""

_FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID, a run's id, FILE.onnx, DATA.zarr or a data set's digest"
_SHORTEST = 8  # digits of a digest
_TAGS = (
    "network", "git.commit", "git.dirty", "data.digest", "data.recipe", "data.simulator_version", "data.path",
    "training.recipe", MEMBERS,
)  # fmt: skip


def trace(store: Store, what: str) -> dict[str, Any]:
    """Follow a model, a run or a data set both ways.

    Parameters
    ----------
    what : str
        ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/ID`` or the id alone (``spool_…`` too), an ``.onnx``
        file (by its SHA-256), a data set, or eight digits or more of a data set's digest.

    Returns
    -------
    dict
        ``kind`` (version, run or data); ``origin``: what it was made from, see `origin` (of a data set its digest);
        ``descendants``: runs with their versions and evaluations, of a data set those trained on it, of a run itself
        and the ensembles that it is a member of.

    Raises
    ------
    InputError
        When it names nothing that the store knows.
    """
    path = Path(what)
    if what.endswith(".onnx"):
        return _version(store, _by_sha256(store, path))
    if match := REGISTERED.fullmatch(what):
        return _version(store, models.version(store, match[1], match[2]))
    if path.is_dir():
        return _data(store, str(open_finished(path).attrs["digest"]), rows.find(store))
    name = re.sub(r"^runs:/+", "", what)
    if name.startswith(PREFIX):
        name = rows.get(store, name).id
    row = _run(store, name) if re.fullmatch(r"[0-9a-f]{32}", name) else None
    if row is not None:
        every = rows.find(store)
        joined = [each for each in every if row.id in each.tags.get(MEMBERS, "").split(",")]
        return {"kind": "run", "origin": _of_run(row), "descendants": _made(store, [row, *joined], every)}
    if re.fullmatch(rf"[0-9a-f]{{{_SHORTEST},64}}", name):
        every = rows.find(store)
        known = {row.tags["data.digest"] for row in every if "data.digest" in row.tags}
        fitting = sorted(digest for digest in known if digest.startswith(name))
        if len(fitting) == 1:
            return _data(store, fitting[0], every)
        raise unknown("digest of a data set that a run used", name, fitting or sorted(known))
    raise InputError(f"cannot trace {what!r}: expected {_FORMS}")


def origin(store: Store, version: ModelVersionInfo) -> dict[str, Any]:
    """Return what a version was made from: aliases, run, network, code, data set and simulator."""
    return {
        "model": version.name, "version": version.version, "aliases": list(version.aliases),
        "sha256": version.sha256, **_of_run(rows.get(store, version.run_id)),
    }  # fmt: skip


def _run(store: Store, run_id: str) -> RunRow | None:
    try:
        return rows.get(store, run_id)
    except InputError:
        return None


def _data(store: Store, digest: str, every: Sequence[RunRow]) -> dict[str, Any]:
    """Return every run that was trained on the data set with a digest."""
    made = [row for row in every if row.tags.get("data.digest") == digest and "network" in row.tags]
    return {"kind": "data", "origin": {"data.digest": digest}, "descendants": _made(store, made, every)}


def _version(store: Store, version: ModelVersionInfo) -> dict[str, Any]:
    row = rows.get(store, version.run_id)
    return {
        "kind": "version", "origin": origin(store, version), "descendants": _made(store, [row], rows.find(store)),
    }  # fmt: skip


def _of_run(row: RunRow) -> dict[str, Any]:
    seeds = {key: value for key, value in row.tags.items() if key.startswith("seed.")}
    found = {tag: row.tags[tag] for tag in _TAGS if tag in row.tags}
    return {"run": row.id, "name": row.name, "outcome": row.outcome, "started": row.start.isoformat(), **found, **seeds}


def _made(store: Store, made: Sequence[RunRow], every: Sequence[RunRow]) -> list[dict[str, Any]]:
    """Return runs with the versions registered from them and the evaluations, among all runs, of their models."""
    evaluations: dict[str, list[str]] = {}
    for row in every:
        evaluations.setdefault(row.tags.get("evaluated.run", ""), []).append(row.id)
    versions: dict[str, list[dict[str, Any]]] = {}
    for one in _versions(store):
        described = {"model": one.name, "version": one.version, "aliases": list(one.aliases)}
        versions.setdefault(one.run_id, []).append(described)
    return [
        {"run": row.id, "name": row.name, "network": row.tags.get("network"), "outcome": row.outcome,
         "versions": versions.get(row.id, []), "evaluations": evaluations.get(row.id, [])}
        for row in made
    ]  # fmt: skip


def _versions(store: Store) -> list[ModelVersionInfo]:
    return [one for name in registry.names(store) for one in models.versions(store, name)]


def _by_sha256(store: Store, path: Path) -> ModelVersionInfo:
    if not path.is_file():
        raise InputError(f"the model file {path} does not exist: expected {_FORMS}")
    wanted = sha256(path)
    found = [version for version in _versions(store) if version.sha256 == wanted]
    if found:
        return min(found, key=lambda version: version.version)  # the first that was registered with it
    raise InputError(f"no registered version has the file {path} (SHA-256 {wanted[:12]}): it was made elsewhere")
