"""When a run's recordings are sent: how often, after an outage, and the machine's among them."""

from __future__ import annotations

import os
import time

import pytest

from stm_models.errors import InputError
from support import delivered
from tracking import runs, sender, spool, store


def test_a_run_that_the_store_does_not_take_keeps_no_other_back(monkeypatch):
    monkeypatch.setattr(sender, "back_off", lambda failures: 0.05)

    class Some:
        blocked, done, id, tried = None, False, "", 0

        def waiting(self):
            return not self.done

        def step(self, opened):
            self.tried += 1
            if self is bad:
                raise OSError("one file of 5 GB")
            self.done = True
            return False

    class Opened:
        away, remote, uri, location = None, True, "http://x", "http://x"

        def reached(self):
            return self

    bad, good = Some(), Some()
    sending = sender.Sender(Opened())
    sending.add(bad)
    sending.add(good)
    deadline = time.monotonic() + 30
    while not (good.done and bad.tried > 1) and time.monotonic() < deadline:
        time.sleep(0.02)
    bad.done = True
    assert good.done
    assert bad.tried > 1


def test_a_slow_store_is_asked_less_often_and_one_that_fails_too():
    assert [sender.pause(spent) for spent in (0.002, 0.02, 1.0)] == [2.0, 8.0, 10.0]
    for failures, seconds in ((0, 0.5), (1, 1), (3, 4), (6, 30), (100_000, 30)):
        found = [sender.back_off(failures) for _ in range(200)]
        assert seconds / 2 <= min(found) < 0.8 * seconds < 1.2 * seconds < max(found) <= 1.5 * seconds


def test_an_outage_that_is_known_is_not_waited_for(local, monkeypatch):
    """The store answered when it was opened, and does not any more: no start and no end of many asks it anew."""
    monkeypatch.setenv("STM_SPOOL_KEEP", "1")
    calls = []

    def fail(*_, **__):
        calls.append(1)
        raise OSError("gone")

    opened = store.connect(local.uri)
    found = []
    with monkeypatch.context() as patch:
        for name in ("log_batch", "create_run", "get_experiment_by_name"):
            patch.setattr(opened.client, name, fail)
        patch.setattr(sender, "back_off", lambda failures: 60.0)
        for number in range(6):
            with runs.start(opened, "outage", str(number)) as run:
                run.metrics({"a": number / 3}, 1)
                found.append(run.id)
    assert all(run_id.startswith("spool_") for run_id in found)
    assert len(calls) <= 9
    deadline = time.monotonic() + 60
    with runs.start(store.connect(local.uri), "outage", "after"):
        pass
    while len(delivered.kept(spool.root())) < 7 and time.monotonic() < deadline:
        time.sleep(0.1)
    for path in delivered.kept(spool.root()).values():
        delivered.check(path, local)
    assert {row.name for row in runs.find(local, "outage")} == {*map(str, range(6)), "after"}


def test_the_machine_is_looked_at(local, monkeypatch):
    monkeypatch.setenv("STM_SYSTEM_METRICS", "0.01")
    with runs.start(local, "machine", "x") as run:
        deadline = time.monotonic() + 60
        while b"system/" not in (run._sink._spool.folder / "log.jsonl").read_bytes() and time.monotonic() < deadline:
            time.sleep(0.1)
    metrics = runs.get(local, run.id).metrics
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100 * (os.cpu_count() or 1)
    assert metrics["system/process_memory_megabytes"] > 20
    for wrong in ("often", "-1", "inf"):
        monkeypatch.setenv("STM_SYSTEM_METRICS", wrong)
        with pytest.raises(InputError, match="STM_SYSTEM_METRICS"), runs.start(local, "machine", "x"):
            pass
