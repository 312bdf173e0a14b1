"""The whole chain through the real command line, as small as it goes, and what it may leave where it ran."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STM = (sys.executable, "-m", "pipelines")
STAGES = ("simulate", "train", "export", "evaluate", "predict")
SIMULATE = "simulate.interaction_count=5;simulate.replicates=3;simulate.draws=1"
TRAIN = "train.network=mlp;train.options={hidden: '32', dropout: 0};train.epochs=40;train.perturbation=clean"
SMALL_DATA = ("--preset", "test", "--set", SIMULATE)
SMALL_TRAINING = ("--preset", "test", "--set", f"{TRAIN};calibrate.states=60")
SMALL = ("--preset", "test", "--set", f"{SIMULATE};{TRAIN};calibrate.states=60")
EXPORT = ("--set", "export.explanations=[gradient]")

MADE = {
    "simulate": ("data.zarr",), "train": ("mlflow.db", "mlflow.db.lock", "mlartifacts", "checkpoints"),
    "export": ("model.onnx",), "evaluate": (), "predict": ("answer",),
}  # fmt: skip
"""What each stage makes; the data set of ``train``'s calibration is made again."""
ADDRESSES = (
    ("runs", "artifact_uri"), ("experiments", "artifact_location"), ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)  # fmt: skip
"""Where a store holds the address of its folder."""

LEFT = {
    "here": ("data.zarr", "data.calibration-*.zarr", "mlflow.db", "mlflow.db.lock", "mlartifacts", "model.onnx",
             "answer", "checkpoints"),
    "home": (".cache", ".cache/matplotlib", ".cache/matplotlib/*", ".config", ".config/matplotlib"),
    "tmp": ("torchinductor_*",),
}  # fmt: skip
"""What a chain leaves in its working folder, and what libraries leave in HOME and TMPDIR: docs/campaign.md names it."""


