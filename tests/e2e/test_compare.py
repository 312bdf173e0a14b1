"""Every view of the comparison page in a real browser, over a store that the real commands have filled."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stm_models.data import panel, predictions
from support import browser
from support.stm_server import served
from tracking import rows, runs
from tracking.store import Store, connect

pytestmark = pytest.mark.browser
PATIENCE = 120_000  # ms, on a machine that is busy with other things


@dataclass(frozen=True)
class Site:
    """A running page: its address, the store, and runs by what they are."""

    url: str
    store: Store
    folder: Path
    seeds: str
    best: str
    other: str
    impurity: str
    search: str

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def site(demo, clean, tmp_path_factory):
    """The demo's store, in which another model, two seeds and an impurity model are trained and evaluated, too."""
    from pipelines.cli import main

    folder = tmp_path_factory.mktemp("compare")
    shutil.copytree(demo.as_made, folder, dirs_exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    fresh = demo.data.with_name("fresh.zarr")

    def stm(*arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            out = io.StringIO()
            patch.setattr(sys, "stdout", out)
            assert main([*map(str, arguments), "--json"]) == 0
        return json.loads(out.getvalue())

    best = demo.result["best_run"]
    other = next(run for run in demo.result["runs"][1:] if run != best)
    small = ("--preset", "test", "--set")
    seeds = stm("train", "hubbard", "--data", demo.data, "--model", "linear", "--seeds", 2, *small, "train.epochs=3")
    stm("export", other, "--out", "other.onnx")
    for model in (demo.onnx, "other.onnx"):
        stm("evaluate", model, "--data", fresh, "--perturbation", "clean,mild", "--strength", "0.5,2")
    stm("simulate", "impurity", "--out", "fields.zarr", "--workers", 1, *small, "simulate.fields=10")
    trained = stm("train", "impurity", "--data", "fields.zarr", *small, "train.epochs=2")
    stm("export", trained["run_id"], "--out", "impurity.onnx")
    stm("evaluate", "impurity.onnx", "--data", "fields.zarr")
    with served(["compare"], folder, {**clean, "MLFLOW_TRACKING_URI": uri}) as address:
        search = demo.result["runs"][0]
        yield Site(address, connect(uri), folder, seeds["run_id"], best, other, trained["run_id"], search)


@pytest.fixture
def page(chromium):
    """A page that must not complain of anything."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    found = context.new_page()
    wrong = browser.watched(found)
    yield found
    context.close()
    assert not wrong


def views(site):
    pair = f"{site.best},{site.other},{site.seeds}"
    return {
        "table": "/?open=all&seeds=1", "compare": f"/compare?runs={pair}",
        "panels": f"/panels?runs={site.best},{site.other}",
        "overlays": f"/panels?runs={site.impurity}", "places": f"/compare?runs={site.impurity}",
        "searches": "/tuning", "search": f"/tuning/{site.search}", "models": "/models", "model": "/models/stm-hubbard",
        "run": f"/runs/{site.best}", "nothing": "/?q=nothing-like-it", "wrong search": "/?q=mae%3Csmall",
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible_and_complains_of_nothing(site, page, scheme):
    page.emulate_media(color_scheme=scheme)
    for name, path in views(site).items():
        page.goto(site.url + path)
        page.wait_for_load_state("networkidle")
        assert page.locator("h1").count() == 1, name
        assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)"), name
        assert browser.serious(page) == [], name
        # axe does not look at the colours of a drawing.
        assert page.evaluate("""[...document.querySelectorAll("svg.plot text:not(a text)")].every(
            one => getComputedStyle(one).fill === getComputedStyle(document.body).color)"""), name


def test_the_table_is_worked_with_the_keyboard(site, page):
    page.goto(site.url + "/?experiment=hubbard")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.focus("#q")
    network = rows.get(site.store, site.seeds).tags["network"]
    page.keyboard.type(f"network={network}")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**q=network%3D{network}**")
    names = page.locator("tbody th a[href^='/runs/']")
    names.first.wait_for()
    assert len(names.all()) >= 3
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length > 4")
    toggle = page.locator(f"#open-{site.seeds}")
    assert toggle.get_attribute("aria-expanded") == "false"
    toggle.focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => document.getElementById('open-{site.seeds}').ariaExpanded === 'true'")
    assert page.evaluate("document.activeElement.id") == f"open-{site.seeds}"
    assert page.locator("th.depth1").count() == 2
    head = page.locator("thead a", has_text=re.compile("^unseen_mae$"))
    head.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("th[aria-sort=ascending]")
    for run in (site.best, site.other):
        page.locator(f"input[name=runs][value='{run}']").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Compare the chosen runs").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/compare?**")
    assert page.locator(".legend li").count() == 2


def test_a_comparison_shows_what_was_logged(site, page):
    page.goto(f"{site.url}/compare?runs={site.best},{site.other},{site.seeds}")
    titles = page.evaluate("[...document.querySelectorAll('figure > svg')].map(one => one.getAttribute('aria-label'))")
    for start in ("val_mae over the epochs", "parity of U", "residuals of U", "mae on every perturbation set"):
        assert any(title.startswith(start) for title in titles), titles
    logged = predictions.load(rows.download(site.store, site.best, predictions.FILE))
    column = logged.sets["validation"]["true:U"]
    parity = page.locator("figure > svg[aria-label^='parity of U']")
    # A dot is a part of a path; the first series is the best run.
    drawn = parity.locator("path.dot.c0").first.get_attribute("d")
    assert drawn.count("M") == len(column)
    assert page.locator("path.band").count() >= 1
    table = page.get_by_role("region", name="What differs").inner_text()
    assert "train.network" in table
    assert "split.seed" not in table
    page.select_option("#set", label="unseen values")
    page.wait_for_selector("svg[aria-label='coverage of intervals for U, unseen values']")
    page.select_option("#metric", label="train_loss")
    page.wait_for_selector("svg[aria-label='train_loss over the epochs']")
    assert "metric=train_loss" in page.url
    page.check("#all")
    page.wait_for_function("() => document.body.innerText.includes('split.seed')")
    page.reload()  # the address says it all
    assert page.locator("svg[aria-label='train_loss over the epochs']").count() == 1
    assert page.locator("#all").is_checked()


def test_robustness_over_strength(site, page):
    evaluations = [row for row in rows.find(site.store, "hubbard") if "mild:2.mae" in row.metrics]
    assert len(evaluations) == 2
    metrics = evaluations[0].metrics
    assert len({metrics[f"{name}.mae"] for name in ("clean", "mild:0.5", "mild", "mild:2")}) == 4
    assert "perturbation.mild:2.digest" in evaluations[0].tags
    page.goto(f"{site.url}/compare?runs={','.join(row.id for row in evaluations)}")
    plot = page.locator("figure > svg[aria-label='mae over the strength of mild']")
    dots = plot.locator("path.dot").all()
    assert [one.get_attribute("d").count("M") for one in dots] == [4, 4]
    assert page.locator("figure > svg[aria-label='mae on every perturbation set']").count() == 1


def test_numbers_of_seeds_are_their_mean_and_spread(site):
    children = rows.find(site.store, "hubbard", parent=site.seeds)
    values = np.array([row.metrics["unseen_mae"] for row in children])
    assert len(values) == 2
    text = site.get("/?experiment=hubbard&c=unseen_mae&c=val_mae&open=" + site.seeds)
    # What is before the first row names the open rows too: the form carries them.
    lines = text.split("<tr>")[1:]
    line = next(part for part in lines if f'value="{site.seeds}"' in part)
    assert f"{values.mean():.4g} ± {values.std(ddof=1):.2g}" in line
    # Best, not last, by the history itself.
    for row in children:
        history = [one.value for one in site.store.client.get_metric_history(row.id, "val_mae")]
        line = next(part for part in lines if f'value="{row.id}"' in part)
        assert f">{min(history):.4g}</td>" in line
    exported = list(csv.DictReader(io.StringIO(site.get("/table.csv?experiment=hubbard&c=unseen_mae"))))
    found = next(line for line in exported if line["id"].startswith(site.seeds) or "2 seeds" in line["name"])
    assert float(found["unseen_mae"]) == pytest.approx(values.mean())
    assert float(found["unseen_mae_std"]) == pytest.approx(values.std(ddof=1))


def test_the_sliders_show_every_sample_with_one_scale(site, page):
    page.goto(f"{site.url}/panels?runs={site.best},{site.other}")
    assert page.locator("table.grid tbody tr").count() == 3
    first = page.locator(".tile img").first.get_attribute("src")
    name = page.locator("h2").inner_text()
    page.focus("#sample")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("name => document.querySelector('h2').innerText !== name", arg=name)
    assert "sample=1" in page.url
    assert page.evaluate("document.activeElement.id") == "sample"
    assert page.locator(".tile img").first.get_attribute("src") != first
    found = page.evaluate("[...document.querySelectorAll('.tile img')].map(one => new URL(one.src).search)")
    scales: dict[str, set[tuple[str, ...]]] = {}
    for search in found:
        asked = dict(part.split("=") for part in search[1:].split("&"))
        scales.setdefault(asked["kind"], set()).add((asked["low"], asked["high"], asked["colours"]))
    assert len(scales) >= 2
    assert all(len(each) == 1 for each in scales.values())
    evaluation = next(
        row for row in rows.find(site.store, "hubbard")
        if row.tags.get("evaluated.run") == site.best and row.tags.get("perturbation.mild.digest")
    )  # fmt: skip
    shown = panel.load(rows.download(site.store, evaluation.id, "panel.npz"))
    page.focus("#value")
    page.keyboard.press("End")
    page.wait_for_function("name => document.querySelector('h2').innerText.startsWith(name)",
                           arg=str(shown.names[-1]).split(",")[0])  # fmt: skip
    assert f"sample={len(shown.names) - 1}" in page.url
    said = page.locator("tbody th .quiet").first.inner_text()
    assert f"U = {shown.arrays['prediction'][-1, 0]:.4g} (true {shown.targets[-1, 0]:.4g})" == said


def test_impurities_are_marked_where_they_are(site, page):
    page.goto(f"{site.url}/panels?runs={site.impurity}")
    evaluation = next(
        row for row in rows.find(site.store, "impurity") if row.tags.get("evaluated.run") == site.impurity
    )
    shown = panel.load(rows.download(site.store, evaluation.id, "panel.npz"))
    true = shown.arrays["positions.true"][0]
    true = true[np.isfinite(true).all(axis=1)]
    circles = page.locator(".tile").first.locator("circle")
    assert circles.count() == len(true)
    found = sorted((float(one.get_attribute("cx")), float(one.get_attribute("cy"))) for one in circles.all())
    height = shown.images.shape[-2]
    expected = sorted((x + 0.5, height - 0.5 - y) for y, x in true)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert page.locator("#channel").count() == 1


def test_a_search_and_a_model(site, page):
    page.goto(f"{site.url}/tuning/{site.search}")
    trials = rows.find(site.store, "hubbard", parent=site.search)
    assert page.locator("tbody tr").count() == len(trials)
    assert "from Optuna" in page.locator("caption").inner_text()
    assert page.locator("svg[aria-label^='history of']").count() == 1
    assert page.locator("svg[aria-label='parallel coordinates']").count() == 1
    page.goto(f"{site.url}/models/stm-hubbard")
    lineage = page.locator("svg.lineage")
    assert "@champion" in lineage.text_content()
    lineage.locator("a").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/**")


def test_it_works_without_scripts(site, chromium):
    context = chromium.new_context(java_script_enabled=False)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{site.url}/?experiment=hubbard")
    page.fill("#q", "unseen_mae>=0")
    page.get_by_role("button", name="Show").click()
    assert "q=unseen_mae%3E%3D0" in page.url
    assert page.locator("tbody tr").count() >= 3
    page.goto(f"{site.url}/panels?runs={site.best}")
    page.get_by_role("button", name="Show").click()
    assert page.locator(".tile img").count() >= 2
    context.close()


def test_the_report_is_one_file(site, chromium, monkeypatch, capsys):
    from pipelines.cli import main

    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.store.uri)
    monkeypatch.chdir(site.folder)
    capsys.readouterr()
    assert main(["report", "--experiment", "hubbard", "--out", "report.html", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert site.best in made["runs"]
    experiment = site.store.client.get_experiment_by_name("hubbard").experiment_id
    trials = site.store.client.search_runs([experiment], "tags.trial != ''", max_results=1000)
    assert made["searches"] == len({run.data.tags["mlflow.parentRunId"] for run in trials}) >= 1
    assert made["models"] == ["stm-hubbard"]
    assert main(["report", "--runs", f"{site.best},{site.seeds}", "--out", "two.html"]) == 0
    assert main(["report", "--experiment", "hubard", "--out", "two.html"]) == 2
    assert main(["report", "--runs", "none", "--out", "two.html"]) == 2
    assert main(["report", "--out", "two.pdf"]) == 2
    assert main(["report", "--out", "report.html/two.html"]) == 2
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    wrong, asked = browser.watched(page), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(Path(made["report"]).as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.locator("figure > svg").count() >= 5
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    assert page.locator(".tile img").count() >= 8
    assert browser.serious(page) == []
    context.close()
    assert wrong == []


def test_the_end_of_a_long_table_brings_the_others_and_what_was_chosen_stays(site, page):
    experiment = site.store.experiment("long")
    for number in range(130):
        site.store.client.create_run(experiment, run_name=f"run {number}")
    page.goto(f"{site.url}/?experiment=long")
    rows_of = page.locator("tbody tr")
    assert rows_of.count() == 100
    rows_of.nth(7).locator("input").check()
    chosen = page.locator("input[name=runs]:checked")
    identity = chosen.get_attribute("value")
    page.locator("#more").focus()  # comes into view with it
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 130")
    assert page.locator("#more").count() == 0
    assert chosen.get_attribute("value") == identity
    assert len({one.get_attribute("value") for one in page.locator("input[name=runs]").all()}) == 130
    assert page.evaluate("document.activeElement.className") == "scroll"


def test_a_run_that_goes_on_appears(site, page):
    def shown():
        page.goto(f"{site.url}/?experiment=live")
        return page.locator("tbody").inner_text() if page.locator("tbody").count() else ""

    with runs.start(site.store, "live", "now") as run:
        for step, value in enumerate((0.5, 0.25), 1):
            run.metrics({"val_mae": value}, step)
            deadline = time.monotonic() + 60  # what is recorded is sent in the background
            while f"{value}" not in shown() and time.monotonic() < deadline:
                time.sleep(0.5)
            assert f"{value}" in shown()
            assert page.locator("tbody tr").count() == 1
    table: Any = page.locator("tbody")
    page.reload()
    assert "complete" in table.inner_text()
