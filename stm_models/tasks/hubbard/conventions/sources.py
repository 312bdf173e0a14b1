"""From a folder of labelled files to the plan of a data set: labels, simulated states, variables."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stm_models.errors import InputError
from stm_models.tasks.conventions import Watch
from stm_models.tasks.hubbard.conventions import manifest, names
from stm_models.tasks.hubbard.variables import PARAMETERS, SAMPLES, SCALARS
from stm_models.tasks.plan import ArraySpec, Group, Plan, Variable

__all__ = ["LARGEST_FOLDER", "VERSION", "Look", "Source", "collect", "identity", "lay_out", "unchanged"]

VERSION = "import-1"
"""Part of an imported data set's recipe: raised whenever the same files would give other numbers."""

LARGEST_FOLDER = 200_000
"""Files that one data set may be made of."""

NOTES = (
    "conventions of the public code to arXiv 2602.18890: LDOS at the chemical potential as text x y value in units of "
    "the lattice constant, label U (eV) in the file name",
    "its own images: k window 1.1 times the box of graphene's Bragg hexagon, |F| coloured with turbo, scaled to each "
    "picture's own range, 8 bits, read back as grey; its split is by image",
    "here one group is one simulated state: files that differ in the draw alone, and files of equal content and label",
)
_RESERVED = {
    *("U", "group", "chain", "sample", "state", "converged", "file_state", "image", "ldos", "point_x", "point_y"),
    *("group_digest", "group_result", "radius", "points", "channel", "x", "y", "point", "field", "word"),
}


@dataclass(frozen=True)
class Look:
    """What a first look into a file gives: a hash of the numbers in it, and of its bytes; what its reader needs."""

    content: str
    sha256: str
    shape: tuple[int, ...]
    radius: float | None = None


@dataclass(frozen=True)
class Source:
    """One file of a data set to be."""

    path: Path
    name: str
    look: Look
    U: float
    state: int
    values: Mapping[str, float]
    listed_radius: float | None
    chain: str | None


def collect(
    folder: Path, suffixes: Sequence[str], listed: str | None, look: Callable[[Path], Look], watch: Watch
) -> tuple[list[Source], list[str]]:
    """Find the files, their labels and their simulated states.

    Parameters
    ----------
    folder : Path
        Looked through with its sub-folders; hidden files are left out.
    suffixes : sequence of str
        Which files to take.
    listed : str, optional
        A manifest; else ``manifest.csv`` of the folder where there is one.
    look : callable
        Checks one file.
    watch : callable
        See `stm_models.tasks.conventions.Watch`.

    Returns
    -------
    sources : list of Source
        In the order of their names.
    warnings : list of str

    Raises
    ------
    InputError
        When there are no such files, too many, two of one name, one without a label, with two labels, or of which
        ``look`` says that it cannot be used.
    """
    paths, warnings = _find(folder, suffixes)
    table = folder / manifest.NAME
    rows = manifest.read(Path(listed) if listed else table) if listed or table.is_file() else {}
    _all_there(rows, {path.name for path in paths}, Path(listed) if listed else table)
    labelled = [_label(path, rows.get(path.name)) for path in paths]
    looks = [look(path) for path in watch(paths, "check")]
    keys = _merge([key for _, key, _ in labelled], [U for U, _, _ in labelled], looks)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    warnings += _same_content(paths, labelled, looks)
    _one_label_each(paths, keys, [U for U, _, _ in labelled])
    shared, dropped = _shared([values for _, _, values in labelled])
    warnings += [f"{', '.join(dropped)}: not known of every file, left out"] if dropped else []
    sources = []
    for path, (U, _, values), found, key in zip(paths, labelled, looks, keys, strict=True):
        kept = {name: values[name] for name in shared}
        row = rows.get(path.name)
        radius = row.radius if row else None
        chain = row.chain if row else None
        sources.append(Source(path, path.relative_to(folder).as_posix(), found, U, numbers[key], kept, radius, chain))
    return sources, warnings


