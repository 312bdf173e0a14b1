"""What every test starts from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
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

TOGETHER = Path(__file__).with_name("e2e")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep in one process what shares a demo: all end-to-end tests; of the others, those of one file."""
    for item in items:
        group = TOGETHER if item.path.is_relative_to(TOGETHER) else item.path
        item.add_marker(pytest.mark.xdist_group(str(group)))
