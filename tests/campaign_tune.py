"""kill -9, again and again, over a search with two workers: no trial may be lost or counted twice, no run stay open.

Run by ``make campaign`` (100 kills); the tests do 5.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from pipelines import executors
from pipelines.executors.local import LocalExecutor
from stm_models.training.config import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
SIMULATE = ("simulate", "hubbard", "--preset", "test")
TRIALS = 6
EPOCHS = 400
MLFLOW = "mlflow.store.{}.sqlalchemy_store"
IMPORTS = [
    "pipelines.tuning.search",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "matplotlib.backends.backend_agg",
]
IMPORTS += [MLFLOW.format("tracking"), MLFLOW.format("model_registry"), "torch._dynamo"]


class Forked(LocalExecutor):
    """The local executor with workers that are there at once: forked from a process that has imported everything."""

    def __init__(self, workers):
        super().__init__(workers)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(IMPORTS)

    def _process(self):
        if not hasattr(self._own, "pool"):
            self._own.pool = ProcessPoolExecutor(1, self._context, _hang_up, (self._listener,))
            self._pools.append(self._own.pool)
        return self._own.pool


def _hang_up(listener):
    def leave():
        while not listener.poll(1.0):
            pass
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def stm(arguments):
    """Run ``stm`` in this process, with workers that start in a second instead of ten."""
    from pipelines.cli import main

    executors.LocalExecutor = Forked
    return main(arguments)


def command(data, name, *, trials=TRIALS, epochs=EPOCHS, more=()):
    """Arguments of ``stm`` for one search."""
    settings = f"tune.epochs={epochs};train.epochs={epochs};tune.pruner=median"
    return [
        "tune", "hubbard", "--preset", "test", "--data", str(data), "--set", settings, "--workers", "2",
        "--trials", str(trials), "--study", name, *more,
    ]  # fmt: skip


def start(folder, arguments):
    """Start ``stm`` in a process group of its own; it says what went wrong in ``log`` there."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    code = "import sys, campaign_tune; sys.exit(campaign_tune.stm(sys.argv[1:]))"
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=folder, env=environment, start_new_session=True, stdout=log, stderr=log,
        )  # fmt: skip


def running(found, anywhere=False):
    """Process ids of the workers that are in the middle of a trial, by the trial's number.

    Each has reported something of its own, or is ``anywhere`` between beginning and end.
    """
    from tracking import liveness

    result = {}
    for trial in found.get_trials(deepcopy=False):
        known = trial.user_attrs
        mine = trial.state.name == "RUNNING" and known.get("claimed") == trial.number and "run_id" in known
        new = len(trial.intermediate_values) > known.get("reported", 0)
        if mine and (new or anywhere) and not liveness.gone(known["worker"]):
            result[trial.number] = int(known["worker"].split("/")[1])
    return result


def history(trial):
    return list(trial.system_attrs.get("retry_history", ()))


def check(found, store, folder, n_trials, killed):
    """Assert that a finished search is as if nobody had been killed.

    Parameters
    ----------
    killed : collection of int
        Numbers of the trials whose worker was killed in the middle.

    Returns
    -------
    Counter
        Trials that were run again, and those given up after three deaths without anything new.
    """
    from tracking import runs

    trials = found.get_trials(deepcopy=False)
    counted = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(counted) == n_trials, Counter(trial.state.name for trial in trials)
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED", "FAIL"}
    assert not killed & {trial.number for trial in counted}
    followers = Counter(history(trial)[-1] for trial in trials if history(trial))
    assert max(followers.values(), default=1) == 1, "a trial was run again twice"
    result = Counter()
    for trial in trials:
        before = [trials[number] for number in history(trial)]
        assert all(each.params.items() <= trial.params.items() or not trial.params for each in before)
        assert all(each.state.name == "FAIL" for each in before)
        if trial.state.name != "FAIL":
            result["again"] += bool(before)
            continue
        assert "error" not in trial.user_attrs, trial.user_attrs["error"]
        if not followers[trial.number]:
            assert trial.user_attrs.get("deaths", 0) == 2, f"trial {trial.number} is lost"
            assert len(trial.intermediate_values) == trial.user_attrs["reported"]
            result["given up"] += 1

    rows = [row for row in runs.find(store, "hubbard") if row.tags.get("study") == found.study_name]
    assert not [row for row in rows if row.status == "RUNNING"]
    whole = {
        int(row.tags["trial"]): row for row in rows if "trial" in row.tags and row.outcome in ("complete", "pruned")
    }
    assert sorted(whole) == sorted(trial.number for trial in counted)
    assert len({row.tags["trial.origin"] for row in whole.values()}) == n_trials
    best = next(row.metrics for row in rows if row.outcome == "complete" and "trial" not in row.tags)
    (name,) = (key.removeprefix("best_") for key in best if key.startswith("best_"))
    assert best[f"best_{name}"] == min(trial.value for trial in counted if trial.state.name == "COMPLETE")
    for trial in counted:
        row = whole[trial.number]
        assert (row.id, row.outcome) == (trial.user_attrs["run_id"], trial.state.name.lower())
        assert trial.state.name == "PRUNED" or row.metrics[name] == trial.value
        result["resumed"] += bool(history(trial)) and row.metrics.get("train_seconds", 0) > row.seconds
    assert not list((folder / "checkpoints").glob("*")), "checkpoints are left"
    return result


