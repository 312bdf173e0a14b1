"""Chains of groups mapped over an executor, with a progress bar; a lost worker costs its group's time."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from pipelines.executors import SimulationExecutor, WorkerLost
from pipelines.simulating.chains import Chain, label, simulate_chains
from stm_models.data.store import Store
from stm_models.errors import InputError
from stm_models.progress import Progress

__all__ = ["MOST_DEATHS", "map_chains", "shares"]

POLL = 0.2  # seconds between two looks at the progress
MOST_DEATHS = 3
"""So many workers in a row may die before they finish a group; then the group is given up."""


@dataclass
class _Share:
    """Chains that are handed out together, and how many workers in a row died of them without a new group."""

    chains: list[Chain]
    deaths: int = 0


def map_chains(
    pool: SimulationExecutor, chains: Sequence[Chain], store: Store, arguments: dict[str, Any], bar: Progress
) -> None:
    """Simulate ``chains`` on ``pool``, which is closed at the end.

    Parameters
    ----------
    pool : SimulationExecutor
        Where.
    chains : sequence of Chain
        Unfinished groups, the longest chain first.
    store : Store
        What is filled.
    arguments : dict
        What `simulate_chains` takes beside path and chains.
    bar : Progress
        Counts the store's groups.

    Raises
    ------
    InputError
        When a group has cost `MOST_DEATHS` workers in a row, or something else is a user's mistake. The
        other chains are simulated to their end first, as for every failure.
    Exception
        What failed first.
    """
    try:
        waiting = [_Share(share) for share in shares(chains, pool.pieces)]
        running: dict[Future[None], _Share] = {}
        failures: list[Exception] = []
        while waiting or running:
            if waiting:
                calls = [(store.path, share.chains, arguments) for share in waiting]
                running.update(zip(pool.submit_all(_call, calls), waiting, strict=True))
                waiting = []
            for future in wait(running, timeout=POLL, return_when=FIRST_COMPLETED).done:
                share = running.pop(future)
                try:
                    future.result()
                    if _left(share, store):
                        raise InputError(f"{store.path} was given to another writer: run the same command again")
                except WorkerLost as lost:
                    again = _after_death(share, store)
                    if again.deaths < MOST_DEATHS:
                        waiting += [again] * bool(again.chains)
                    else:
                        failures.append(_given_up(again, store, lost, bar))
                except Exception as error:
                    failures.append(error)
            bar.update(store.count_finished() - bar.done)
        if failures:
            raise failures[0]
        pool.shutdown()
    except KeyboardInterrupt:
        pool.abandon()
        print(f"\nstopped: {_kept(store, bar)}; run the same command again to continue", file=sys.stderr)
        raise
    except BaseException:
        pool.abandon()
        raise


def shares(chains: Sequence[Chain], most: int | None) -> list[list[Chain]]:
    """Share out chains, longest first, among at most ``most`` shares of nearly the same number of groups.

    Examples
    --------
    >>> [[len(chain) for chain in share] for share in shares([[(None, None)] * n for n in (5, 4, 3, 2)], 2)]
    [[5, 2], [4, 3]]
    """
    if most is None or len(chains) <= most:
        return [[chain] for chain in chains]
    result: list[list[Chain]] = [[] for _ in range(most)]
    sizes = [(0, number) for number in range(most)]
    for chain in chains:
        size, number = heapq.heappop(sizes)
        result[number].append(chain)
        heapq.heappush(sizes, (size + len(chain), number))
    return result


def _call(path: Any, chains: list[Chain], arguments: dict[str, Any]) -> None:
    simulate_chains(path=path, chains=chains, **arguments)


def _left(share: _Share, store: Store) -> list[Chain]:
    left = [[pair for pair in chain if not store.holds(pair[1].index)] for chain in share.chains]
    return [chain for chain in left if chain]


def _after_death(share: _Share, store: Store) -> _Share:
    """Return what is left of a share; the chain that its worker died of, perhaps, goes to the end."""
    left = _left(share, store)
    same = sum(map(len, left)) == sum(map(len, share.chains))
    return _Share(left[1:] + left[:1], share.deaths + 1 if same else 1)


def _given_up(share: _Share, store: Store, lost: WorkerLost, bar: Progress) -> InputError:
    group = share.chains[-1][0][1]
    return InputError(
        f"{label(group)}: {lost}, {share.deaths} times in a row; {_kept(store, bar)}: "
        "run the same command again with fewer workers, or with more memory or time for each"
    )


def _kept(store: Store, bar: Progress) -> str:
    return f"{store.count_finished()} of {bar.total} groups are kept in {store.path}"
