"""What a simulation will make: its groups, their variables and arrays, and what one group gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

__all__ = ["ArraySpec", "Group", "GroupResult", "Plan", "Simulator", "Variable"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Variable:
    """A named quantity with its unit (``"1"`` for none)."""

    name: str
    unit: str
    description: str


@dataclass(frozen=True)
class ArraySpec:
    """One array of a data set, without its leading sample (or group) axis.

    ``digits`` is the number of decimals that the content digest keeps.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    unit: str
    description: str
    digits: int = 5


@dataclass(frozen=True)
class Group:
    """One simulated state to be: its place in the data set and all that is known beforehand.

    Attributes
    ----------
    index : int
        Row on the data set's group axis.
    parameters : mapping of str to float
        Same value for every sample of the group (targets among them).
    samples : mapping of str to (samples_per_group,) float64
        Values that differ between the samples of the group.
    state : int or None
        Number of the simulated state where several groups show the same one; None: the group is a state.
    """

    index: int
    parameters: Mapping[str, float]
    samples: Mapping[str, Array]
    state: int | None = None


@dataclass(frozen=True)
class GroupResult:
    """What simulating one group gives: arrays per sample, its state, and scalars per group.

    ``state`` is what the next group of the chain starts from, kept at full precision; where structures differ
    in size it may be smaller than the plan's arrays, and comes back with zeros appended.
    ``scalars`` has ``converged`` (1.0 or 0.0) among others.
    """

    arrays: Mapping[str, Array]
    state: Mapping[str, Array]
    scalars: Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """The whole data set before a single group is simulated.

    Groups of one chain depend on their predecessors and run in order; chains are independent.
    """

    chains: tuple[tuple[Group, ...], ...]
    samples_per_group: int
    arrays: Mapping[str, ArraySpec]
    state: Mapping[str, ArraySpec]
    parameters: tuple[Variable, ...]
    samples: tuple[Variable, ...]
    scalars: tuple[Variable, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        """All groups by index."""
        return sorted((g for chain in self.chains for g in chain), key=lambda g: g.index)


Simulator = Callable[[Group, Mapping[str, Array] | None], GroupResult]
