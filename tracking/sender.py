"""Sending spools in the background: whoever records a run waits for no network.

One thread for each store sends what is recorded every few seconds, all of a run at its end. A store that does not
answer is tried again after a pause that doubles from half a second to half a minute, give or take a half.
"""

from __future__ import annotations

import atexit
import os
import random
import shlex
import sys
import threading
import time
from collections.abc import Callable

from stm_models.errors import InputError
from tracking import delivery
from tracking.parcel import Parcel
from tracking.store import Store, first_line

__all__ = ["Sender", "back_off", "pause"]

_INTERVAL = 2.0  # seconds between calls, at least
_LONGEST = 10.0  # and at most
_SHARE = 0.0025  # of the time that calls may take
_FIRST, _LAST = 0.5, 30.0  # seconds before a store that failed is asked again
_LEAVE = 2.0  # seconds that the end of the process waits

_senders: dict[tuple[int, str], Sender] = {}


def pause(spent: float) -> float:
    """Return how long to wait after a call that took ``spent`` seconds: a slow store is asked less often."""
    return min(max(_INTERVAL, spent / _SHARE), _LONGEST)


def back_off(failures: int) -> float:
    """Return how long to wait after so many failures before the present one."""
    return min(_FIRST * 2 ** min(failures, 10), _LAST) * random.uniform(0.5, 1.5)  # noqa: S311


class Sender:
    """The thread that sends to one store; made by `to`.

    Attributes
    ----------
    trouble : str
        Why the last call failed; empty when it did not.
    """

    def __init__(self, store: Store) -> None:
        self.store = self._given = store
        self.trouble = store.away or ""
        self._parcels: list[Parcel] = []
        self._urgent: set[str] = set()
        self._changed = threading.Condition()
        self._failures = 0
        self._reached = time.monotonic()
        self._tried = 0  # rounds that ended
        self._due = 0.0
        self._turn: Parcel | None = None
        threading.Thread(target=self._work, daemon=True, name="spool").start()

    @classmethod
    def to(cls, store: Store) -> Sender:
        """Return this process's sender to a store."""
        key = (os.getpid(), store.uri)  # a fork has no threads of its own
        if key not in _senders:
            _senders[key] = cls(store)
        made = _senders[key]
        if made._given is not store and store.away is None:  # somebody has just reached it
            made.store, made.trouble, made._given = store, "", store
        return made

    def add(self, parcel: Parcel) -> None:
        """Send a spool, and what will be appended to it."""
        with self._changed:
            self._parcels.append(parcel)
            self._urgent.add(parcel.id)
            self._changed.notify_all()

    def wait(self, parcel: Parcel, until: Callable[[Parcel], bool], patience: float, *, anyway: bool = False) -> bool:
        """Wait while the spool makes progress; return whether ``until`` came true.

        A store that failed last is not waited for, or with ``anyway`` asked once more; one that hangs is waited for
        ``patience`` seconds.
        """
        with self._changed:
            if self.trouble and not anyway:
                return until(parcel)
            self._urgent.add(parcel.id)
            self._due, tried = 0.0, self._tried
            self._changed.notify_all()
            last, since = parcel.offset, time.monotonic()
            while not until(parcel):
                now = time.monotonic()
                if parcel.offset != last:
                    last, since = parcel.offset, now
                if (self.trouble and self._tried > tried) or parcel.blocked or now - since > patience:
                    return False
                self._changed.wait(0.5)
        return True

    def left(self) -> list[Parcel]:
        """Return the spools that are not delivered."""
        with self._changed:
            return [parcel for parcel in self._parcels if not parcel.done]

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._parcels or (not self._urgent and time.monotonic() < self._due):
                    self._changed.wait(max(0.05, self._due - time.monotonic()) if self._parcels else None)
                self._urgent.clear()
                parcels = list(self._parcels)
            begun = time.monotonic()
            failed = self._round(parcels)
            with self._changed:
                # What may be the spool's own trouble keeps the others back once only.
                self._parcels.sort(key=lambda parcel: bool(failed) and parcel is self._turn)
                self._parcels = [parcel for parcel in self._parcels if not parcel.done]
                now = time.monotonic()
                self._due = now + (back_off(self._failures) if failed else pause(now - begun))
                self._failures = self._failures + 1 if failed else 0
                self.trouble = failed
                self._tried += 1
                self._changed.notify_all()

    def _round(self, parcels: list[Parcel]) -> str:
        """Send what waits; return why the store cannot be used, or nothing."""
        try:
            waiting = [parcel for parcel in parcels if not parcel.blocked and parcel.waiting()]
            if not waiting:
                return self.trouble
            if self.store.away or self.trouble or time.monotonic() - self._reached > _LONGEST:
                self.store = self.store.reached()
            for parcel in waiting:
                self._turn = parcel
                self._all_of(parcel)
                self._reached = time.monotonic()
        except Exception as error:  # clients, drivers and file systems raise their own kinds
            return first_line(error)
        return ""

    def _all_of(self, parcel: Parcel) -> None:
        try:
            while parcel.step(self.store):
                with self._changed:
                    self._changed.notify_all()
        except delivery.Deferred:
            pass  # the run that it belongs to comes later
        except Exception as error:
            if not isinstance(error, InputError) and not delivery.permanent(error, self.store):
                raise
            if not parcel.set_aside(self.store, error):
                parcel.blocked = error


@atexit.register
def _leave() -> None:
    """Wait a moment for what is on its way, and say what is left."""
    own = [sender for (process, _), sender in _senders.items() if process == os.getpid()]
    left = [(parcel, sender) for sender in own for parcel in sender.left()]
    end = time.monotonic() + _LEAVE
    for parcel, sender in left:
        sender.wait(parcel, Parcel.is_done, max(0.0, end - time.monotonic()), anyway=True)
    left = [(parcel, sender) for parcel, sender in left if not parcel.done]
    if left:
        parcel, sender = left[0]
        why = (first_line(parcel.blocked) if parcel.blocked else sender.trouble or "it takes long").partition(";")[0]
        what = "1 run is" if len(left) == 1 else f"{len(left)} runs are"
        folders = " ".join(dict.fromkeys(shlex.quote(str(parcel.folder.parent)) for parcel, _ in left))
        print(f"{what} not in {sender.store.location} yet ({why}): send with: stm sync {folders}", file=sys.stderr)
