"""Which of an instrument file's signals is dI/dV, and how to ask for another.

The order of preference, and what the signals are called, were found on real files of several Nanonis versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data.readers.measurement import Wanted
from stm_models.errors import InputError, unknown

__all__ = ["DERIVATIVE", "PREFERRED", "Choice", "choose", "derivative", "means_didv", "no_names", "split_unit"]

PREFERRED = ("LI Demod 1 X", "LIX 1", "LI X 1", "LIR 1", "LI R 1", "LockinX")
"""Lock-in signals that are proportional to dI/dV, best first."""
DERIVATIVE = "dI/dV"
"""Name of the numerical derivative of the current, a signal that no file holds."""
_UNIT = re.compile(r"(?P<base>.*?)\s*\((?P<unit>[^()]*)\)\s*(?P<tag>\[.*\])?")
_LONGEST = 200  # of a name with a unit: the time that looking for one takes grows with the length's square


@dataclass(frozen=True)
class Choice:
    """A signal's place in the file, its name and unit, and why it was taken; ``derived`` takes its slope over bias."""

    index: int
    name: str
    unit: str | None
    reason: str
    derived: bool = False


def split_unit(name: str) -> tuple[str, str | None]:
    """Split ``"LI Demod 1 X [AVG] (A)"`` into name and unit; of more than 200 characters, no unit is looked for.

    >>> split_unit("LI Demod 1 X (A) [filt]")
    ('LI Demod 1 X [filt]', 'A')
    >>> split_unit("counter")
    ('counter', None)
    """
    found = _UNIT.fullmatch(name) if len(name) <= _LONGEST else None
    if found is None:
        return name.strip(), None
    tag = found["tag"]
    return f"{found['base']} {tag}" if tag else found["base"], found["unit"]


def choose(names: Sequence[str], wanted: str | int | None, source: str, *, sweeps: bool = True) -> Choice:
    """Choose a signal: the one asked for, or what is nearest to dI/dV.

    Parameters
    ----------
    names : sequence of str
        With units in brackets, as the file lists them.
    wanted : str or int, optional
        A name, with or without unit, `DERIVATIVE`, or a place in ``names``.
    source : str
        Of the file, for errors.
    sweeps : bool
        Whether every signal was recorded over bias, so that the current has a slope; else the height stands in.

    Raises
    ------
    InputError
        For a signal that is not there, or when none tells dI/dV.
    """
    split = [split_unit(name) for name in names]
    bases = [_plain(base) for base, _ in split]
    if isinstance(wanted, int):
        if not 0 <= wanted < len(names):
            raise InputError(f"{source}: signal {wanted} does not exist; choose 0 to {len(names) - 1}")
        return Choice(wanted, *split[wanted], "asked for by number")
    current = _first(bases, "Current")
    if wanted is not None:
        if sweeps and current is not None and _plain(wanted) in (_plain(DERIVATIVE), f"{_plain(DERIVATIVE)} (s)"):
            return _slope(current, split, "asked for by name")
        exact = [index for index, name in enumerate(names) if _plain(wanted) in (_plain(name), bases[index])]
        if not exact:
            raise unknown(f"channel of {source}", wanted, [*names, *([DERIVATIVE] if current is not None else [])])
        return Choice(exact[0], *split[exact[0]], "asked for by name")
    for preferred in PREFERRED:
        index = _first(bases, preferred)
        if index is not None:
            return Choice(index, *split[index], "first of the lock-in signals that mean dI/dV")
    if not sweeps:
        index = next((i for i in (_first(bases, "Z"), current) if i is not None), 0)
        return Choice(index, *split[index], "no lock-in signal that means dI/dV: this is no map of dI/dV")
    if current is None:
        raise InputError(
            f"{source} has no lock-in signal that means dI/dV and no current, but {', '.join(names)}; "
            "choose one with --channel NAME"
        )
    return _slope(current, split, "no lock-in signal that means dI/dV: numerical derivative of the current")


def derivative(current: NDArray[Any], bias: NDArray[Any], source: str) -> NDArray[np.float64]:
    """Return the slope of a current (..., bias) over bias (V) by second-order differences.

    Raises
    ------
    InputError
        Unless the bias values are at least two and strictly monotonic.
    """
    steps = np.diff(bias)
    if not len(steps) or not (np.all(steps > 0) or np.all(steps < 0)):
        raise InputError(
            f"{source}: the current has no slope over these {len(bias)} bias values; choose a signal with --channel"
        )
    slope: NDArray[np.float64] = np.gradient(np.asarray(current, np.float64), bias, axis=-1)
    return slope


def means_didv(name: str) -> bool:
    """Tell whether a signal's name promises values proportional to dI/dV.

    Examples
    --------
    >>> [means_didv(name) for name in ("LIX 1 omega [bwd]", "dI/dV from Current", "spectra lia", "Current", "LockinY")]
    [True, True, True, False, False]
    """
    plain = _plain(name)
    if _plain(DERIVATIVE) in plain or "lia" in plain.split():  # lia: RHK's lock-in
        return True
    return any(plain == lock_in or plain.startswith(f"{lock_in} ") for lock_in in map(_plain, PREFERRED))


def no_names(path: Path, wanted: Wanted) -> None:
    """Refuse a signal's name for a file whose maps have no names; raises InputError."""
    if isinstance(wanted.channel, str):
        raise InputError(
            f"{path.name} has no named signals, got channel {wanted.channel!r}; give the number of a map, from 0"
        )


def _slope(current: int, split: Sequence[tuple[str, str | None]], reason: str) -> Choice:
    base, unit = split[current]
    unit = None if unit is None else "S" if unit == "A" else f"{unit}/V"
    return Choice(current, f"{DERIVATIVE} from {base}", unit, reason, derived=True)


def _first(bases: Sequence[str], name: str) -> int | None:
    """Find a signal's forward, averaged record."""
    for accepted in (_plain(name), f"{_plain(name)} [avg]"):
        if accepted in bases:
            return bases.index(accepted)
    plain = [base.removesuffix(" [avg]") for base in bases]
    return next((i for i, base in enumerate(plain) if base.startswith(f"{_plain(name)} ") and "[" not in base), None)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
