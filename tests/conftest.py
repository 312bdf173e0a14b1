"""What every test starts from."""

from __future__ import annotations

import os

from hypothesis import settings

# Runs hold what a test records in them and nothing else; a test about it sets it.
os.environ.setdefault("STM_SYSTEM_METRICS", "0")
# A busy machine is no outage.
os.environ.setdefault("STM_SPOOL_WAIT", "120")
# Nor is it a failure.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
