"""Which models a command line asks to be served: NAME=MODEL, files and addresses of a registry."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.serving.catalog import Model, Opener, Version, check_name
from deploy.serving.watching import Resolver
from stm_models.errors import InputError

__all__ = ["Wanted", "open_model", "wanted_models"]

_REGISTERED = re.compile(r"models:/+([^/@]+)[@/].*")


@dataclass(frozen=True)
class Wanted:
    """One model to serve.

    Attributes
    ----------
    name : str
        In the address; empty for one that the model's task gives.
    address : str
        As it was given.
    version : Version
        What that is now.
    """

    name: str
    address: str
    version: Version

    @property
    def followed(self) -> bool:
        """Whether the address may come to mean another version."""
        return self.address.startswith("models:/") and "@" in self.address

    @property
    def source(self) -> str:
        """How to tell clients where it is from, without the paths of this machine."""
        return Path(self.address).name if self.address.endswith(".onnx") else self.address


def wanted_models(arguments: Sequence[str], name: str | None = None, resolve: Resolver | None = None) -> list[Wanted]:
    """Read ``MODEL`` and ``NAME=MODEL`` from a command line.

    Parameters
    ----------
    name : str, optional
        Of the only model.
    resolve : Resolver, optional
        Finds what is no file.

    Raises
    ------
    InputError
        For a name that cannot stand in an address or stands twice, or an address that nobody can resolve.
    """
    if name is not None and len(arguments) != 1:
        raise InputError(f"--name {name!r} fits one model, but {len(arguments)} are given: write NAME=MODEL for each")
    found = []
    for argument in arguments:
        given, address = _split(argument)
        if name and given and name != given:
            raise InputError(f"the model is named twice, {given!r} and {name!r}: leave --name out, or NAME=")
        version = _resolved(address, resolve)
        registered = _REGISTERED.fullmatch(address)
        chosen = name or given or (registered[1] if registered else "")
        if chosen:
            check_name(chosen)
        found.append(Wanted(chosen, address, version))
    named = [one.name for one in found if one.name]
    if twice := {one for one in named if named.count(one) > 1}:
        raise InputError(f"two models are named {sorted(twice)[0]!r}: name one with NAME=MODEL")
    return found


def open_model(wanted: Wanted, opener: Opener) -> Model:
    """Load what is wanted; its name is the task's where none was given."""
    session = opener(wanted.version.path)
    name = wanted.name or f"stm-{session.metadata.task}"
    return Model(name, session, wanted.version.label, wanted.source)


def _split(argument: str) -> tuple[str, str]:
    name, equals, address = argument.partition("=")
    if not equals or "/" in name or ":" in name or Path(argument).is_file():
        return "", argument
    return name, address


def _resolved(address: str, resolve: Resolver | None) -> Version:
    if address.endswith(".onnx") or (resolve is None and not re.match(r"\w{2,}:/", address)):
        return Version("1", Path(address))
    if resolve is None:
        raise InputError(f"{address!r} is no file: stm-serve takes .onnx files; 'stm serve' resolves addresses")
    return resolve(address)