def lay_out(
    sources: Sequence[Source],
    arrays: Mapping[str, ArraySpec],
    spec: Mapping[str, Any],
    origin: Mapping[str, Any],
    extra: Mapping[str, tuple[Variable, Sequence[float]]],
) -> Plan:
    """Make the plan: one group per file; chains are the manifest's, else one per simulated state.

    Parameters
    ----------
    arrays : mapping
        What reading one file gives.
    spec : mapping
        Attribute ``input``.
    origin : mapping
        Attribute ``source``; names and SHA-256 of the files are added.
    extra : mapping
        Further variables, one value per file.
    """
    named = {variable.name: variable for variable in (*names.FIELDS.values(), *PARAMETERS, *SAMPLES, *SCALARS)}
    variables = [
        named["U"],
        Variable("file_state", "1", "number of the simulated state that the file shows"),
        *(named.get(name, Variable(name, "1", f"column {name} of the manifest")) for name in sources[0].values),
        *(variable for variable, _ in extra.values()),
    ]
    chains: dict[str | int, list[Group]] = {}
    for index, source in enumerate(sources):
        known = {"U": source.U, "file_state": float(source.state), **source.values}
        known |= {name: float(values[index]) for name, (_, values) in extra.items()}
        chains.setdefault(source.chain or source.state, []).append(Group(index, known, {}, state=source.state))
    labels = [asdict(named.get(name, Variable(name, "1", ""))) for name in _label_like(sources)]
    return Plan(
        chains=tuple(tuple(chain) for chain in chains.values()),
        samples_per_group=1,
        arrays=arrays,
        state={},
        parameters=tuple(variables),
        samples=(),
        scalars=(Variable("converged", "1", "taken for granted: files do not say it"),),
        attributes={
            "simulator_version": VERSION,
            "input": dict(spec),
            "possible_targets": labels,
            "notes": list(NOTES),
            "source": {**origin, "files": {source.name: source.look.sha256 for source in sources}},
        },
    )


