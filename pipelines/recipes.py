"""The training values of a configuration, network by network: what suits one may cost another days."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stm_models.config import merge, validate
from stm_models.errors import InputError
from stm_models.training.config import TrainConfig
from tracking.values import flatten

__all__ = ["SECTION", "Recipes"]

SECTION = "networks"
"""Of a preset or file: training values by network, laid over its section ``train``."""
_SHARED = ("targets", "threads", "device")
"""What a training has in common with the others that it is compared with."""
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Recipes:
    """What is said about trainings; the rest is as `TrainConfig` has it.

    Attributes
    ----------
    network : str
        The one that is trained, whose options are among ``given``.
    common : mapping
        The preset's, whatever the network.
    own : mapping of str to mapping
        What single networks have in place of some of these.
    said : mapping of str to mapping
        What of ``own`` is a file's, not the preset's.
    given : mapping
        What is laid over all of it.
    """

    network: str = ""
    common: Values = field(default_factory=dict)
    own: Mapping[str, Values] = field(default_factory=dict)
    said: Mapping[str, Values] = field(default_factory=dict)
    given: Values = field(default_factory=dict)

    @classmethod
    def read(cls, preset: Values, file: Values, given: Values, default: str) -> Recipes:
        """Take the trainings out of the sections of a preset, a file, and of what is laid over both.

        Raises
        ------
        InputError
            For an unknown network that a file has values for, an unknown key, one that is none of a single network's,
            or an impossible value.
        """
        usual = _network_of(preset) or default
        network = _network_of(given) or usual
        train = dict(_section(preset, "train"))
        own = merge({usual: {"options": train.pop("options", {})}}, _section(preset, SECTION))
        said = _section(file, SECTION)
        for name in said:
            from stm_models.networks import registry

            registry.check(name, {})
        for source in (_section(preset, SECTION), said):
            for name, values in source.items():
                _check_own(name, values)
        found = cls(network, train, merge(own, said), said, _section(given, "train"))
        for name in found.own:
            validate(TrainConfig, {**found.common, **found.own[name], "network": name}, f"{SECTION}.{name}")
        return found

    def of(self, network: str) -> dict[str, Any]:
        """Return what is said about trainings of ``network``."""
        values: Values = {"train": {}}
        for layer in (self.common, self.own.get(network, {}), self._given(network)):
            values = merge(values, {"train": layer})
        return {**values["train"], "network": network}

    def fixed(self, network: str) -> set[str]:
        """Return the keys that a file or an assignment gives trainings of ``network``; options are ``options.KEY``."""
        layers = (self.said.get(network, {}), self._given(network))
        return {key for layer in layers for key, _ in flatten(layer)}

    def _given(self, network: str) -> Values:
        """Return what is laid over trainings of ``network``: options are one network's."""
        return {key: value for key, value in self.given.items() if network == self.network or key != "options"}


def _check_own(name: str, values: Any) -> None:
    """Refuse what is no values of the one network ``name``."""
    if not isinstance(values, Mapping):
        raise InputError(f"{SECTION}.{name} is {values!r}: expected keys of section 'train' below it")
    if (other := values.get("network", name)) != name:
        raise InputError(f"{SECTION}.{name}.network is {other!r}: values of another network go below {SECTION}.{other}")
    if shared := sorted(values.keys() & _SHARED):
        raise InputError(f"{SECTION}.{name}.{shared[0]}: all networks share it, so it goes into section 'train'")


def _network_of(values: Values) -> Any:
    """Return the network that section ``train`` names, if any."""
    return _section(values, "train").get("network")


def _section(values: Values, name: str) -> Values:
    """Return a section; one that is no mapping is refused with the others, elsewhere."""
    found = values.get(name)
    return found if isinstance(found, Mapping) else {}