def same_weights(found, store, data):
    """Assert that the last trial that was killed and ran to its end has the weights of an undisturbed training.

    Returns
    -------
    Counter
        Whether there was one.
    """
    import torch

    from pipelines import settings
    from pipelines.learning.fitting import informed, load_parts
    from pipelines.learning.network import learn
    from stm_models.networks import bundle
    from tracking import runs

    killed = [trial for trial in found.get_trials(deepcopy=False) if trial.state.name == "COMPLETE" and history(trial)]
    for trial in killed[-1:]:
        config = TrainConfig(**trial.user_attrs["train"])
        chosen = settings.load("hubbard", "test")
        parts = load_parts(data, chosen.task, chosen.split, config.targets)
        whole = learn(chosen.task, informed(chosen.task, config, parts), parts).final.model.state_dict()
        kept = bundle.load(runs.download(store, trial.user_attrs["run_id"], "bundle")).model.state_dict()
        assert whole.keys() == kept.keys()
        assert all(torch.equal(whole[key], kept[key]) for key in whole), f"trial {trial.number} has other weights"
    return Counter(same_weights=len(killed[-1:]))


def campaign(
    folder, data, kills, *, begin, seed=0, n_trials=TRIALS, groups=0.1, together=0.3, pause=1.5, report=None, **more
):
    """Kill workers in the middle of trials, ``kills`` times, then let the search finish; a finished one is checked.

    Parameters
    ----------
    begin : callable (folder, arguments) -> process
        Starts ``stm``.
    groups : float
        Share of the kills that take the whole process group; the same command is then started again.
    together : float
        Share of the others that take every worker that is in the middle of a trial.
    pause : float
        Most seconds between seeing a trial run and the kill.

    Returns
    -------
    Counter
        Kills of either kind, searches, trials run again and given up, and how many of those compared by their weights.
    """
    from tracking import store, study

    draw, counts, began = random.Random(seed), Counter(), time.monotonic()
    while True:
        name = f"round{counts['searches']}"
        arguments = command(data, name, trials=n_trials, **more)
        process, killed, anywhere, found = begin(folder, arguments), set(), False, None
        while process.poll() is None or _given_up(process, folder):
            if process.poll() is not None:
                process = begin(folder, arguments)
                counts["begun again"] += 1
            if not (folder / "optuna.db").exists() or counts["worker"] + counts["group"] >= kills:
                time.sleep(0.1)
                continue
            try:
                found = found or study.open_study(name, f"sqlite:///{folder}/optuna.db")
            except Exception:  # being made
                time.sleep(0.5)
                continue
            alive = running(found, anywhere)
            if not alive:
                time.sleep(0.1)
                continue
            number = draw.choice(sorted(alive))
            time.sleep(draw.uniform(0, pause))
            if running(found, anywhere).get(number) != alive[number]:
                continue
            if draw.random() < groups:
                killed |= set(running(found, True))
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                ended = {t.number for t in found.get_trials(deepcopy=False) if t.state.name in ("COMPLETE", "PRUNED")}
                killed -= ended
                counts["group"] += 1
                process = begin(folder, arguments)
            else:
                victims = running(found, anywhere) if draw.random() < together else {number: alive[number]}
                for victim in victims.values():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                # One may have ended its trial in between: then this was no kill in the middle of one.
                time.sleep(0.05)
                known = found.get_trials(deepcopy=False)
                late = {number for number in victims if known[number].state.name in ("COMPLETE", "PRUNED")}
                killed |= victims.keys() - late
                counts.update(worker=len(victims) - len(late), late=len(late))
            anywhere = draw.random() < 0.15
            if report and (counts["worker"] + counts["group"]) % 10 == 0:
                report(f"{dict(counts)}, {time.monotonic() - began:.0f} s")
        assert process.poll() == 0, f"stm ended with {process.poll()}"
        found = study.open_study(name, f"sqlite:///{folder}/optuna.db")
        recorded = store.connect(f"sqlite:///{folder}/mlflow.db")
        counts += check(found, recorded, folder, n_trials, killed)
        counts += same_weights(found, recorded, data)
        counts["searches"] += 1
        if counts["worker"] + counts["group"] >= kills:
            return counts


def _given_up(process, folder):
    """Tell whether a search ended because too many kills in a row came before anything was reported."""
    log = folder / "log"
    return process.poll() == 2 and log.exists() and "times in a row before" in log.read_text().splitlines()[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, begun = Path(name), time.monotonic()
        assert start(folder, [*SIMULATE, "--out", "small.zarr"]).wait() == 0, (folder / "log").read_text()
        process = None

        def begin(*arguments):
            nonlocal process
            process = start(*arguments)
            return process

        try:
            counts = campaign(
                folder,
                folder / "small.zarr",
                args.kills,
                begin=begin,
                seed=args.seed,
                together=0.7,
                pause=6,
                report=partial(print, flush=True),
            )
        except AssertionError:
            print((folder / "log").read_text()[-4000:])
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert counts["resumed"], "no trial went on from a checkpoint"
    print(f"{dict(counts)}: as if nothing had been, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
