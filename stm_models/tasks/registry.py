"""The tasks by name: ours, and those of other installed distributions (entry points ``stm_lab.tasks``)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from stm_models import plugins
from stm_models.errors import InputError, unknown
from stm_models.tasks.base import Task

__all__ = ["get", "names", "register"]

_MODULES = {
    "hubbard": "stm_models.tasks.hubbard.task:HubbardTask",
    "impurity": "stm_models.tasks.impurity.task:ImpurityTask",
}
_TASKS: dict[str, Task] = {}


def names() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted({*_MODULES, *_TASKS, *plugins.names(plugins.TASKS)})


def get(name: str) -> Task:
    """Return the task ``name``.

    Raises
    ------
    InputError
        For a name that is not registered (lists the choices), or another distribution's task that cannot be had.
    """
    if name not in _TASKS:
        if name in _MODULES:
            module, _, kind = _MODULES[name].partition(":")
            register(cast(Callable[[], Task], getattr(import_module(module), kind))())
        elif name in plugins.names(plugins.TASKS):
            register(_installed(name))
        else:
            raise unknown("task", name, names())
    return _TASKS[name]


def register(task: Task) -> None:
    """Add a task of one's own under its name."""
    _TASKS[task.name] = task


def _installed(name: str) -> Task:
    task: Task = plugins.load(plugins.TASKS, name, Task)()
    if task.name != name:
        raise InputError(f"the task offered as {name!r} calls itself {task.name!r}: expected one name in both places")
    return task