def identity(sources: Sequence[Source], convention: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the values of the data set: contents, labels, states, chains, options; no place of a file."""
    summary = hashlib.sha256()
    for source in sources:
        line = [source.name, source.look.sha256, source.U, source.state, source.listed_radius, dict(source.values)]
        line += [] if source.chain is None else [source.chain]
        summary.update(json.dumps(line, sort_keys=True, allow_nan=False).encode() + b"\n")
    return {"convention": convention, "options": dict(options), "files": len(sources), "sha256": summary.hexdigest()}


def unchanged(source: Source) -> bytes:
    """Return the bytes of a file that was looked at before.

    Raises
    ------
    InputError
        When they are others now, or the file is gone.
    """
    try:
        data = source.path.read_bytes()
    except FileNotFoundError:
        data = b""
    if hashlib.sha256(data).hexdigest() != source.look.sha256:
        raise InputError(f"{source.name} was changed while it was imported: run the command again")
    return data


def _find(folder: Path, suffixes: Sequence[str]) -> tuple[list[Path], list[str]]:
    wanted = " or ".join(suffixes)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: give a folder with {wanted} files")
    paths: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path == folder / manifest.NAME or not path.is_file():
            continue
        (paths if path.suffix.lower() in suffixes else others).append(path)
    if not paths:
        found = f"only other files, e.g. {others[0].name}" if others else "nothing"
        raise InputError(f"{folder} holds {found}: give a folder with {wanted} files, named like {names.EXPECTED}")
    if len(paths) > LARGEST_FOLDER:
        raise InputError(f"{folder} holds {len(paths)} {wanted} files, expected at most {LARGEST_FOLDER}: split it")
    twice = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if twice:
        places = ", ".join(str(path.relative_to(folder)) for path in paths if path.name == twice[0])
        raise InputError(f"{twice[0]} is there more than once ({places}): rename or delete the copies")
    return paths, [f"{len(others)} other files are left out, e.g. {others[0].name}"] if others else []


def _all_there(rows: Mapping[str, manifest.Row], there: set[str], path: Path) -> None:
    missing = [name for name in rows if name not in there]
    if missing:
        raise InputError(
            f"{path.name} lists {len(missing)} files that are not in the folder, first {missing[0]!r}: "
            "copy them there or delete their rows"
        )
    known = {name for row in rows.values() for name in row.values}
    if known & _RESERVED:
        raise InputError(
            f"{path.name} has the column {sorted(known & _RESERVED)[0]!r}, which data sets use themselves: rename it"
        )


def _label(path: Path, row: manifest.Row | None) -> tuple[float, str, dict[str, float]]:
    """Return U, a key of the simulated state, and what else is known of a file."""
    if row is None or row.U is None:
        named = names.parse(path.name)
    else:
        try:
            named = names.parse(path.name)
        except InputError:  # the manifest decides
            named = names.Named(None, {}, path.stem)
    U = named.U if row is None or row.U is None else row.U
    if U is None:
        raise InputError(
            f"{path.name} has no label: expected U and a number with a decimal point in the name, e.g. "
            f"{names.EXPECTED}{path.suffix}, or a manifest.csv with columns file,U"
        )
    if named.U is not None and abs(named.U - U) > 5.1e-6:
        raise InputError(f"{path.name}: the manifest says U = {U:g} eV, the name {named.U:g}: mend one of them")
    if U < 0:
        raise InputError(f"{path.name} has U = {U:g} eV, expected a repulsion of at least 0: mend the label")
    key = f"group {row.group}" if row is not None and row.group else f"name {named.state}"
    return U, key, {**named.fields, **(row.values if row else {})}


def _merge(keys: list[str], labels: list[float], looks: Sequence[Look]) -> list[str]:
    """Join states that share a file of equal content and label: a copy must not be on both sides of a split."""
    parent = {key: key for key in keys}

    def root(key: str) -> str:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    first: dict[tuple[str, float], str] = {}
    for key, U, found in zip(keys, labels, looks, strict=True):
        parent[root(key)] = root(first.setdefault((found.content, U), key))
    return [root(key) for key in keys]


def _one_label_each(paths: Sequence[Path], keys: Sequence[str], labels: Sequence[float]) -> None:
    seen: dict[str, tuple[float, Path]] = {}
    for path, key, U in zip(paths, keys, labels, strict=True):
        known, where = seen.setdefault(key, (U, path))
        if known != U:
            raise InputError(
                f"{where.name} (U = {known:g} eV) and {path.name} ({U:g} eV) are one group: "
                "a group is one simulated state, so give groups of different U different names"
            )


def _same_content(
    paths: Sequence[Path], labelled: Sequence[tuple[float, str, dict[str, float]]], looks: Sequence[Look]
) -> list[str]:
    seen: dict[str, tuple[float, Path]] = {}
    pairs = []
    for path, (U, _, _), found in zip(paths, labelled, looks, strict=True):
        known, where = seen.setdefault(found.content, (U, path))
        if known != U:
            pairs.append((where.name, known, path.name, U))
    if not pairs:
        return []
    one, low, two, high = pairs[0]
    return [
        f"{len(pairs)} files hold the numbers of another file with another label, first {two} (U = {high:g} eV) and "
        f"{one} ({low:g} eV): nothing can tell them apart"
    ]


def _label_like(files: Sequence[Source]) -> list[str]:
    """Name what is the same within each state and differs between states."""
    names_ = [name for name in files[0].values if name != "seed"]
    of_state: dict[int, Mapping[str, float]] = {}
    for source in files:
        first = of_state.setdefault(source.state, source.values)
        names_ = [name for name in names_ if source.values[name] == first[name]]
    return [name for name in names_ if len({values[name] for values in of_state.values()}) > 1]


def _shared(values: Sequence[dict[str, float]]) -> tuple[list[str], list[str]]:
    """Return the names known of every file, and those of some files only."""
    counts = Counter(name for known in values for name in known)
    return [n for n, c in counts.items() if c == len(values)], [n for n, c in counts.items() if c < len(values)]
