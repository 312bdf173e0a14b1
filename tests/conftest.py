"""What every test starts from."""

from __future__ import annotations

import os

from hypothesis import settings

from stm_models.machine import cores

# Runs hold what a test records in them and nothing else; a test about it sets it.
os.environ.setdefault("STM_SYSTEM_METRICS", "0")
# A busy machine is no outage.
os.environ.setdefault("STM_SPOOL_WAIT", "120")
# Nor is it a failure.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
# Processes that test side by side share the cores.
if beside := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // int(beside))))
