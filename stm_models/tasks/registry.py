"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from stm_models.errors import unknown
from stm_models.tasks.base import Task

__all__ = ["get", "names", "register"]

_MODULES = {
    "hubbard": "stm_models.tasks.hubbard.task:HubbardTask",
    "impurity": "stm_models.tasks.impurity.task:ImpurityTask",
}
_TASKS: dict[str, Task] = {}


def names() -> list[str]:
    """Names of all tasks, sorted."""
    return sorted({*_MODULES, *_TASKS})


def get(name: str) -> Task:
    """Return the task ``name``.

    Raises
    ------
    InputError
        For a name that is not registered; lists the choices.
    """
    if name not in _TASKS:
        if name not in _MODULES:
            raise unknown("task", name, names())
        module, _, kind = _MODULES[name].partition(":")
        register(cast(Callable[[], Task], getattr(import_module(module), kind))())
    return _TASKS[name]


def register(task: Task) -> None:
    """Add a task of one's own under its name."""
    _TASKS[task.name] = task
