"""One spool on its way to a store, with how far it has come."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stm_models.errors import InputError
from tracking import delivery, spool
from tracking.delivery import Target
from tracking.spool import Record
from tracking.store import Store, first_line

__all__ = ["Parcel"]

_LINES = 1000  # records read at a time
_WHOLE = ("artifact", "input", "end")  # kinds that are acknowledged one by one


class Parcel:
    """A spool that this process has locked.

    Parameters
    ----------
    folder : Path
    lock : int
        As `tracking.spool.claim` returned it.
    fresh : bool
        Whether nobody can have sent anything of it yet.

    Attributes
    ----------
    id : str
        Identity of the run, from its first record.
    run, experiment, store : str or None
        Ids in the store and its address, once the run is made there.
    done : bool
        Whether all of it is in the store; the spool is deleted, or kept for what was refused.
    refused : list of str
        What the store would not take, and why.
    blocked : Exception or None
        Why no more of it can be sent.
    """

    def __init__(self, folder: Path, lock: int, *, fresh: bool = False) -> None:
        self.folder, self.lock = folder, lock
        (self.start, self._first), *_ = spool.read(folder, limit=1) or [({"kind": "damaged"}, 0)]
        if self.start["kind"] != "start":
            raise InputError(f"the spool {folder} has no beginning: nothing of it can be sent; delete it")
        known = spool.state(folder)
        self.id: str = self.start["id"]
        self.offset: int = known["offset"]
        self.run: str | None = known["run"]
        self.experiment: str | None = known.get("experiment")
        self.store: str | None = known.get("store")
        self.refused: list[str] = known.get("refused", [])
        self.blocked: Exception | None = None
        self.done = False
        self.sent = 0
        self._fresh = fresh and self.start["attach"] is None
        self._again = not fresh
        self._target: Target | None = None

    def is_begun(self) -> bool:
        """Tell whether the store has the run."""
        return self.offset > 0

    def is_done(self) -> bool:
        """Return ``done``."""
        return self.done

    def waiting(self) -> bool:
        """Tell whether there is something that was not acknowledged."""
        try:
            return not self.done and (self.folder / "log.jsonl").stat().st_size > self.offset
        except OSError as error:  # somebody deleted it
            self.blocked = error
            return False

    def step(self, store: Store) -> bool:
        """Send the next records and note that they arrived; return whether there were any.

        Raises
        ------
        Exception
            When the store cannot take them now.
        """
        if self.done or self.blocked:
            return False
        if not self.is_begun():
            again, self._again = self._again, True
            self.run, self.experiment = delivery.begin(store, self.start, self.folder.parent, again=again)
            self._acknowledge(self._first, store)
            return True
        found = _together(spool.read(self.folder, self.offset, _LINES))
        if not found:
            return False
        records = [record for record, _ in found]
        refused = self._sent_to(store).apply(records, self.folder, found[-1][1])
        self.refused += refused + ["a damaged line of the log" for record in records if record["kind"] == "damaged"]
        self.sent += len(records)
        if records[-1]["kind"] == "end":
            delivery.finish(store, self._sent_to(store).id, self.start)
        self._acknowledge(found[-1][1], store)
        if records[-1]["kind"] == "end" and not self.waiting():
            self.done = True
            spool.remove(self.folder, self.lock, self.refused)
        return True

    def set_aside(self, store: Store, error: Exception) -> bool:
        """Keep what is left of a run in ``refused``, with the reason; return whether it did.

        Only that of a run which has ended, and which was deleted from the store.
        """
        if self.run is None or not self.has_ended() or not delivery.deleted(store, self.run):
            return False
        self.refused.append(f"what is left of the run: {first_line(error)}")
        self.done = True
        spool.remove(self.folder, self.lock, self.refused)
        return True

    def has_ended(self) -> bool:
        """Tell whether the end of the run is among what was not acknowledged."""
        return any(record["kind"] == "end" for record in spool.records(self.folder, self.offset))

    def release(self) -> None:
        """Leave the spool to others."""
        if not self.done:
            os.close(self.lock)

    def _sent_to(self, store: Store) -> Target:
        if self._target is None:
            assert self.run is not None  # noqa: S101 - it has begun
            self._target = Target(store, self.run, fresh=self._fresh)
        return self._target

    def _acknowledge(self, offset: int, store: Store) -> None:
        self.store = store.location
        values: dict[str, Any] = {"offset": offset, "run": self.run, "experiment": self.experiment}
        spool.write_state(self.folder, {**values, "store": self.store, "refused": self.refused})
        self.offset = offset


def _together(found: list[tuple[Record, int]]) -> list[tuple[Record, int]]:
    """Return the first records that are sent and acknowledged together."""
    for number, (record, _) in enumerate(found):
        if record["kind"] in _WHOLE:
            return found[: max(number, 1)]
    return found
