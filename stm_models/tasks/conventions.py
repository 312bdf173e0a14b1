"""What a file convention of other people's code is: reading a folder of theirs, and writing one for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from stm_models.config import Config
from stm_models.tasks.plan import Group, GroupResult, Plan

__all__ = ["Convention", "Exporter", "Survey", "Watch"]

Item = TypeVar("Item")
Watch = Callable[[Sequence[Any], str], Iterable[Any]]
"""Goes through a sequence and reports how far it is; the text says what is done, e.g. ``"check"``."""


@dataclass(frozen=True)
class Survey:
    """A folder that was looked through once, before anything is written.

    Attributes
    ----------
    plan : Plan
        One group per file; `Group.state` says which files show one simulated state.
    read : callable
        Makes one group from its file.
    identity : mapping
        JSON-able; everything that decides the data set's values: convention, contents, labels, parameters.
    warnings : tuple of str
        What the user must be told.
    """

    plan: Plan
    read: Callable[[Group], GroupResult]
    identity: Mapping[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exporter:
    """How the samples of one data set are written.

    Attributes
    ----------
    arrays : tuple of str
        Arrays of the data set that are needed.
    file : callable
        Takes a sample (its coordinates and arrays by name, ``group`` and ``draw`` among them); returns the name and
        the contents of its file.
    facts : callable
        Takes a sample; returns its columns of the manifest.
    """

    arrays: tuple[str, ...]
    file: Callable[[Mapping[str, Any]], tuple[str, bytes]]
    facts: Callable[[Mapping[str, Any]], Mapping[str, Any]]


class Convention(ABC):
    """Base of every convention that a task can read and write."""

    title: ClassVar[str]
    import_options: ClassVar[type[Config]]
    export_options: ClassVar[type[Config]]

    @abstractmethod
    def survey(self, folder: Path, options: Any, watch: Watch) -> Survey:
        """Look through ``folder`` once: names, labels, contents.

        Raises
        ------
        InputError
            For a folder or a file that cannot be used.
        """

    @abstractmethod
    def exporter(self, attributes: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], options: Any) -> Exporter:
        """Prepare writing a data set with these root attributes and arrays (name to shape).

        Raises
        ------
        InputError
            When the data set has not what the convention needs.
        """
