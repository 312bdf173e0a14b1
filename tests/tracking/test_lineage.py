"""What `trace` takes for a run; its answers about models and data are looked at in tests/e2e/test_promotion.py."""

from __future__ import annotations

import pytest
import zarr

from stm_models.data.store import SCHEMA
from stm_models.errors import InputError
from tracking import lineage, rows, runs


def test_a_run_is_found_by_either_id(local):
    with runs.start(local, "lineage", "x", tags={"network": "mlp"}) as run:
        pass
    first = f"{runs.PREFIX}{runs.get(local, run.id).tags[runs.RUN_TAG]}"
    for name in (run.id, first):
        for what in (name, f"runs:/{name}"):
            found = lineage.trace(local, what)
            assert (found["kind"], found["origin"]["run"]) == ("run", run.id)
    with pytest.raises(InputError, match="send it"):
        lineage.trace(local, runs.PREFIX + "0" * 32)


def test_a_data_set_that_is_not_finished_is_refused(local, tmp_path):
    root = zarr.create_group(tmp_path / "data.zarr", zarr_format=3)
    root.attrs.update({"schema": SCHEMA, "complete": False, "digest": ""})
    with pytest.raises(InputError, match=r"data.zarr is not finished: run the same `stm simulate` command again"):
        lineage.trace(local, str(tmp_path / "data.zarr"))
    with pytest.raises(InputError, match="is no Zarr v3 store: give a data set made by `stm simulate`"):
        lineage.trace(local, str(tmp_path))


def test_all_runs_are_read_once(local, monkeypatch):
    digest = "0123abcd" * 8
    with runs.start(local, "lineage", "trained", tags={"network": "mlp", "data.digest": digest}) as trained:
        pass
    with runs.start(local, "lineage", "scored", tags={"evaluated.run": trained.id}) as scored:
        pass
    plain, whole = rows.find, []

    def find(store, *given, limit=None, **more):
        whole.append(limit)
        return plain(store, *given, limit=limit, **more)

    monkeypatch.setattr(rows, "find", find)
    for what, kind in ((trained.id, "run"), (digest, "data"), (digest[:8], "data"), (digest[:32], "data")):
        whole.clear()
        found = lineage.trace(local, what)
        assert found["kind"] == kind
        assert [(one["run"], one["evaluations"]) for one in found["descendants"]] == [(trained.id, [scored.id])]
        assert whole.count(None) == 1, what
