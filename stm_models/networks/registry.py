"""Networks by name: ours, timm's, and those of other installed distributions (entry points ``stm_lab.networks``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from stm_models import plugins
from stm_models.config import validate
from stm_models.errors import InputError, unknown
from stm_models.networks import timm_backbone
from stm_models.networks.base import Network
from stm_models.networks.conv import Conv
from stm_models.networks.fieldnet import FieldNet
from stm_models.networks.lattice import Lattice
from stm_models.networks.linear import Linear
from stm_models.networks.mlp import MLP, FullyConnected
from stm_models.networks.resnet import RESNETS
from stm_models.networks.voltage_attention import VoltageAttention
from stm_models.search import Space

__all__ = [
    "check",
    "create",
    "default_options",
    "informed",
    "names",
    "published",
    "register",
    "space",
]

_START = ("pretrained", "weights")
_NETWORKS: dict[str, type[Network]] = {}
_FAMILIES: dict[str, Callable[[str], type[Network]]] = {timm_backbone.PREFIX: timm_backbone.network}


def register(name: str, network: type[Network]) -> None:
    """Make ``network`` available under ``name``.

    Raises
    ------
    InputError
        When another network has that name.
    """
    if _NETWORKS.get(name, network) is not network:
        raise InputError(f"network name {name!r} is taken by {_NETWORKS[name].__name__}: choose another one")
    _NETWORKS[name] = network


def names() -> list[str]:
    """Return the names of all networks but those of timm (``timm:NAME``), sorted."""
    return sorted({*_NETWORKS, *plugins.names(plugins.NETWORKS)})


def create(
    name: str,
    in_shape: tuple[int, int, int],
    outputs: int,
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    blank: bool = False,
) -> Network:
    """Build a network with weights drawn from ``seed``; the global random state is left as it was.

    Parameters
    ----------
    name : str
        One of `names`, or ``timm:NAME`` for any network of timm.
    in_shape : (channels, height, width)
        Shape of one image.
    outputs : int
        Number of targets.
    options : mapping, optional
        Overrides of `default_options`.
    blank : bool
        Leave out the weights that ``options`` say to start from: others will be loaded.

    Raises
    ------
    InputError
        For an unknown name or option, a shape that the network cannot take, or weights to start from that cannot
        be had or do not fit.
    """
    kind = _find(name)
    if blank:
        options = {key: value for key, value in dict(options or {}).items() if key not in _START}
    validated = validate(kind.Options, options or {}, f"options of network {name!r}")
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return kind(in_shape, outputs, validated)


def check(name: str, options: Mapping[str, Any]) -> None:
    """Raise InputError for an unknown name or option, before any work is done."""
    validate(_find(name).Options, options, f"options of network {name!r}")


def informed(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Add to ``options`` those that network ``name`` has and that the data decide; a given one stays as it is."""
    fields = _find(name).Options.model_fields
    return {**{key: value for key, value in known.items() if key in fields}, **options}


def default_options(name: str) -> dict[str, Any]:
    """Return the options of network ``name`` with their defaults, as plain JSON values."""
    return _find(name).Options().model_dump(mode="json")


def published(name: str) -> list[str]:
    """Return the names of published weights that network ``name`` can start from; InputError for an unknown name."""
    return _find(name).published()


def space(name: str) -> Space:
    """Return the options of network ``name`` worth tuning; the keys are option names."""
    return dict(_find(name).space)


def _find(name: str) -> type[Network]:
    if name in _NETWORKS:
        return _NETWORKS[name]
    if name in plugins.names(plugins.NETWORKS):
        register(name, plugins.load(plugins.NETWORKS, name, Network))
        return _NETWORKS[name]
    family, colon, member = name.partition(":")
    if colon and family in _FAMILIES:
        return _FAMILIES[family](member)
    raise unknown("network", name, [*names(), *(f"{family}:NAME" for family in _FAMILIES)])


register("linear", Linear)
register("fc", FullyConnected)
register("mlp", MLP)
register("conv", Conv)
register("lattice", Lattice)
register("fieldnet", FieldNet)
register("voltage_attention", VoltageAttention)
for _name, _resnet in RESNETS.items():
    register(_name, _resnet)
