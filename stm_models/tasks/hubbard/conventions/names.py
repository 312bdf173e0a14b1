"""File names that carry the label: reading theirs, writing ours so that their code finds the right U."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from stm_models.errors import InputError
from stm_models.tasks.plan import Variable

__all__ = ["EXPECTED", "FIELDS", "Named", "file_stem", "parse"]

LDOS_LABEL = re.compile(r"LDOS-Mu-I.*-U([0-9.]+)-.*")
ANY_LABEL = re.compile(r"U(\d+\.\d+)")
"""The two patterns by which the public code to arXiv 2602.18890 finds U in a name; its dot stands for any character."""

EXPECTED = "LDOS-Mu-I5-d2.74-eps10-nu+0.12-U3.00000-s0-n0"

FIELDS: dict[str, Variable] = {
    "I": Variable("index", "1", "commensurate index I of the pair (I, I+1)"),
    "d": Variable("layer_distance", "Å", "distance of the layers"),
    "eps": Variable("dielectric", "1", "dielectric constant"),
    "nu": Variable("filling", "electrons per moiré cell", "filling beyond charge neutrality"),
    "s": Variable("seed", "1", "number s of the file name: simulated state or seed"),
}
"""What else a name may say, by the letters before the number."""

_FIELD = re.compile(r"-(I|d|eps|nu|s|n)([+-]?\d+(?:\.\d+)?)(?=-|$)")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_OTHER_UNIT = re.compile(r"(?!eV(?![^\W\d_]))([ _-]?[mkMµμ]eV|[^\W\d_]+([+-]?\d+)?)")
"""What may not follow a label: a unit that is not eV, an exponent, or a word."""


@dataclass(frozen=True)
class Named:
    """What a file name says.

    Attributes
    ----------
    U : float or None
        Hubbard interaction in eV.
    fields : dict of str to float
        Values by the names of `FIELDS`.
    state : str
        The same for all draws of one simulated state: the stem without their number; all of it where the name says
        neither label nor state, as files of any states may be numbered so.
    """

    U: float | None
    fields: dict[str, float]
    state: str


def parse(name: str) -> Named:
    """Read a file name.

    Raises
    ------
    InputError
        When the patterns find different labels, or one that an exponent or a unit other than eV follows.

    Examples
    --------
    >>> parse("LDOS-Mu-I5-d2.74-eps10-nu-0.12-U3.00000-s7-n2.dat")
    Named(U=3.0, fields={'index': 5.0, 'layer_distance': 2.74, 'dielectric': 10.0, 'filling': -0.12, 'seed': 7.0}, \
state='LDOS-Mu-I5-d2.74-eps10-nu-0.12-U3.00000-s7')
    """
    suffix = PurePath(name).suffix
    stem = name.removesuffix(suffix) if suffix.lower() in (".dat", ".txt", ".png") else name
    found = [match for pattern in (LDOS_LABEL, ANY_LABEL) for match in pattern.finditer(stem)]
    labels = {float(match[1]) for match in found if _NUMBER.fullmatch(match[1])}
    way_out = f"rename it, e.g. {EXPECTED}, or give a manifest.csv with columns file,U"
    if len(labels) > 1:
        count = "two" if len(labels) == 2 else len(labels)
        raise InputError(
            f"{name} holds {count} labels, U = {' and '.join(f'{u:g}' for u in sorted(labels))}: {way_out}"
        )
    for match in found:
        if other := _OTHER_UNIT.match(stem, match.end(1)):
            raise InputError(f"{name} holds U = {match[1]}{other[0]}, expected a plain number of eV: {way_out}")
    numbers = dict(_FIELD.findall(stem))
    state = re.sub(r"-n\d+(?=-|$)", "", stem) if labels or "s" in numbers else stem
    fields = {variable.name: float(numbers[key]) for key, variable in FIELDS.items() if key in numbers}
    return Named(labels.pop() if labels else None, fields, state)


def file_stem(interaction: float, known: Mapping[str, float | None], state: int, draw: int) -> str:
    """Return the name of one sample's file, without its suffix; both patterns find U in it.

    Parameters
    ----------
    interaction : float
        U in eV; the name keeps five decimals.
    known : mapping
        ``index``, ``layer_distance`` (Å), ``dielectric`` (None: no Coulomb interaction) and ``filling``, as far as
        they are known.
    state, draw : int
        Number of the simulated state, and of the image among those of the state.

    Examples
    --------
    >>> file_stem(3, {"index": 5, "layer_distance": 2.74, "dielectric": 10.0, "filling": 0.1234}, 7, 2)
    'LDOS-Mu-I5-d2.74-eps10-nu+0.12-U3.00000-s7-n2'
    """
    parts = [f"LDOS-Mu-I{known['index']:.0f}" if "index" in known else "LDOS-Mu-Iunknown"]
    if "layer_distance" in known:
        parts.append(f"d{known['layer_distance']:.2f}")
    if "dielectric" in known:
        parts.append("epsinf" if known["dielectric"] is None else f"eps{known['dielectric']:.6g}")
    if "filling" in known:
        parts.append(f"nu{known['filling']:+.2f}")
    return "-".join([*parts, f"U{interaction:.5f}", f"s{state}", f"n{draw}"])
