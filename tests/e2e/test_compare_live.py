"""What the comparison page changes in place stays true: controls, addresses, chosen runs, an answer that fails."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest

from deploy.serving.listening import beside, listen
from support import browser
from tracking.backend import Metric
from tracking.store import connect
from tracking.ui.app import create_app

pytestmark = pytest.mark.browser
PATIENCE = 60_000  # ms, on a machine that is busy with other things


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two experiments with other parameters, one of them with a run that has another below it."""
    found = connect(f"sqlite:///{tmp_path_factory.mktemp('live')}/mlflow.db")
    for experiment, param, names in (("one", "alpha", ("a", "b", "c")), ("two", "beta", ("d",))):
        parent = None
        for number, name in enumerate(names):
            tags = {"mlflow.parentRunId": parent} if parent else {}
            run = found.client.create_run(found.experiment(experiment), run_name=name, tags=tags).info.run_id
            parent = run if name == "b" else None
            found.client.log_param(run, param, number)
            curves = {"val_loss": [0.4, 0.2], "energy_error": [-0.1, 0.1 + number]}
            found.client.log_batch(run, [
                Metric(key, value, 0, step) for key, values in curves.items() for step, value in enumerate(values)
            ])  # fmt: skip
            found.client.set_terminated(run)
    return found


@pytest.fixture(scope="module")
def ids(store):
    every = [store.client.get_experiment_by_name(name).experiment_id for name in ("one", "two")]
    return {run.info.run_name: run.info.run_id for run in store.client.search_runs(every)}


@pytest.fixture(scope="module")
def url(store):
    listener, address = listen("127.0.0.1", 0)
    with listener, beside(create_app(store), listener):
        yield address


@pytest.fixture
def page(chromium):
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def names(page):
    return page.locator("tbody th a[href^='/runs/']").all_inner_texts()


def until(page, *expected):
    page.wait_for_function(
        "names => JSON.stringify([...document.querySelectorAll(\"tbody th a[href^='/runs/']\")]"
        ".map(one => one.textContent)) === names",
        arg="[" + ",".join(f'"{one}"' for one in expected) + "]",
    )


def test_a_server_that_is_gone_is_told_and_is_no_longer_once_it_is_back(store, ids, page):
    app = create_app(store)
    with ExitStack() as running:
        listener, address = listen("127.0.0.1", 0)
        running.enter_context(listener)
        running.enter_context(beside(app, listener))
        page.goto(f"{address}/compare?runs={ids['a']}")
        running.close()
        page.select_option("#metric", label="energy_error")
        alert = page.locator("main > p[role=alert]")
        alert.wait_for()
        assert f"{address.removeprefix('http://')} does not answer" in alert.inner_text()
        assert page.locator("main > :first-child").get_attribute("role") == "alert"
        assert page.locator("svg[aria-label='val_loss over the epochs']").count() == 1
        assert browser.serious(page) == []
        listener, _ = listen("127.0.0.1", int(address.rpartition(":")[2]))
        running.enter_context(listener)
        running.enter_context(beside(app, listener))
        page.get_by_role("button", name="Show").click()
        page.locator("svg[aria-label='energy_error over the epochs']").wait_for()
        assert alert.count() == 0


def test_an_answer_that_refuses_is_told_in_its_own_words(url, ids, page):
    page.goto(f"{url}/compare?runs={ids['a']}")
    page.evaluate("document.getElementById('metric').selectedOptions[0].value = 'nothing'")
    page.get_by_role("button", name="Show").click()
    page.locator("main > p[role=alert]", has_text="nothing").wait_for()
    assert page.locator("svg[aria-label='val_loss over the epochs']").count() == 1
    page.route("**/compare?*", lambda route: route.fulfill(status=401, body="a token is needed"))
    page.select_option("#metric", label="energy_error")
    page.locator("main > p[role=alert]", has_text="a token is needed").wait_for()
    assert page.locator("main > p[role=alert]").count() == 1


def test_order_and_columns_are_those_of_the_table_shown(url, page):
    page.goto(f"{url}/?experiment=one")
    page.locator("thead a", has_text=re.compile("^run$")).click()
    page.wait_for_selector("th[aria-sort=ascending]")
    page.locator("thead a", has_text=re.compile("^run$")).click()
    page.wait_for_selector("th[aria-sort=descending]")
    page.fill("#q", "val_loss<1")
    page.wait_for_url("**q=val_loss*")
    assert "sort=name&desc=1" in page.url
    assert page.locator("th[aria-sort=descending]").count() == 1
    columns = page.locator("details")
    columns.locator("summary").click()
    columns.locator("input[value='param.alpha']").check()
    page.wait_for_url("**c=param.alpha*")
    assert page.evaluate("document.activeElement.value") == "param.alpha"
    columns.locator("input[value='param.alpha']").uncheck()
    page.fill("#q", "")
    page.select_option("#experiment", label="two")
    page.wait_for_url("**experiment=two*")
    assert columns.get_attribute("open") is not None
    assert columns.locator("input[value='param.beta']").count() == 1
    assert columns.locator("input[value='param.alpha']").count() == 0
    assert page.title() == "Runs of two"


