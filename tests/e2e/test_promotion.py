"""What a model must show to become champion, and the way back."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from pipelines.promoting import publishing
from stm_models.errors import InputError
from stm_models.files import sha256
from stm_models.tasks.registry import get
from support.outcomes import answer
from tracking import models, runs
from tracking.store import connect

NAME = "stm-hubbard"


def verdicts(result):
    return {gate["name"]: gate["verdict"] for gate in result["gates"]}


def test_only_a_better_model_becomes_champion(command, demo, trained, as_before):
    worse = trained()["run_id"]
    refused = answer(command("promote", "hubbard", "--run", worse, "--json"))
    assert refused["promoted"] is False
    assert verdicts(refused)["champion"] == "failed"
    assert "not below" in refused["reason"]
    assert refused["value"] > refused["champion"]["value"]
    store = connect()
    assert models.champion(store, NAME).run_id == demo.result["best_run"]
    recorded = models.version(store, NAME, refused["version"])
    assert recorded.tags["gate.reason"] == refused["reason"]
    assert json.loads(recorded.tags["gates"]) == refused["gates"]
    assert recorded.tags["gate.parity"].startswith("passed: ")

    code, out, _ = command("promote", "hubbard", "--run", worse, "--force", "the better one is lost")
    assert code == 0
    assert "is the champion now: forced (the better one is lost) in spite of: " in out
    recorded = models.champion(store, NAME)
    assert recorded.version == refused["version"]
    assert recorded.tags["gate.forced"] == "true"
    assert recorded.tags["gate.forced_by"].endswith(": the better one is lost")
    card = runs.download(store, worse, f"card/model_card_{recorded.version}.md").read_text()
    assert "| champion | failed: " in card
    assert "the better one is lost" in card

    again = answer(command("promote", "hubbard", "--run", demo.result["best_run"], "--json"))
    assert again["promoted"] is True, again
    assert set(verdicts(again).values()) == {"passed"}
    assert models.champion(store, NAME).run_id == demo.result["best_run"]
    assert "already" in command("promote", "hubbard", "--run", demo.result["best_run"])[1]

    back = answer(command("promote", "hubbard", "--rollback", "--json"))
    assert (back["version"], back["was"]) == (refused["version"], again["version"])
    assert models.champion(store, NAME).run_id == worse
    assert "champion.rolled_back" in models.version(store, NAME, again["version"]).tags
    code, _, err = command("promote", "hubbard", "--rollback", "--run", worse)
    assert code == 2
    assert "leave it out" in err

    store.client.delete_run(worse)
    code, _, err = command("promote", "hubbard", "--run", worse)
    store.client.restore_run(worse)
    assert code == 2
    assert f"run {worse} is deleted: restore it" in err


def test_a_candidate_does_not_choose_what_it_is_judged_by(command, demo, trained):
    """A clean specialist that was judged on clean images alone meets the champion on all that this was judged by."""
    found = trained("train.perturbation=clean", "split.judged=[clean]", "train.epochs=60", "train.patience=60")
    assert "unseen_robust_mae" not in found["metrics"]
    refused = answer(command("promote", "hubbard", "--run", found["run_id"], "--json"))
    assert refused["reason"].startswith("robust_mae ")
    assert refused["champion"]["value"] == pytest.approx(
        runs.get(connect(), demo.result["best_run"]).metrics["unseen_robust_mae"], rel=1e-3
    )
    assert refused["promoted"] is False
    assert refused["value"] > found["metrics"]["unseen_mae"]


def test_a_model_that_does_not_beat_the_baselines_is_told_so_and_not_promoted(command, demo, as_before):
    arguments = ("train", "hubbard", "--data", str(demo.data), "--preset", "test", "--model", "linear")
    code, out, err = command(*arguments, "--set", "train.epochs=2;train.perturbation=clean;split.judged=[clean]")
    assert code == 0, err
    assert re.search("unseen_mae of (.* and )?kernel_ridge is as good or better: .* cannot be promoted", out)
    store = connect()
    run_id = runs.find(store, "hubbard")[0].id
    store.client.delete_registered_model_alias(NAME, "champion")  # it has no other rival
    refused = answer(command("promote", "hubbard", "--run", run_id, "--json"))
    assert refused["promoted"] is False
    assert verdicts(refused)["baselines"] == "failed"
    assert "champion" not in verdicts(refused)
    metrics = runs.get(store, run_id).metrics
    assert f"kernel_ridge ({metrics['kernel_ridge.unseen_mae']:.4g})" in refused["reason"]
    assert models.version(store, NAME, refused["version"]).tags["gate.promoted"] == "false"


def test_a_file_that_is_not_the_runs_model_fails_the_gate_of_parity(command, demo, trained, as_before):
    """The champion's own file, registered for another run: as good as it gets, but not what the run trained."""
    store, run_id = connect(), trained()["run_id"]
    metadata = {"task": "hubbard", "metrics": {}, "data": {"digest": demo.result["digest"]}}
    models.log_onnx(runs.existing(store, run_id), demo.onnx, sha256(demo.onnx), metadata)
    models.register(store, NAME, run_id)
    refused = answer(command("promote", "hubbard", "--run", run_id, "--json"))
    assert refused["promoted"] is False
    assert verdicts(refused)["parity"] == "failed"
    assert "file and torch model differ" in refused["reason"]


