"""What a result was made with: code, machine, packages and seeds."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stm_models.machine import cores
from stm_models.versions import PACKAGES, installed
from tracking.passwords import redact

__all__ = ["describe"]


def describe(seeds: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return the environment as one JSON-able mapping.

    Returns
    -------
    dict
        ``git`` {commit, dirty} (None outside a checkout), ``python``, ``platform``, ``cpu`` {model, cores},
        ``memory_gb``, ``gpu`` (a list of {name, memory_mb, driver}), ``packages``, ``seeds`` and ``command``, its
        passwords left out.
    """
    return {
        "git": _git(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": {"model": _cpu(), "cores": cores()},
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpus(),
        "packages": installed(("stm-lab", *PACKAGES)),
        "seeds": dict(seeds or {}),
        "command": [Path(sys.argv[0]).name, *map(redact, sys.argv[1:])] if sys.argv else [],
    }


def _run(*command: str, timeout: float = 5.0) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _git() -> dict[str, Any] | None:
    here = Path(__file__).resolve()
    git = ("git", "-C", str(here.parent))
    # A copy installed inside some other checkout must not borrow that checkout's commit.
    if _run(*git, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = _run(*git, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "dirty": bool(_run(*git, "status", "--porcelain", "--untracked-files=no"))}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _gpus() -> list[dict[str, Any]]:
    text = _run("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
    gpus = []
    for line in (text or "").splitlines():
        name, _, rest = line.partition(",")
        memory, _, driver = rest.partition(",")
        gpus.append({
            "name": name.strip(),
            "memory_mb": int(memory) if memory.strip().isdigit() else None,
            "driver": driver.strip(),
        })  # fmt: skip
    return gpus
