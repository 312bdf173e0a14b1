"""Sending the spools that are left: of runs whose store was away to the end, or of another machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stm_models.errors import InputError
from tracking import leftovers
from tracking.delivery import Deferred, permanent
from tracking.parcel import Parcel
from tracking.passwords import redact
from tracking.sqlite_address import address, path_of
from tracking.store import Store, connect, first_line, missing

__all__ = ["Sent", "sync"]

_ATTEMPTS = 4  # in a row without progress, after 1, 2 and 4 s
_FAILURES = 2  # spools in a row that a store does not take before the others are left


@dataclass(frozen=True)
class Sent:
    """What became of a spool.

    Attributes
    ----------
    spool : str
        Identity of the run; ``spool_`` before it makes the run's id while it is in no store.
    run_id : str or None
        Its id in the store.
    state : str
        ``sent`` (all of it, and deleted), ``running`` (all that there is so far), ``refused`` (the store will not have
        it) or ``waits`` (the run that it is nested in is in no store yet).
    records : int
        How many arrived now.
    refused : list of str
        What the store will not have, and why; kept in the spool.
    """

    spool: str
    run_id: str | None
    experiment: str
    name: str
    store: str
    state: str
    records: int
    refused: list[str]


def sync(folders: Sequence[Path], to: str | None = None) -> Iterator[Sent]:
    """Send every spool in ``folders`` that no other process has; safe to be repeated and interrupted.

    Parameters
    ----------
    folders : sequence of Path
        Each a spool or a folder of spools.
    to : str, optional
        Address of the store, for those that are in none yet; else the one that each was recorded for.

    Yields
    ------
    Sent
        For each of them.

    Raises
    ------
    InputError
        When a store cannot be reached, or is not the one that has the run already, or a spool may not be written;
        after the others are sent.
    """
    stores: dict[str, Store] = {}
    problems: list[InputError] = []
    failed: dict[str, int] = {}  # times in a row, by store
    taken = [parcel for folder in folders for parcel in leftovers.take(folder, problems.append)]
    parcels = taken
    try:
        while parcels:
            moved, waiting = False, []
            for parcel in parcels:
                try:
                    uri = _address(parcel, to)
                    if failed.get(uri, 0) >= _FAILURES:
                        continue
                    failed[uri] = failed.get(uri, 0) + 1
                    if uri not in stores:
                        stores[uri] = connect(uri)
                    sent = _send(parcel, stores[uri])
                    failed[uri] = 0
                except Deferred as error:
                    failed[uri] = 0
                    waiting.append((parcel, stores[uri], first_line(error)))
                except InputError as error:
                    problems.append(error)
                else:
                    yield sent
                    moved = True
            parcels = [parcel for parcel, _, _ in waiting]
            if not moved:
                yield from (_sent(*each[:2], "waits", [each[2]]) for each in waiting)
                break
    finally:
        for parcel in taken:
            parcel.release()
    if problems:
        raise problems[0]


def _send(parcel: Parcel, store: Store) -> Sent:
    ended = leftovers.close_abandoned(parcel)
    try:
        while _patiently(lambda: parcel.step(store), store):
            pass
    except Deferred:
        raise
    except InputError as error:
        return _sent(parcel, store, "refused", [first_line(error)])
    except Exception as error:
        if not permanent(error, store):
            raise InputError(
                f"{store.location} does not take run {parcel.start['name']!r} now: {first_line(error)}; "
                "what arrived is noted, run the same command again"
            ) from error
        if parcel.set_aside(store, error):
            return _sent(parcel, store, "refused", parcel.refused)
        return _sent(parcel, store, "refused", [first_line(error)])
    if parcel.refused:
        return _sent(parcel, store, "refused", parcel.refused)
    return _sent(parcel, store, "sent" if ended else "running", [])


def _patiently(call: Callable[[], bool], store: Store) -> bool:
    for attempt in range(_ATTEMPTS - 1):
        try:
            return call()
        except Deferred:
            raise
        except Exception as error:  # clients, drivers and file systems raise their own kinds
            if isinstance(error, InputError) or permanent(error, store):
                raise
        time.sleep(2**attempt)
    return call()


def _sent(parcel: Parcel, store: Store, state: str, refused: list[str]) -> Sent:
    start = parcel.start
    return Sent(
        parcel.id, parcel.run, start["experiment"], start["name"], store.location, state, parcel.sent, refused
    )  # fmt: skip


def _address(parcel: Parcel, to: str | None) -> str:
    """Return where a spool belongs, with the password that the environment knows."""
    recorded = parcel.store or parcel.start["store"]
    if to is not None:
        if parcel.store is not None and _written(to) != parcel.store:
            raise InputError(
                f"run {parcel.run} of the spool {parcel.folder} is in {parcel.store} already: "
                "send the rest there, without --to"
            )
        return to
    known = (os.environ.get("MLFLOW_TRACKING_URI") or "").strip().rstrip("/")
    if known and redact(known) == recorded:
        return known
    if ":***@" in recorded:
        raise InputError(
            f"the spool {parcel.folder} is for {recorded}: set MLFLOW_TRACKING_URI to it with its password"
        )
    if (path := missing(recorded)) is not None:
        raise InputError(f"the spool {parcel.folder} is for {path}, which is not here: give the store with --to")
    return str(recorded)


def _written(to: str) -> str:
    """Return an address as a spool has it: that of a SQLite file is absolute."""
    return redact(address(path_of(to, "tracking store")) if to.startswith("sqlite") else to.rstrip("/"))