def test_a_smaller_file_is_held_to_its_own_budget(command, demo, trained, as_before, tmp_path):
    """Halves of a float differ by more than the gate of fp32 allows."""
    run_id = trained()["run_id"]
    smaller = ("export", run_id, "--out", str(tmp_path / "model.onnx"), "--precision", "fp16")
    answer(command(*smaller, "--set", "export.budget.U=10", "--json"))
    told = answer(command("promote", "hubbard", "--run", run_id, "--set", "promote.parity=1e-9", "--json"))
    (gate,) = (gate for gate in told["gates"] if gate["name"] == "parity")
    assert gate["verdict"] == "passed"
    assert re.fullmatch(r"fp16 file and torch model differ by [\d.e-]+ in U \(budget 10\)", gate["reason"])
    assert gate["limit"] == 10


def test_a_model_whose_intervals_hold_nothing_fails_the_gate_of_coverage(command, demo, trained, as_before, tmp_path):
    """The run's own file with intervals of no width: the answers are the model's, what it promises of them is not."""
    import onnx

    store, run_id = connect(), trained()["run_id"]
    refused = answer(command("promote", "hubbard", "--run", run_id, "--json"))
    assert verdicts(refused)["coverage"] == "passed"
    graph = onnx.load(models.resolve(store, f"models:/{NAME}/{refused['version']}"))
    for bound in ("lower", "upper"):
        for node in graph.graph.node:
            node.output[:] = [f"{bound} before" if name == bound else name for name in node.output]
            node.input[:] = [f"{bound} before" if name == bound else name for name in node.input]
        graph.graph.node.append(onnx.helper.make_node("Identity", ["prediction"], [bound]))
    onnx.save(graph, tmp_path / "model.onnx")
    metadata = {"task": "hubbard", "metrics": {}, "data": {"digest": demo.result["digest"]}}
    digest = sha256(tmp_path / "model.onnx")
    models.log_onnx(runs.existing(store, run_id), tmp_path / "model.onnx", digest, metadata)
    narrow = models.register(store, NAME, run_id)
    refused = answer(command("promote", "hubbard", "--run", run_id, "--json"))
    assert (refused["version"], refused["promoted"]) == (narrow, False)
    assert {verdicts(refused)[name] for name in ("parity", "sanity")} == {"passed"}
    assert verdicts(refused)["coverage"] == "failed"
    assert re.search(r"intervals hold the truth in clean 0.0% of \d+.*: expected \d+% on clean", refused["reason"])
    assert models.champion(store, NAME).version == as_before.version


def test_intervals_are_not_judged_by_the_states_that_they_were_fitted_to(command, demo, as_before):
    own = answer(command(
        "train", "hubbard", "--data", str(demo.data), "--preset", "test", "--model", "mlp", "--json",
        "--set", "train.epochs=1;calibrate.states=0;calibrate.level=0.5",
    ))  # fmt: skip
    refused = answer(command("promote", "hubbard", "--run", own["run_id"], "--json"))
    assert verdicts(refused)["coverage"] == "not judged"
    assert verdicts(refused)["parity"] == "passed"


def test_a_model_of_other_data_is_not_compared_with_the_champion_on_them(command, demo, trained, as_before):
    other = answer(command(
        "train", "hubbard", "--data", "demo-output/fresh-unseen.zarr", "--preset", "test", "--model", "mlp", "--json",
        "--set", "train.epochs=1",
    ))  # fmt: skip
    refused = answer(command("promote", "hubbard", "--run", other["run_id"], "--json"))
    assert refused["promoted"] is False
    assert verdicts(refused)["data"] == "failed"
    assert f"champion version {as_before.version} was trained on other data" in refused["reason"]
    assert "champion" not in verdicts(refused)
    assert models.champion(connect(), NAME).version == as_before.version


