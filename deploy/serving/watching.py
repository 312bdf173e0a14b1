"""Following aliases: a thread asks which version they name, and offers new ones to the models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from deploy.serving.catalog import Catalog, Opener, Version
from deploy.serving.metrics import Metrics
from deploy.serving.refusals import LOG
from stm_models.errors import one_line

__all__ = ["Resolver", "Watcher", "following"]

Resolver = Callable[[str], Version]
"""Says which version an address (``models:/NAME@ALIAS``) names now, and fetches its file."""

_AGAIN_SECONDS = 300.0


class Watcher:
    """Polls addresses for as long as the block runs.

    Parameters
    ----------
    addresses : mapping of str to str
        Address by the name of its model.
    versions : mapping of str to str
        The version of each that is served at first.
    resolve : Resolver
    offer : callable
        Called with a model's name and a version that is not the served one; says whether it was taken. One that was
        not is offered again after five minutes, or when the alias has moved.
    failed : callable
        Called with a model's name and why its address could not be resolved, and with an empty reason when it can be
        again.
    seconds : float
        Between two polls.
    back : callable, optional
        Called with a model's name when, after a version was not taken, its address names the served one again.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        versions: Mapping[str, str],
        resolve: Resolver,
        offer: Callable[[str, Version], bool],
        failed: Callable[[str, str], None],
        seconds: float,
        back: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._addresses, self._served = dict(addresses), dict(versions)
        self._resolve, self._offer, self._failed = resolve, offer, failed
        self._seconds, self._back = seconds, back
        self._refused: dict[str, tuple[str, float]] = {}
        self._failing: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stm-watch", daemon=True)

    def __enter__(self) -> Watcher:
        if self._addresses and self._seconds > 0:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def poll(self) -> None:
        """Look at every address once."""
        for name, address in self._addresses.items():
            try:
                version = self._resolve(address)
            except Exception as error:  # the store may be away; what is served goes on
                reason = one_line(error, 300)
                if name not in self._failing:
                    LOG.error("model %s: cannot say which version %s names: %s", name, address, reason)
                self._failing.add(name)
                self._failed(name, reason)
                continue
            if name in self._failing:
                self._failing.discard(name)
                self._failed(name, "")
            self._consider(name, version)

    def _consider(self, name: str, version: Version) -> None:
        if version.label == self._served[name]:
            if self._refused.pop(name, None) is not None:
                self._back(name)
            return
        label, when = self._refused.get(name, ("", 0.0))
        if label == version.label and time.monotonic() < when:
            return
        if self._offer(name, version):
            self._served[name] = version.label
            self._refused.pop(name, None)
        else:
            self._refused[name] = (version.label, time.monotonic() + _AGAIN_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self.poll()


def following(
    addresses: Mapping[str, str], catalog: Catalog, opener: Opener, resolve: Resolver | None, seconds: float
) -> Callable[[Metrics], Watcher]:
    """Return what makes, from a server's metrics, the watcher that keeps ``catalog`` up to date.

    Parameters
    ----------
    addresses : mapping of str to str
        Address by the name of its model.
    opener : Opener
        Loads a version's file.
    resolve : Resolver, optional
        Without one nothing is followed.
    seconds : float
        Between two polls.
    """
    versions = {name: model.current.label for name, model in catalog.models.items()}

    def make(metrics: Metrics) -> Watcher:
        def offer(name: str, version: Version) -> bool:
            taken = catalog.models[name].offer(version, opener)
            metrics.event("swaps" if taken else "refused", name)
            return taken

        def failed(name: str, reason: str) -> None:
            catalog.models[name].problem = reason
            if reason:
                metrics.event("poll_failures", name)

        def back(name: str) -> None:
            catalog.models[name].refused = None

        return Watcher(addresses if resolve else {}, versions, resolve or _nobody, offer, failed, seconds, back)

    return make


def _nobody(address: str) -> Version:
    raise LookupError(f"nobody resolves {address}")
