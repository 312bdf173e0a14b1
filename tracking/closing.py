"""Runs whose process is gone are closed, so that none says for ever that it is running; living ones are left alone."""

from __future__ import annotations

import sys

from stm_models.errors import InputError
from tracking import heartbeat, leftovers, liveness, spool
from tracking.backend import MlflowException
from tracking.parcel import Parcel
from tracking.rows import find, get
from tracking.sender import Sender
from tracking.store import Store

__all__ = ["bury", "kill", "kill_left", "refuse_living"]

_PATIENCE = 15.0  # seconds without progress of what was left


def bury(store: Store, experiment: str) -> bool:
    """Close the runs that say they are running although their process, of this machine, is gone.

    And those of other machines that have given no sign of life for an hour.
    What they left in their spools is sent first, as far as the store takes it.

    Returns
    -------
    bool
        Whether the store answered; if not, a later call does it.
    """
    sender = Sender.to(store)
    if sender.trouble:
        return False
    taken = []
    spool.tidy(spool.root())
    for parcel in leftovers.take(spool.root()):
        if parcel.start["store"] == store.location and leftovers.close_abandoned(parcel):
            sender.add(parcel)
            taken.append(parcel)
        else:
            parcel.release()
    for parcel in taken:
        sender.wait(parcel, Parcel.is_done, _PATIENCE)
        for reason in parcel.refused if parcel.done else ():
            print(f"warning: run {parcel.run}: {store.location} refuses {reason}", file=sys.stderr)
    try:
        if sender.trouble:
            return False
        store.reached()
        for row in find(store, experiment, status="RUNNING"):
            # It may have closed the run since it was found.
            who = row.tags.get("process", "")
            dead = liveness.gone(who) or (not liveness.here(who) and heartbeat.silent(row.tags))
            if dead and get(store, row.id).status == "RUNNING":
                kill(store, row.id)
    except (MlflowException, InputError):
        if not store.remote:
            raise
        return False
    return True


def kill(store: Store, run_id: str) -> None:
    """Close a run whose process did not."""
    store.client.set_tag(run_id, "outcome", "killed")
    store.client.set_terminated(run_id, status="KILLED")


def kill_left(store: Store, run_id: str) -> None:
    """Close a run that was left open, unless the store is away: `bury` does it then, some day."""
    if Sender.to(store).trouble:
        return
    row = get(store, run_id)
    if row.status == "RUNNING":
        kill(store, row.id)


def refuse_living(store: Store, run_id: str) -> None:
    """Refuse a run that is still recorded by a process of this machine.

    Raises
    ------
    InputError
        When there is one: two would write the same files and metrics.
    """
    row = get(store, run_id)
    who = row.tags.get("process", "")
    if row.status == "RUNNING" and liveness.here(who) and not liveness.gone(who):
        raise InputError(f"run {row.id} is still going on in process {who.split('/')[1]}: wait for its end, or end it")
