"""The models that a server holds, and how one version of a model takes over from another."""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from deploy.model.contract import INPUT
from deploy.model.session import Session
from deploy.serving.heads import Heads
from deploy.serving.process import give_back
from deploy.serving.refusals import LOG, Refused
from stm_models.errors import InputError

__all__ = ["Catalog", "Loaded", "Model", "Opener", "Version", "check_name", "prove", "refused"]

Opener = Callable[[Path], Session]


@dataclass(frozen=True)
class Version:
    """One version of a model: its label in addresses and answers, and its file."""

    label: str
    path: Path


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version in memory.

    Whoever answers a request holds one of these from its first byte to its last, so that nothing is mixed; a version
    that was taken out of service goes when nobody holds it any more. ``times`` are how often and how long in seconds
    (outputs, rows) were computed, ``heads`` the requests seen.
    """

    label: str
    session: Session
    since: str
    times: dict[Any, tuple[int, float]] = field(default_factory=dict)
    heads: Heads = field(default_factory=Heads)


class Model:
    """One served model, whose current version can be replaced while it answers.

    Parameters
    ----------
    name : str
        In the address.
    session : Session
    label : str
        Its version.
    source : str
        What it was asked for as: an alias or a file's name.

    Attributes
    ----------
    current : Loaded
    refused : dict or None
        ``version``, ``reason``, ``time`` of the last new version that was not taken, until another one is or nobody
        wants it any more.
    problem : str
        Why nobody can say at present which version an alias names.
    """

    def __init__(self, name: str, session: Session, label: str = "1", source: str = "") -> None:
        self.name, self.source = name, source
        self.current = Loaded(label, session, _now())
        self.refused: dict[str, str] | None = None
        self.problem = ""
        self._alive: weakref.WeakSet[Loaded] = weakref.WeakSet([self.current])
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Number of versions in memory: two while an old one drains."""
        return len(self._alive)

    def version(self, label: str | None) -> Loaded:
        """Return the current version; raises Refused (404) where ``label`` asks for another."""
        loaded = self.current
        if label is not None and label != loaded.label:
            raise Refused(404, f"model {self.name!r} has no version {label[:32]!r}: only {loaded.label}")
        return loaded

    def offer(self, version: Version, opener: Opener) -> bool:
        """Load, check and warm a version, and put it into service; keep the old one if anything is wrong.

        Returns
        -------
        bool
            Whether it was taken.
        """
        with self._lock:
            old = self.current
            try:
                session = opener(version.path)
                _check_same_contract(old.session, session)
                prove(session)
            except Exception as error:  # whatever a file holds, the old version goes on
                reason = " ".join(str(error).replace(str(version.path), version.path.name).split())[:500]
                self.refused = refused(version, reason)
                LOG.error("model %s: version %s refused, %s goes on: %s", self.name, version.label, old.label, reason)
                return False
            loaded = Loaded(version.label, session, _now())
            self._alive.add(loaded)
            self.current = loaded
            self.refused = None
            weakref.finalize(old, _tidy).atexit = False
        LOG.warning("model %s: version %s takes over from %s", self.name, version.label, old.label)
        return True

    def describe(self) -> dict[str, Any]:
        """Return the model metadata of the Open Inference Protocol V2."""
        loaded = self.current
        session = loaded.session
        shape = session.metadata.input.shape
        inputs = [{"name": INPUT, "datatype": "FP32", "shape": [-1, *shape]}]
        if session.metadata.focusable:
            inputs.append({"name": "focus", "datatype": "INT64", "shape": [-1]})
        parameters: dict[str, Any] = {
            "provider": session.provider,
            "source": self.source,
            "since": loaded.since,
            "metadata": session.metadata.as_dict(),
        }
        if self.refused is not None:
            parameters["refused"] = self.refused
        if self.problem:
            parameters["problem"] = self.problem
        return {
            "name": self.name,
            "versions": [loaded.label],
            "platform": "onnxruntime_onnx",
            "inputs": inputs,
            "outputs": [{"name": out, "datatype": "FP32", "shape": list(size)} for out, size in session.outputs],
            "parameters": parameters,
        }


class Catalog:
    """All models of a server by name; the first one answers ``/invocations``."""

    def __init__(self, models: Iterable[Model]) -> None:
        self.models: dict[str, Model] = {}
        for model in models:
            check_name(model.name)
            if model.name in self.models:
                raise InputError(f"two models are named {model.name!r}: name one with NAME=MODEL")
            self.models[model.name] = model
        if not self.models:
            raise InputError("no model to serve: give at least one model file")

    @classmethod
    def of(cls, sessions: Mapping[str, Session]) -> Catalog:
        """Make a catalog of loaded files."""
        return cls(Model(name, session, source=session.path.name) for name, session in sessions.items())

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The current session of every model; a view that follows swaps."""
        return _Sessions(self.models)

    @property
    def first(self) -> Model:
        """The model that answers where none is named."""
        return next(iter(self.models.values()))

    def warm_up(self) -> None:
        """Run every graph of every model once."""
        for model in self.models.values():
            model.current.session.warm_up()


class _Sessions(Mapping[str, Session]):
    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def __getitem__(self, name: str) -> Session:
        return self._models[name].current.session

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


def check_name(name: str) -> None:
    """Refuse a name that cannot stand in an address."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
        raise InputError(f"model name {name!r} cannot stand in an address: use letters, digits, '.', '_', '-'")


def refused(version: Version, reason: str) -> dict[str, str]:
    """Return what is told of a version that was not taken, now."""
    return {"version": version.label, "reason": reason, "time": _now()}


def prove(session: Session) -> None:
    """Run every graph once, and the cheap outputs with all their checks.

    Raises
    ------
    InputError
        When they are not finite.
    """
    session.warm_up()
    image = np.random.default_rng(0).random((1, *session.metadata.input.shape), dtype=np.float32)
    session.run(image, session.answer_names)


def _check_same_contract(old: Session, new: Session) -> None:
    """Refuse a version that would break the clients of the one before."""
    way_out = "serve it under a name of its own"
    if new.metadata.task != old.metadata.task:
        raise InputError(f"its task is {new.metadata.task!r}, expected {old.metadata.task!r}: {way_out}")
    if not new.metadata.input.agrees(old.metadata.input):
        raise InputError(f"its input is {new.metadata.input}, expected {old.metadata.input}: {way_out}")
    wanted, found = (
        [f"{target.name} ({target.unit})" if target.unit else target.name for target in session.metadata.targets]
        for session in (old, new)
    )
    if wanted != found:
        raise InputError(f"it predicts {', '.join(found)}, expected {', '.join(wanted)}: {way_out}")
    if new.metadata.explained != old.metadata.explained:
        raise InputError(
            f"its maps explain target {new.metadata.explained}, expected {old.metadata.explained}: {way_out}"
        )
    shapes = dict(new.outputs)
    for name, shape in old.outputs:
        if shapes.get(name) != shape:
            raise InputError(f"its output {name!r} is {shapes.get(name)}, expected {shape}: {way_out}")


def _tidy() -> None:
    """Give memory back a moment after a version has gone."""
    timer = threading.Timer(1.0, give_back)
    timer.daemon = True
    timer.start()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