def test_data_for_judging_are_new_to_both(command, demo, trained, as_before, tmp_path):
    """States that the champion was trained on, or that were looked at before, are refused; new ones are taken."""
    store, best = connect(), demo.result["best_run"]
    worse = trained()["run_id"]
    known = answer(command("promote", "hubbard", "--run", worse, "--on", str(demo.data), "--json"))
    assert verdicts(known)["data"] == "failed"
    assert "was trained on" in known["reason"]
    (calibrating,) = demo.data.parent.glob(f"{demo.data.stem}.calibration-*.zarr")  # other data sets have their own
    known = answer(command("promote", "hubbard", "--run", worse, "--on", str(calibrating), "--json"))
    assert verdicts(known)["data"] == "failed"
    assert f"this model was calibrated on {calibrating}" in known["reason"]
    looked = answer(command("promote", "hubbard", "--run", best, "--on", "demo-output/fresh-unseen.zarr", "--json"))
    assert "already" in looked["reason"]  # it is the champion

    models.set_alias(store, NAME, "champion", known["version"])
    looked = answer(command("promote", "hubbard", "--run", best, "--on", "demo-output/fresh-unseen.zarr", "--json"))
    assert verdicts(looked)["data"] == "failed"
    assert "test data are read once" in looked["reason"]
    fresh = tmp_path / "fresh.zarr"
    made = ("simulate", "hubbard", "--preset", "test", "--out", str(fresh))
    values = "simulate.interaction_sampling=uniform;simulate.replicates=2;simulate.draws=1"
    assert command(*made, "--set", values)[0] == 0
    drawn = answer(command("promote", "hubbard", "--run", best, "--on", str(fresh), "--json"))
    assert verdicts(drawn)["data"] == "failed"
    assert "was trained on data of the seed of" in drawn["reason"]
    tags = models.version(store, NAME, drawn["version"]).tags
    assert tags["gate.data"].startswith("failed")
    shutil.rmtree(fresh)
    assert command(*made, "--seed", "77", "--set", f"{values};simulate.image_size=16")[0] == 0
    code, _, err = command("promote", "hubbard", "--run", best, "--on", str(fresh), "--json")
    assert code == 2
    assert f"{fresh}: its image shape is (1, 16, 16), the model's is" in err
    shutil.rmtree(fresh)
    assert command(*made, "--seed", "77", "--set", values)[0] == 0
    taken = answer(command("promote", "hubbard", "--run", best, "--on", str(fresh), "--json"))
    assert taken["promoted"] is True, taken
    assert "on 18 held-out states" in taken["reason"]
    tags = models.version(store, NAME, taken["version"]).tags
    assert tags["gate.data"] == ""  # of the judgement before
    card = store.client.get_model_version(NAME, str(known["version"])).description
    assert "champion" not in next(line for line in card.splitlines() if line.startswith("| aliases"))


def test_states_of_one_filling_are_not_new_under_another_seed(command, demo, tmp_path):
    data = {seed: tmp_path / f"{seed}.zarr" for seed in (0, 77)}
    values = "simulate.filling=[0,0];simulate.replicates=2"
    for seed, path in data.items():
        made = ("simulate", "hubbard", "--preset", "test", "--out", str(path))
        assert command(*made, "--seed", str(seed), "--set", values)[0] == 0
    train = ("train", "hubbard", "--data", str(data[0]), "--preset", "test", "--model", "mlp", "--json")
    run = answer(command(*train, "--set", "train.epochs=1;calibrate.states=12"))["run_id"]
    refused = answer(command("promote", "hubbard", "--run", run, "--on", str(data[77]), "--json"))
    assert verdicts(refused)["data"] == "failed"
    assert f"run {run} was trained on 9 of the states of {data[77]}" in refused["reason"]


