"""Which runs of the table belong together: nested ones, repetitions of one training, runs that differ by seed alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tracking.rows import RunRow
from tracking.ui.values import network

__all__ = ["REPEATS", "Group", "alike", "nested"]

REPEATS = "repeats.kind"
"""Tag of a run whose nested runs are one training repeated: ``seeds`` or ``folds``."""
_ORIGIN = ("data.digest", "git.commit", "git.dirty", "mlflow.source.git.commit")


@dataclass(frozen=True)
class Group:
    """Runs of one training, each with its own seed.

    Attributes
    ----------
    run : RunRow
        The newest, after which they are called.
    members : sequence of RunRow
    """

    run: RunRow
    members: Sequence[RunRow]

    @property
    def key(self) -> str:
        """The members' ids, as addresses have them."""
        return "~".join(row.id for row in self.members)


def nested(rows: Iterable[RunRow]) -> dict[str | None, list[RunRow]]:
    """Return the runs below each run; below ``None`` those whose parent is not among ``rows``.

    And those that are, by what others wrote, below themselves.
    """
    rows = list(rows)
    parents = {row.id: row.parent for row in rows}
    children: dict[str | None, list[RunRow]] = {}
    for row in rows:
        top = row.parent not in parents or _below_itself(row.id, parents)
        children.setdefault(None if top else row.parent, []).append(row)
    return children


def _below_itself(run: str, parents: Mapping[str, str | None]) -> bool:
    passed: set[str] = set()
    one = parents[run]
    while one is not None and one in parents and one not in passed:
        if one == run:
            return True
        passed.add(one)
        one = parents[one]
    return False


def alike(rows: Sequence[RunRow]) -> list[Group | RunRow]:
    """Put runs together that have network, data, code and every parameter but seeds in common.

    They are in the order of the first of each.
    """
    found: dict[object, list[RunRow]] = {}
    for row in rows:
        found.setdefault(_recipe(row), []).append(row)
    return [Group(members[0], members) if len(members) > 1 else members[0] for members in found.values()]


def _recipe(row: RunRow) -> object:
    params = _without_seeds(row.params)
    if not params:
        return row.id
    origin = tuple(row.tags.get(name) for name in _ORIGIN)
    return row.experiment, network(row), origin, frozenset(params.items())


def _without_seeds(params: Mapping[str, str]) -> dict[str, str]:
    return {key: text for key, text in params.items() if key.rpartition(".")[2] not in ("seed", "random_state")}
