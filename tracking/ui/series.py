"""What is compared: a run by itself, or the runs of one training with several seeds as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stm_models.errors import InputError
from tracking.rows import RunRow
from tracking.ui.grouping import REPEATS
from tracking.ui.site import Site
from tracking.ui.text import clip

__all__ = ["Series", "evaluations", "read"]

MOST = 24
"""So many series can be told apart."""


@dataclass(frozen=True)
class Series:
    """One colour of the comparison.

    Attributes
    ----------
    key : str
        As addresses have it: a run's id, or ids with ``~`` between them.
    label : str
    run : RunRow
        What it is called after.
    members : sequence of RunRow
        The runs whose numbers count; several where seeds differ.
    number : int
        Of the colour.
    """

    key: str
    label: str
    run: RunRow
    members: Sequence[RunRow]
    number: int


def read(site: Site, asked: Sequence[str]) -> list[Series]:
    """Return the series that an address asks for: ``runs=a,b`` or ``runs=a&runs=b``, ``a~b`` for seeds of one.

    A run whose nested runs are repetitions stands for these.

    Raises
    ------
    InputError
        When a run does not exist, or there are too many.
    """
    keys = list(dict.fromkeys(key for text in asked for key in text.split(",") if key))
    if len(keys) > MOST:
        raise InputError(f"{len(keys)} runs are too many to tell apart: choose at most {MOST}")
    site.runs([one for key in keys for one in key.split("~")])
    rows = site.reader.read().rows
    known = {row.id: row for row in rows}
    found: list[Series] = []
    for number, key in enumerate(keys):
        members = [known[one] for one in key.split("~")]
        if len(members) == 1 and REPEATS in members[0].tags:
            own = members[0]
            members = [row for row in rows if row.parent == own.id] or members
        else:
            own = members[0]
        kind = clip(own.tags.get(REPEATS, "seeds"), 20)
        about = f" ({len(members)} {kind})" if len(members) > 1 else ""
        found.append(Series(key, f"{clip(own.name, 60)}{about}", own, members, number))
    return _told_apart(found)


def evaluations(site: Site, run_id: str) -> list[RunRow]:
    """Return the evaluations of a run's model, the newest first."""
    return [row for row in site.reader.read().rows if row.tags.get("evaluated.run") == run_id]


def _told_apart(found: list[Series]) -> list[Series]:
    labels = [one.label for one in found]
    return [
        one if labels.count(one.label) == 1 else Series(
            one.key, f"{one.label} · {one.run.id[:6]}", one.run, one.members, one.number
        )
        for one in found
    ]  # fmt: skip
