"""What other installed distributions add to this one: entry points, imported when they are asked for."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stm_models.errors import InputError

__all__ = ["NETWORKS", "TASKS", "imported", "load", "names"]

TASKS, NETWORKS = "stm_lab.tasks", "stm_lab.networks"
"""Groups of entry points: ``NAME = "module:Class"``, of a `stm_models.tasks.base.Task` or a
`stm_models.networks.base.Network`."""


@cache
def names(group: str) -> frozenset[str]:
    """Return what is offered in a group of entry points; distributions are looked through once per process."""
    return frozenset(entry_points(group=group).names)


def load(group: str, name: str, kind: type[Any]) -> type[Any]:
    """Import the class that is offered as ``name``.

    Parameters
    ----------
    group, name : str
        One of `names` of the group.
    kind : type
        What the class must be derived from.

    Raises
    ------
    InputError
        When several distributions offer the name, or what is offered cannot be imported or is something else.
    """
    offered = tuple(entry_points(group=group, name=name))
    if len(offered) > 1:
        raise InputError(
            f"{name!r} of {group} is offered by {' and '.join(map(_whose, offered))}: uninstall all but one"
        )
    (point,) = offered
    return imported(point.value, kind, f"{name!r} of {group}, offered by {_whose(point)} as {point.value}")


def imported(value: str, kind: type[Any], what: str) -> type[Any]:
    """Import a class that is named as ``module:Class``.

    Parameters
    ----------
    value : str
    kind : type
        What the class must be derived from.
    what : str
        What it is, for people: the message of an error begins with it.

    Raises
    ------
    InputError
        When it cannot be imported or is something else.
    """
    try:
        found: Any = EntryPoint("", value, "").load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"{what}, cannot be imported ({error}): mend or uninstall it") from error
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise InputError(f"{what}, is {found!r}: expected a class derived from {kind.__module__}.{kind.__name__}")
    return found


def _whose(point: EntryPoint) -> str:
    return "an unnamed distribution" if point.dist is None else f"{point.dist.name} {point.dist.version}"