def test_two_promotions_at_once_leave_one_champion(command, demo, trained, clean, as_before):
    first, second = trained()["run_id"], trained("train.seed=5")["run_id"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "pipelines", "promote", "hubbard", "--run", run_id, "--force", "a race", "--json"],
            cwd=demo.folder, env=clean, stdout=subprocess.PIPE, text=True,
        )
        for run_id in (first, second)
    ]  # fmt: skip
    results = [json.loads(process.communicate(timeout=500)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    order = sorted(results, key=lambda each: each["champion"]["version"] == as_before.version, reverse=True)
    assert order[0]["champion"]["version"] == as_before.version
    assert order[1]["champion"]["version"] == order[0]["version"]  # it met the first, not the one before
    assert models.champion(connect(), NAME).version == order[1]["version"]


def test_a_champion_that_came_meanwhile_is_not_replaced(command, demo, trained, as_before, monkeypatch):
    """On a server no lock keeps two promotions apart: the later one looks again before it moves the alias."""
    from pipelines.promoting import promotion

    store = connect()
    rival = answer(command("promote", "hubbard", "--run", trained()["run_id"], "--json"))["version"]
    store.client.delete_registered_model_alias(NAME, "champion")
    judge = promotion._judge

    def slowly(*arguments):
        found = judge(*arguments)
        models.set_alias(store, NAME, "champion", rival)
        return found

    monkeypatch.setattr(promotion, "_judge", slowly)
    code, _, err = command("promote", "hubbard", "--run", demo.result["best_run"])
    assert code == 2
    said = re.search(rf"version {rival} of {NAME} became champion while version (\d+) was judged", err)
    of_the_run = [str(one.version) for one in models.versions(store, NAME) if one.run_id == demo.result["best_run"]]
    assert said, err
    assert said[1] in of_the_run  # a run may have been exported more than once
    assert models.champion(store, NAME).version == rival


def test_held_out_numbers_are_those_of_the_files(command, demo, trained):
    """What the gates compare is what anyone gets by asking the file about the run's unseen samples."""
    from deploy.model.session import Session
    from pipelines.promoting import contest, held_out
    from stm_models.tasks.registry import get

    store, task = connect(), get("hubbard")
    champion = models.champion(store, NAME)
    row = runs.get(store, trained()["run_id"])
    held = held_out.held_out(store, task, row, champion, None)
    session = Session(demo.onnx)
    found = contest.perform(task, session, held.sets)
    part = held.sets["clean"]
    wanted = np.abs(session.run(part.images)["prediction"].astype(float) - part.targets)[:, 0]
    np.testing.assert_allclose(found.errors["clean"], wanted, rtol=1e-6)
    assert found.by_set["clean"] == pytest.approx(wanted.mean())
    none = contest.differences(found, found, held.sets)
    assert len(none) == len(np.unique(part.coordinates["group"]))
    assert not none.any()


def test_the_version_that_is_named_is_the_one_judged(command, trained, as_before, tmp_path):
    run_id, versions = trained()["run_id"], []
    for precision in ("fp32", "fp16"):
        done = answer(command(
            "export", run_id, "--out", str(tmp_path / f"{precision}.onnx"), "--precision", precision, "--json",
            "--set", "export.explanations=none" + (";export.budget.U=100" if precision == "fp16" else ""),
        ))  # fmt: skip
        versions.append(done["version"])
    first, newest = versions
    named = ("promote", "hubbard", "--run", f"models:/{NAME}/{first}")
    assert answer(command(*named, "--json"))["version"] == first
    assert answer(command("promote", "hubbard", "--run", run_id, "--json"))["version"] == newest
    assert answer(command(*named, "--force", "tried", "--json"))["promoted"] is True
    assert models.champion(connect(), NAME).version == first
    assert answer(command("promote", "hubbard", "--run", f"models:/{NAME}/{newest}", "--json"))["version"] == newest


def test_a_champion_whose_run_is_gone_can_still_be_replaced(command, demo, trained, as_before, monkeypatch):
    champion, run_id, get = as_before, trained()["run_id"], runs.get

    def without_the_champions(store, wanted):
        if wanted == champion.run_id:
            raise InputError(f"unknown run {wanted!r}")
        return get(store, wanted)

    monkeypatch.setattr(runs, "get", without_the_champions)
    refused = answer(command("promote", "hubbard", "--run", run_id, "--json"))
    assert verdicts(refused)["data"] == "failed"
    assert f"the run of champion version {champion.version}, {champion.run_id}, is gone" in refused["reason"]
    assert "--force WHY" in refused["reason"]
    assert answer(command("promote", "hubbard", "--run", run_id, "--force", "it is gone", "--json"))["promoted"] is True


def test_a_run_whose_error_is_no_number_is_not_the_best(demo, command):
    store = connect()
    found = publishing.candidates(store, get("hubbard"))
    with runs.start(store, "hubbard", "odd") as record:
        best = runs.get(store, found[0].id)
        record.params({key: value for key, value in best.params.items() if key.startswith(("split.", "train.targets"))})
        record.tags({"training.recipe": "x", "data.digest": best.tags["data.digest"]})
        record.metrics({"mae": math.nan, "unseen_mae": math.nan})
    assert [row.id for row in publishing.candidates(store, get("hubbard"))] == [row.id for row in found]