@dataclass
class Chain:
    """One chain in ``place``: working folder ``here``, and ``home`` and ``tmp`` of its own.

    Attributes
    ----------
    variables : dict
        Of the environment; ``None`` takes one away.
    before : tuple of str
        Put before each command, such as ``unshare -n``.
    """

    place: Path
    name: str = "here"
    variables: dict = field(default_factory=dict)
    before: tuple[str, ...] = ()
    umask: int = -1
    found: dict = field(default_factory=dict)

    def __post_init__(self):
        for folder in (self.here, self.place / "home", self.place / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def before_stage(cls, stage, calm, place, name="here"):
        """A chain that has come as far as ``stage``: copied from a finished one, with its addresses."""
        chain = cls(place, name)
        done = STAGES[: STAGES.index(stage)]
        for path in calm.here.iterdir():
            if path.name in {name for each in done for name in MADE[each]}:
                copy = shutil.copytree if path.is_dir() else shutil.copy2
                copy(path, chain.here / path.name, **({"dirs_exist_ok": True} if path.is_dir() else {}))
        if (chain.here / "mlflow.db").exists():
            with contextlib.closing(sqlite3.connect(chain.here / "mlflow.db")) as db, db:
                for table, column in ADDRESSES:
                    names = (calm.here.as_uri(), chain.here.as_uri())
                    db.execute(f"update {table} set {column} = replace({column}, ?, ?)", names)
        chain.found = {each: calm.found[each] for each in done if each in calm.found}
        return chain

    @property
    def here(self):
        return self.place / self.name

    def environment(self):
        other = ("MLFLOW_", "STM_", "XDG_", "LC_", "ORT_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(other)}
        kept |= {"HOME": str(self.place / "home"), "TMPDIR": str(self.place / "tmp"), "PYTHONPATH": str(ROOT)}
        kept |= {"OMP_NUM_THREADS": "1", "LANG": "C.UTF-8", **self.variables}
        return {key: str(value) for key, value in kept.items() if value is not None}

    def command(self, stage):
        """Arguments of ``stm`` for a stage; those after ``train`` need what that said."""
        run = self.found.get("train", {}).get("run_id", "")
        return {
            "simulate": ("simulate", "hubbard", *SMALL_DATA, "--workers", "1", "--out", "data.zarr", "--json"),
            "train": ("train", "hubbard", *SMALL_TRAINING, "--data", "data.zarr", "--json"),
            "export": ("export", run, "--out", "model.onnx", *EXPORT, "--json"),
            "evaluate": ("evaluate", "model.onnx", "--data", "data.zarr", "--json"),
            "predict": ("predict", "model.onnx", "data.zarr", "--explain", "gradient", "--out", "answer", "--json"),
        }[stage]

    def start(self, arguments, **more):
        """Start ``stm`` in a process group of its own."""
        settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(
            [*self.before, *STM, *arguments], cwd=self.here, env=self.environment(), start_new_session=True,
            umask=self.umask, **(settings | more),
        )  # fmt: skip

    def ask(self, arguments, seconds=600, **more):
        """Run ``stm`` to its end; return exit code, stdout and stderr, which never holds a traceback."""
        process = self.start(arguments, **more)
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert "Traceback" not in (err or ""), err
        return process.returncode, out, err

    def go(self, stage, resume=None):
        """Run one stage, which must succeed; return what it printed."""
        again = ("train", "hubbard", "--data", "data.zarr", "--resume", resume, "--json")
        code, out, err = self.ask(again if resume else self.command(stage))
        assert code == 0, f"{stage} ended with {code}: {err}"
        self.found[stage] = json.loads(out)
        return self.found[stage]

    def refused(self, arguments, *words, **more):
        """Run what must be refused, in one line with these words; return the line."""
        code, _, err = self.ask(arguments, **more)
        lines = [line for line in err.splitlines() if line.startswith("error: ")]
        assert (code, len(lines)) == (2, 1), (code, err)
        for word in words:
            assert word in lines[0], lines[0]
        return lines[0]

    def whole(self, stages=STAGES):
        """Run the chain, tell how long each stage took, and return what `truth` does."""
        times = {}
        for stage in stages:
            if stage not in self.found:
                began = time.monotonic()
                self.go(stage)
                times[stage] = round(time.monotonic() - began, 1)
        self.found["seconds"] = times
        return self.truth(stages)

    def truth(self, stages=STAGES):
        """Return what must be the same whatever happened: digest, metrics and answers, as far as ``stages``."""
        take = {
            "simulate": lambda found: found["digest"],
            "train": lambda found: {name: x for name, x in found["metrics"].items() if "seconds" not in name},
            "export": lambda found: found["explanations"],
            "evaluate": lambda found: found["metrics"],
            "predict": lambda found: [[one[key] for key in ("U", "novelty", "verdict")] for one in found["answers"]],
        }
        return {stage: take[stage](self.found[stage]) for stage in stages}

    def check_left(self, more=()):
        """Assert that nothing lies around but what is documented, and that no run says it is running."""
        names = {
            "here": [path.name for path in self.here.iterdir()],
            "home": _below(self.place / "home"),
            "tmp": _below(self.place / "tmp"),
        }
        for where, found in names.items():
            allowed = (*LEFT[where], *more)
            strange = [name for name in found if not any(fnmatch.fnmatch(name, each) for each in allowed)]
            assert not strange, f"{where}: {strange}"
        parts = [str(path) for path in self.here.rglob("*") if path.name.startswith(".") or path.suffix == ".partial"]
        assert not parts, parts
        checkpoints = list(self.here.glob("checkpoints/*"))
        assert not checkpoints, checkpoints
        if (self.here / "mlflow.db").exists():
            assert "RUNNING" not in self.states(), self.states()

    def states(self):
        """States of all runs of the store."""
        with contextlib.closing(sqlite3.connect(self.here / "mlflow.db")) as db:
            return [state for (state,) in db.execute("select status from runs")]


def _below(folder):
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]
