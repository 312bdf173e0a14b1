"""The first states of a data set's chain, made in a fresh process with one numerical thread, as workers make them.

`measure` is for benchmarks; run as a script this file is the process: a request in on standard input, the
measurement out on standard output, both JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _project  # noqa: F401
import numpy as np

__all__ = ["Measured", "measure", "start"]

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Measured:
    """What a process saw of its chain.

    Attributes
    ----------
    wall_s, cpu_s : list of float
        Seconds of each group; the first one makes the structure and its Coulomb kernel, and starts cold.
    lapack_s : list of float
        CPU seconds of each group inside LAPACK's eigensolvers.
    iterations, converged : list of float
        Of each group's self-consistent cycle.
    peak_gib : float
        Largest resident memory of the process (VmHWM; NaN where the system does not tell).
    bytes_per_group : float
        Growth of a store on disk.
    """

    wall_s: list[float]
    cpu_s: list[float]
    lapack_s: list[float]
    iterations: list[float]
    converged: list[float]
    peak_gib: float
    bytes_per_group: float

    def state_s(self, length: int) -> float:
        """CPU seconds per state of a chain of ``length`` states, of which the first one starts cold."""
        return (self.cpu_s[0] + (length - 1) * self.warm_s) / length

    @property
    def warm_s(self) -> float:
        """CPU seconds per state after the first."""
        return float(np.mean(self.cpu_s[1:] or self.cpu_s))


def measure(config: Any, groups: int, *, device: str = "cpu", result: Path | None = None) -> Measured:
    """Make the first ``groups`` states of the first chain; see `start`."""
    return start(config, groups, device=device, result=result)()


def start(
    config: Any, groups: int, *, task: str = "hubbard", device: str = "cpu", result: Path | None = None
) -> Callable[[], Measured]:
    """Start the process and return what waits for it.

    Parameters
    ----------
    config : Config
        The task's simulation config.
    groups : int
        How many states of its first chain to make.
    device : str
        Where eigenproblems are solved.
    result : path, optional
        Where to save the last state's arrays (npz): ``array_*``, ``state_*``.
    """
    request = {
        "task": task, "config": config.model_dump(mode="json"), "groups": groups, "device": device,
        "result": str(result) if result else None,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **ONE_THREAD}, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(json.dumps(request))
    process.stdin.close()
    process.stdin = None

    def wait() -> Measured:
        answer, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"measuring a chain failed with status {process.returncode}")
        return Measured(**json.loads(answer.splitlines()[-1]))

    return wait


class Stopwatch:
    """CPU seconds spent inside LAPACK's eigensolvers, by standing in for them."""

    def __init__(self) -> None:
        from scipy.linalg import lapack

        self.seconds = 0.0
        for name in ("dsyevd", "dsyevr", "zheevd", "zheevr"):
            setattr(lapack, name, self._timed(getattr(lapack, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **options: Any) -> Any:
            begun = time.process_time()
            try:
                return function(*values, **options)
            finally:
                self.seconds += time.process_time() - begun

        return timed


def _peak_gib() -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return kilobytes[0] / 2**20 if kilobytes else float("nan")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _simulate(request: Mapping[str, Any]) -> Measured:
    lapack = Stopwatch()  # before anything takes the functions by name
    from stm_models.config import validate
    from stm_models.tasks import registry

    task = registry.get(request["task"])
    config = validate(task.simulation, request["config"], "simulate")
    plan = task.plan(config)
    options = {} if request["device"] == "cpu" else {"device": request["device"]}
    _warm_up(task, request["config"])
    simulator = task.simulator(config, **options)
    wall, cpu, inside, results, state = [], [], [], [], None
    chain = plan.chains[0][: request["groups"]]
    for group in chain:
        marks = time.perf_counter(), time.process_time(), lapack.seconds
        results.append(simulator(group, state))
        wall.append(time.perf_counter() - marks[0])
        cpu.append(time.process_time() - marks[1])
        inside.append(lapack.seconds - marks[2])
        state = results[-1].state
    peak = _peak_gib()
    if request["result"]:
        arrays = {f"array_{name}": values for name, values in results[-1].arrays.items()}
        np.savez(request["result"], **arrays, **{f"state_{name}": value for name, value in results[-1].state.items()})
    return Measured(
        wall, cpu, inside,
        [float(result.scalars["iterations"]) for result in results],
        [float(result.scalars["converged"]) for result in results],
        peak, _stored(plan, chain, results),
    )  # fmt: skip


def _warm_up(task: Any, values: Mapping[str, Any]) -> None:
    """Load compiled code with the smallest structure there is, outside of all timings."""
    from stm_models.config import validate

    smallest = {"index": [1], "k_mesh": 2, "interaction_count": 2, "replicates": 64, "draws": 1, "image_size": 8}
    config = validate(task.simulation, {**values, **smallest}, "simulate")
    task.simulator(config)(task.plan(config).chains[0][0], None)


def _stored(plan: Any, chain: Any, results: list[Any]) -> float:
    from stm_models.data.store import Store, create

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.zarr"
        create(path, plan, {})
        empty, store = _size(path), Store(path)
        for group, result in zip(chain, results, strict=True):
            store.write(group, result)
        return (_size(path) - empty) / len(chain)


def _main() -> None:
    measured = _simulate(json.loads(sys.stdin.read()))
    print(json.dumps(vars(measured)))


if __name__ == "__main__":
    _main()
