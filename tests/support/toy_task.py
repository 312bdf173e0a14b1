"""A cheap task whose groups depend on their predecessors to the last bit; importable by spawned workers."""

import errno
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from stm_models.config import Config
from stm_models.tasks.base import Task
from stm_models.tasks.plan import ArraySpec, Group, GroupResult, Plan, Variable


class ToyConfig(Config):
    chains: int = 3
    length: int = 4
    seconds: float = 0.0
    seed: int = 0
    flagged: tuple[int, ...] = ()
    fail: int = -1
    failure: str = "bug"


class ToyTask(Task):
    name = "toy"
    title = "Toy"
    targets = (Variable("U", "eV", "interaction"),)
    stratify = "U"
    metric = "mae"
    default_network = "cnn"
    losses = ("mse",)
    simulation = ToyConfig

    def plan(self, config):
        chains = []
        for c in range(config.chains):
            indices = range(c * config.length, (c + 1) * config.length)
            chains.append(
                tuple(
                    Group(i, {"U": float(i - indices[0]), "r": c + 0.25}, {"bias": np.array([-0.1, 0.1])})
                    for i in indices
                )
            )
        return Plan(
            chains=tuple(chains),
            samples_per_group=2,
            arrays={
                "image": ArraySpec(("channel", "y", "x"), (1, 6, 6), "float32", "1", "toy image"),
                "ldos": ArraySpec(("site",), (5,), "float32", "1/eV", "toy density"),
            },
            state={"n": ArraySpec(("site",), (5,), "float64", "1", "toy state")},
            parameters=(Variable("U", "eV", "interaction"), Variable("r", "1", "replicate")),
            samples=(Variable("bias", "eV", "bias"),),
            scalars=(Variable("converged", "1", "whether"), Variable("residual", "eV", "how well")),
            attributes={"simulator_version": "1", "input": {"kind": "toy", "channels": 1}},
        )

    def simulator(self, config, *, device="cpu"):
        def simulate(group, state):
            time.sleep(config.seconds)
            if group.index == config.fail:
                fail(config.failure)
            start = np.random.default_rng([config.seed, group.index]).uniform(0.2, 0.8, 5)
            n = start if state is None else state["n"]
            for _ in range(200):  # chaotic: one wrong bit in the start state changes everything
                n = 3.99 * n * (1 - n)
            ldos = np.stack([n, 1 - n])
            image = np.stack([np.outer(np.r_[v, 1], np.r_[1, v])[None] for v in ldos])
            converged = float(group.index not in config.flagged)
            threads = float(os.environ.get("OMP_NUM_THREADS", 0))
            return GroupResult({"image": image, "ldos": ldos}, {"n": n}, {"converged": converged, "residual": threads})

        return simulate

    fresh = prepare = axes = decode = metrics = None


def fail(kind):
    if kind == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ZeroDivisionError("toy bug")


if __name__ == "__main__":
    from pipelines.simulating.simulation import simulate
    from support.toy_task import ToyConfig as Importable
    from support.toy_task import ToyTask as ImportableTask

    out, workers, values = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    executor = sys.argv[4] if len(sys.argv) > 4 else "local"
    simulate(ImportableTask(), Importable.model_validate_json(values), out, workers=workers, executor=executor)