def never(page, *, with_, without):
    """Leave questions unanswered, of those that have one word in them and not the other."""
    page.route(re.compile(f"/[?].*{with_}"), lambda route: route.continue_() if without in route.request.url else None)


def test_what_is_typed_keeps_the_order_asked_for_before_and_the_rows_that_are_open(url, ids, page):
    page.goto(f"{url}/?experiment=one")
    page.locator(f"#open-{ids['b']}").click()
    until(page, "b", "c", "a")
    never(page, with_="sort=name", without="q=")
    page.locator("thead a", has_text=re.compile("^run$")).click()
    page.fill("#q", "val_loss<1")
    page.wait_for_url("**q=val_loss*")
    assert "sort=name" in page.url
    assert f"open={ids['b']}" in page.url
    page.wait_for_selector("th[aria-sort=ascending]")


def test_a_link_keeps_what_is_typed_and_asked_for_before(url, ids, page):
    page.goto(f"{url}/?experiment=one")
    until(page, "b", "a")
    never(page, with_="q=val_loss", without="open=")
    page.fill("#q", "val_loss<1")
    page.locator("thead a", has_text=re.compile("^run$")).click()
    page.locator(f"#open-{ids['b']}").click()
    page.wait_for_url("**open=*")
    assert "q=val_loss" in page.url
    assert "sort=name" in page.url
    assert page.locator("th[aria-sort=ascending]").count() == 1


def test_chosen_runs_stay_chosen_whatever_is_shown(url, ids, page):
    page.goto(f"{url}/?experiment=one")
    until(page, "b", "a")
    page.get_by_label("compare a").check()
    page.locator(f"#open-{ids['b']}").click()
    until(page, "b", "c", "a")
    assert page.get_by_label("compare a").is_checked()
    page.get_by_label("compare c").check()
    page.locator(f"#open-{ids['b']}").click()
    until(page, "b", "a")
    absent = page.locator("#absent")
    assert " ".join(absent.inner_text().split()) == "Not in this table: compare c"
    assert browser.serious(page) == []
    page.select_option("#experiment", label="two")
    until(page, "d")
    assert absent.locator("input:checked").count() == 2
    absent.get_by_label("compare a").uncheck()
    page.fill("#q", "nothing-like-it")
    page.get_by_text("No runs with").wait_for()
    page.fill("#q", "")
    until(page, "d")
    assert " ".join(absent.inner_text().split()) == "Not in this table: compare c"
    page.get_by_label("compare d").check()
    page.get_by_role("button", name="Compare the chosen runs").click()
    page.wait_for_url("**/compare?**")
    assert page.locator(".legend a").all_inner_texts() == ["c", "d"]


def test_the_address_of_the_view_is_that_of_the_view(url, ids, page):
    page.goto(f"{url}/compare?runs={ids['a']}")
    page.select_option("#metric", label="energy_error")
    page.locator("figcaption", has_text="1 value ≤ 0").wait_for()
    assert page.input_value("#scale") == ""
    address = page.get_by_text("address of this view").get_attribute("href")
    assert "metric=energy_error" in address
    assert "scale=" not in page.url


def test_an_answer_under_way_does_not_undo_what_is_chosen_meanwhile(url, page):
    page.goto(f"{url}/?experiment=one")
    held = []
    page.route("**/?*experiment=two*", lambda route: held.append(route))
    page.select_option("#experiment", label="two")
    while not held:
        page.wait_for_timeout(20)
    page.route("**/?*seeds=1*", lambda route: held.append(route))
    page.locator("#seeds").check()
    while len(held) < 2:
        page.wait_for_timeout(20)
    held[0].continue_()
    page.wait_for_timeout(300)
    assert names(page) == ["b", "a"]
    page.evaluate("document.getElementById('seeds').dispatchEvent(new Event('input', {bubbles: true}))")
    held[1].continue_()  # before the question that follows is asked
    page.wait_for_timeout(100)
    assert names(page) == ["b", "a"]
    while len(held) < 3:
        page.wait_for_timeout(20)
    held[2].continue_()
    until(page, "d")
