"""What is written down of a model: where it comes from, its card, and whether its training comes out the same again."""

from __future__ import annotations

import re

from stm_models.files import sha256
from support.outcomes import answer
from tracking import models, runs
from tracking.store import connect

NAME = "stm-hubbard"


def test_lineage_goes_both_ways(command, demo, tmp_path):
    store, best = connect(), demo.result["best_run"]
    # A run may be exported more than once: the version that holds the demo's file.
    (number,) = {one.version for one in models.versions(store, NAME)
                 if one.run_id == best and one.sha256 == sha256(demo.onnx)}  # fmt: skip
    found = answer(command("lineage", f"models:/{NAME}/{number}", "--json"))
    row = runs.get(store, best)
    assert found["kind"] == "version"
    expected = {
        "run": best, "data.digest": demo.result["digest"], "data.recipe": row.tags["data.recipe"],
        "git.commit": row.tags.get("git.commit"), "sha256": sha256(demo.onnx),
    }  # fmt: skip
    assert expected.items() <= {"git.commit": None, **found["origin"]}.items()
    assert found["origin"]["data.simulator_version"]
    for what in (str(demo.data), demo.result["digest"][:12]):
        made = answer(command("lineage", what, "--json"))
        assert made["origin"]["data.digest"] == demo.result["digest"]
        each = next(one for one in made["descendants"] if one["run"] == best)
        assert (NAME, number) in {(one["model"], one["version"]) for one in each["versions"]}
        assert len(each["evaluations"]) >= 2
    assert answer(command("lineage", str(demo.onnx), "--json"))["origin"]["run"] == best
    assert answer(command("lineage", f"runs:/{best}", "--json"))["kind"] == "run"
    assert "@champion" in command("lineage", best)[1]
    (tmp_path / "other.onnx").write_bytes(b"x")
    for wrong, said in (
        ("0" * 12, "unknown digest"), (str(tmp_path / "other.onnx"), "made elsewhere"), ("nonsense", "cannot trace"),
        (str(tmp_path), "give a data set made by"),
    ):  # fmt: skip
        code, _, err = command("lineage", wrong)
        assert code == 2
        assert said in err


def test_a_run_repeated_comes_out_the_same_or_says_what_differs(command, demo, trained, tmp_path):
    first = trained("train.seed=3")
    again = answer(command("rerun", first["run_id"], "--json"))
    assert again["same"] is True
    assert again["metrics"] == first["metrics"]
    store = connect()
    assert runs.get(store, again["run_id"]).tags["rerun.of"] == first["run_id"]
    store.client.log_metric(first["run_id"], "mae", first["metrics"]["mae"] + 1)
    code, out, _ = command("rerun", f"runs:/{first['run_id']}", "--data", str(demo.data))
    assert code == 0
    assert f"1 of {len(first['metrics'])} metrics differ" in out
    for arguments, said in (
        ((first["run_id"], "--data", str(tmp_path / "gone.zarr")), "simulate it again"),
        ((first["run_id"], "--data", "demo-output/fresh.zarr"), "was trained on"),
        ((demo.result["runs"][0],), "no finished training"),
    ):
        code, _, err = command("rerun", *arguments)
        assert code == 2
        assert said in err


def test_the_card_says_what_it_is_for_and_lets_no_text_act(command, demo):
    store = connect()
    version = models.champion(store, NAME)
    described = store.client.get_model_version(NAME, str(version.version)).description
    assert demo.result["digest"] in described
    assert "not to be trusted" in described
    page = runs.download(store, version.run_id, f"card/model_card_{version.version}.html").read_text()
    assert "<h2>Gates</h2>" in page

    from pipelines.promoting.model_card import Card, Section, html, markdown

    hostile = '<script>alert(1)</script> | "x"'
    card = Card(hostile, (Section(hostile, hostile, ((hostile, hostile),)),))
    assert "<script" not in html(card)
    assert "<script" not in markdown(card)
    row = next(line for line in markdown(card).splitlines() if line.startswith("| &lt;"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
