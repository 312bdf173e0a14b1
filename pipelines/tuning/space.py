"""What a search may choose: the network where there are several, its options, and the task's training parameters.

Parameters are named ``network``, ``train.KEY`` and ``NETWORK.OPTION``; options are those of the chosen network alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from pipelines.settings import Settings
from stm_models.config import validate
from stm_models.networks import registry
from stm_models.search import Choice, Range, Space
from stm_models.training.config import TrainConfig
from tracking.study import suggest

__all__ = ["SearchSpace"]

_NETWORK, _TRAIN = "network", "train"


@dataclass(frozen=True)
class SearchSpace:
    """The space of one search.

    Attributes
    ----------
    networks : tuple of str
        One, or those to choose from.
    train : Space
        Training parameters by name, of one network or more.
    options : mapping of str to Space
        Options by name, for each network.
    fixed : mapping of str to set of str
        Keys that are given for each network, and so not chosen.
    """

    networks: tuple[str, ...]
    train: Space
    options: Mapping[str, Space]
    fixed: Mapping[str, Set[str]]

    @classmethod
    def of(cls, chosen: Settings) -> SearchSpace:
        """Return the space of a configuration; what was given beside the preset is not searched.

        Raises
        ------
        InputError
            For an unknown network, or an option that it does not have.
        """
        networks = chosen.tune.networks or (chosen.train.network,)
        for network in networks:
            registry.check(network, chosen.training_of(network).options)
        fixed = {network: chosen.recipes.fixed(network) for network in networks}
        train = {
            key: own for key, own in chosen.task.search_space().items() if any(key not in one for one in fixed.values())
        }
        options = {
            network: {key: own for key, own in registry.space(network).items() if f"options.{key}" not in given}
            for network, given in fixed.items()
        }
        return cls(networks, train, options, fixed)

    def training(self, network: str) -> Space:
        """Return the training parameters that are chosen for ``network``."""
        return {key: entry for key, entry in self.train.items() if key not in self.fixed[network]}

    def config(self, trial: Any, chosen: Settings) -> TrainConfig:
        """Draw the training parameters of ``trial``; what is not searched stays as ``chosen`` has it."""
        network = self.networks[0]
        if len(self.networks) > 1:
            network = suggest(trial, {_NETWORK: Choice(self.networks)})[_NETWORK]
        values = suggest(trial, self.training(network), _TRAIN)
        options = suggest(trial, self.options[network], network)
        own = chosen.training_of(network)
        changed = {
            **values, "network": network, "options": {**own.options, **options},
            "epochs": min(chosen.tune.epochs, own.epochs),
            "seed": own.seed if "seed" in self.fixed[network] else chosen.tune.seed,
        }  # fmt: skip
        return validate(TrainConfig, {**own.model_dump(), **changed}, "trial")

    def usual(self, chosen: Settings) -> dict[str, Any]:
        """Return the parameters of a trial that is as the configuration has it, as far as this space holds them."""
        network = chosen.train.network if chosen.train.network in self.networks else self.networks[0]
        own = chosen.training_of(network)
        options = registry.default_options(network) | own.options
        values = {f"{_TRAIN}.{key}": getattr(own, key) for key in self.training(network)}
        values |= {f"{network}.{key}": _plain(options[key]) for key in self.options[network]}
        return self.fitting(values, network)[0]

    def fitting(self, params: Mapping[str, Any], network: str) -> tuple[dict[str, Any], list[str]]:
        """Return what of an earlier trial of ``network`` this space can hold, and the names of the rest.

        Both are empty when the network itself cannot be chosen, but for the training parameters where there is no
        choice.
        """
        if len(self.networks) > 1 and network not in self.networks:
            return {}, sorted(params)
        training = self.training(network if network in self.networks else self.networks[0])
        entries: dict[str, Range | Choice] = {f"{_TRAIN}.{key}": entry for key, entry in training.items()}
        entries |= {f"{network}.{key}": entry for key, entry in self.options.get(network, {}).items()}
        kept = {name: value for name, value in params.items() if name in entries and _holds(entries[name], value)}
        left = sorted(set(params) - set(kept) - {_NETWORK})
        return {**({_NETWORK: network} if len(self.networks) > 1 else {}), **kept}, left


def _plain(option: Any) -> Any:
    """Return an option as a space lists it, several numbers as text."""
    return "-".join(map(str, option)) if isinstance(option, list | tuple) else option


def _holds(entry: Range | Choice, value: Any) -> bool:
    if isinstance(entry, Choice):
        return value in entry.values
    return isinstance(value, int | float) and entry.low <= value <= entry.high
