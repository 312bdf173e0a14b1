"""The page in a real browser where something fails or comes late: what it shows and says goes together."""

from __future__ import annotations

import json
import os

import onnx
import pytest

from deploy.model.session import Session
from deploy.serving.server import running
from support import browser as browser_tools
from support import impurity_model

wait_status = browser_tools.wait_status

PLACES = [(12, 30), (33, 10), (25, 25)]
WAIT = 120_000

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trouble")


@pytest.fixture(scope="module")
def field(folder):
    return impurity_model.write_field(folder / "field.npz", PLACES)


@pytest.fixture(scope="module")
def models(folder):
    """A model of a task that the server knows, and one of a task that it does not."""
    path = impurity_model.write(folder / "places.onnx")
    foreign = onnx.load(path)
    onnx.helper.set_model_props(foreign, {"stm": json.dumps({**impurity_model.ABOUT, "task": "glasses"})})
    onnx.save(foreign, folder / "foreign.onnx")
    paths = {"places": path, "foreign": folder / "foreign.onnx"}
    return {name: Session(path, provider="cpu", threads=1) for name, path in paths.items()}


@pytest.fixture(scope="module")
def url(models, folder, field):
    (folder / "examples").mkdir()
    (folder / "examples" / "field.npz").write_bytes(field.read_bytes())
    with running(models, examples=folder / "examples") as url:
        yield url


@pytest.fixture
def page(chromium):
    """An empty page; an error of its scripts that nothing catches fails the test."""
    page = chromium.new_context().new_page()
    page.set_default_timeout(WAIT)
    uncaught = []
    page.on("pageerror", lambda error: uncaught.append(str(error)))  # it refuses a built-in
    yield page
    page.context.close()
    assert uncaught == []


def opened(page, url):
    page.goto(url)
    page.locator("#card h3").first.wait_for()
    return page


def test_a_file_chosen_before_the_token_waits_for_it(page, models, field):
    with running(models, token="a-long-word") as url:
        page.goto(url)
        page.locator("#token").wait_for()
        page.set_input_files("#file", field)
        assert "a valid token is needed" in page.inner_text("#error")
        page.fill("#token", "a-long-word")
        page.keyboard.press("Enter")
        wait_status(page, "Answer: ")
        assert page.inner_text("#error") == ""


def test_a_file_chosen_where_no_models_came(page, url, field):
    page.route("**/page/models", lambda route: route.fulfill(status=503, json={"error": "enough to do"}))
    page.goto(url)
    page.locator("#error", has_text="enough to do").wait_for()
    page.set_input_files("#file", field)
    page.wait_for_timeout(200)
    assert page.inner_text("#error") == "enough to do"
    assert page.inner_text("#status") == ""


def test_a_file_that_was_saved_anew_is_to_be_chosen_again(page, url, folder, field):
    mine = folder / "mine.npz"
    mine.write_bytes(field.read_bytes())
    opened(page, url).set_input_files("#file", mine)
    wait_status(page, "Answer: ")
    page.click("#options summary")
    stamp = mine.stat().st_mtime + 10  # browsers compare seconds
    os.utime(mine, (stamp, stamp))
    for ask in (lambda: page.click("#again"), lambda: page.select_option("#place", "1")):
        ask()
        page.locator("#error", has_text="mine.npz has changed since it was chosen: choose it again").wait_for()
        with page.expect_file_chooser() as waiting:
            page.click("#file")
        assert page.input_value("#file") == ""  # so that the same path is a change
        waiting.value.set_files(mine)
        wait_status(page, "Answer: ")
        assert page.inner_text("#error") == ""
        stamp += 10
        os.utime(mine, (stamp, stamp))
    mine.unlink()
    page.click("#again")
    page.locator("#error", has_text="mine.npz has changed").wait_for()


def test_a_server_that_has_gone_is_told(page, models, field):
    with running(models) as url:
        opened(page, url).set_input_files("#file", field)
        wait_status(page, "Answer: ")
    page.click("#options summary")
    page.click("#again")
    page.locator("#error", has_text="The server does not answer").wait_for()


def test_an_explanation_that_fails_leaves_the_controls_at_what_is_shown(page, url, field):
    opened(page, url).set_input_files("#file", field)
    wait_status(page, "Answer: ")
    page.select_option("#place", "1")
    wait_status(page, "Showing gradient")
    page.route("**/ask?*", lambda route: route.fulfill(status=503, json={"error": "enough to do"}))
    page.select_option("#place", "2")
    page.locator("#error", has_text="enough to do").wait_for()
    assert page.input_value("#place") == "1"
    assert page.input_value("#explain") == "gradient"
    assert page.inner_text("#explained").startswith("gradient of place 1:")
    page.unroute("**/ask?*")
    page.select_option("#place", "2")
    wait_status(page, "Showing gradient")
    assert page.inner_text("#error") == ""
    assert page.inner_text("#explained").startswith("gradient of place 2:")


def test_an_explanation_that_comes_after_another_choice(page, url, field):
    opened(page, url).set_input_files("#file", field)
    wait_status(page, "Answer: ")
    held = []
    page.route("**/ask?*", lambda route: held.append(route))  # it refuses a built-in
    page.select_option("#place", "2")
    wait_status(page, "Computing gradient")
    caption = page.inner_text("#explained")
    page.locator("#opacity").press("Home")  # draws again what was there
    assert page.inner_text("#explained") == caption != ""
    page.select_option("#explain", "")
    wait_status(page, "Showing the image alone")
    while not held:
        page.wait_for_timeout(50)
    with page.expect_response("**/ask?*") as waiting:
        held[0].continue_()
    waiting.value.finished()
    page.wait_for_timeout(300)
    assert page.inner_text("#status") == "Showing the image alone."
    assert page.inner_text("#explained") == ""


def test_the_live_region_is_there_before_it_speaks(page, url):
    opened(page, url)
    assert page.inner_text("#status") == ""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    assert "status" in [node["role"]["value"] for node in nodes if not node["ignored"]]


def test_files_are_not_offered_for_a_task_that_the_server_does_not_know(page, url, field):
    opened(page, url).set_input_files("#file", field)
    wait_status(page, "Answer: ")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.select_option("#model", "foreign")
    page.locator("#no-files", has_text="does not know the task").wait_for()
    for name in ("#file", "#use-example", "#options", "#result"):
        assert not page.is_visible(name)
    assert [one for one in asked if "/ask" in one] == []
    assert browser_tools.serious(page) == []
    page.select_option("#model", "places")
    wait_status(page, "Answer: ")
    for name in ("#file", "#use-example", "#options", "#result"):
        assert page.is_visible(name)
    assert not page.is_visible("#no-files")
