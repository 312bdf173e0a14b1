"""The page in a real browser, as people use it: mouse, keyboard, screen reader, dark, narrow; and real files."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import xarray
from PIL import Image

from deploy.client import Client
from deploy.model.session import Session
from deploy.serving.server import running
from stm_models.tasks.impurity.answers import COLUMNS
from support import browser as browser_tools
from support import impurity_model

wait_status = browser_tools.wait_status

PLACES = [(12, 30), (33, 10), (25, 25)]
WAIT = 120_000
TOP, LEFT, RIGHT = 10, 58, 14  # of the plot in the canvas


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def models(demo, folder):
    places = impurity_model.write(folder / "places.onnx")
    return {
        name: Session(path, provider="cpu", threads=1)
        for name, path in (("stm-hubbard", demo.onnx), ("stm-impurity", places))
    }


@pytest.fixture(scope="module")
def image(demo, folder):
    """One image of the demo's data set, as a file; its answer by the model itself."""
    path = folder / "image.npy"
    np.save(path, xarray.open_zarr(demo.data).image.values[0])
    return path


@pytest.fixture(scope="module")
def url(models, folder, image):
    examples = folder / "examples"
    examples.mkdir()
    impurity_model.write_field(examples / "field.npz", PLACES)
    with running(models, examples=examples) as url:
        yield url


@pytest.fixture
def page(chromium, url, request):
    """A loaded page; whatever the browser complains of fails the test."""
    context = chromium.new_context(accept_downloads=True, **getattr(request, "param", {}))
    page = context.new_page()
    page.set_default_timeout(WAIT)
    complaints = browser_tools.watched(page)
    page.goto(url)
    page.locator("#card h3").first.wait_for()
    yield page
    context.close()
    # A refused question is told by the browser as a failed resource: that is what an error path is.
    assert [text for text in complaints if "status of 400" not in text and not text.startswith("400 ")] == []


def wait_answer(page):
    wait_status(page, "Answer: ")


def drop(page, path):
    """Drop a file as the file manager does."""
    transfer = page.evaluate_handle(
        """([text, name]) => {
            const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name));
            return transfer;
        }""",
        [base64.b64encode(path.read_bytes()).decode(), path.name],
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def pixels(page):
    """The canvas as numbers."""
    text = page.evaluate("document.getElementById('picture').toDataURL('image/png').split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")).astype(int)


def colour(array):
    """How far pixels of the plot are from grey, summed."""
    plot = array[12 : array.shape[1] - LEFT - RIGHT, LEFT + 2 : -RIGHT - 2]
    return int((plot.max(axis=2) - plot.min(axis=2)).sum())


def downloaded(page, button):
    with page.expect_download() as waiting:
        page.click(button)
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def set_opacity(page, value):
    page.locator("#opacity").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input', {bubbles: true})); }", value
    )


pytestmark = pytest.mark.browser


def test_drop_a_file_and_read_the_number(page, models, image):
    drop(page, image)
    wait_answer(page)
    session = models["stm-hubbard"]
    expected = float(session.run(np.load(image)[None])["prediction"][0, 0])
    assert page.inner_text("#values").startswith(f"U = {float(f'{expected:.4g}'):g} eV")
    assert "ike the training data" in page.inner_text("#verdict")
    assert page.locator("#notes li").count() >= 1
    assert session.metadata.sha256 in page.inner_text("#card")
    assert session.metadata.data["digest"] in page.inner_text("#card")

    with_map = pixels(page)
    set_opacity(page, 0)
    assert page.inner_text("#opacity-value") == "0 %"
    hidden = pixels(page)
    page.select_option("#explain", "")
    wait_status(page, "Showing the image")
    bare = pixels(page)
    assert colour(with_map) > 10_000
    assert colour(bare) == 0
    assert colour(hidden) == 0
    assert bare.shape[0] < with_map.shape[0]  # the explanation's legend is gone too

    page.select_option("#explain", "gradient")
    set_opacity(page, 100)
    name, content = downloaded(page, "#csv")
    assert name == "image_answer.csv"
    (row,) = csv.DictReader(io.StringIO(content.decode()))
    assert (row["name"], row["unit"]) == ("U", "eV")
    assert float(row["value"]) == pytest.approx(expected, rel=1e-5)
    assert row["model_sha256"] == session.metadata.sha256
    name, content = downloaded(page, "#json")
    found = json.loads(content)
    assert (name, found["file"]) == ("image_answer.json", "image.npy")
    map_ = np.frombuffer(base64.b64decode(found["maps"]["gradient"]["base64"]), "<f4")
    wanted = session.run(np.load(image)[None], ["gradient"])["gradient"][0]
    np.testing.assert_allclose(map_.reshape(wanted.shape), wanted, rtol=1e-4, atol=1e-6)
    name, content = downloaded(page, "#png")
    assert name == "image_answer.png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int), pixels(page))


def test_the_image_is_drawn_as_it_is(page, image):
    """Grey values of the canvas follow the array, the first row at the bottom."""
    page.set_input_files("#file", image)
    wait_answer(page)
    page.select_option("#explain", "")
    wait_status(page, "Showing the image")
    drawn, values = pixels(page)[..., 0], np.load(image)[0]
    height, width = values.shape
    side = drawn.shape[1] - LEFT - RIGHT
    y = (TOP + side * (1 - (np.arange(height) + 0.5) / height)).astype(int)
    x = (LEFT + side * (np.arange(width) + 0.5) / width).astype(int)
    assert np.corrcoef(np.log(values).ravel(), drawn[np.ix_(y, x)].ravel())[0, 1] > 0.999


def test_impurities_by_an_example(page):
    page.select_option("#model", "stm-impurity")
    assert "Impurity positions" in page.inner_text("#title")
    page.click("#use-example")
    wait_answer(page)
    rows = page.locator("#tables tbody tr").all_inner_texts()
    head = page.locator("#tables thead th").all_inner_texts()
    table = [dict(zip(head, row.split("\t"), strict=True)) for row in rows]
    got = sorted((round(float(row["y_px"])), round(float(row["x_px"]))) for row in table)
    assert got == sorted(PLACES)

    marked = pixels(page)
    page.uncheck("#markers")
    unmarked = pixels(page)
    changed = np.argwhere((marked != unmarked).any(axis=2))
    side = marked.shape[1] - LEFT - RIGHT
    for y, x in PLACES:
        centre = [TOP + side * (1 - (y + 0.5) / impurity_model.SIDE), LEFT + side * (x + 0.5) / impurity_model.SIDE]
        ring = np.hypot(*(changed - centre).T)
        assert ring.min() == pytest.approx(7, abs=4)
        assert (ring < 10).sum() > 40

    strongest = pixels(page)
    page.select_option("#place", "2")
    wait_status(page, "Showing gradient")
    assert page.inner_text("#explained").startswith("gradient of place 2")
    assert (pixels(page) != strongest).any()
    _, content = downloaded(page, "#csv")
    found = list(csv.DictReader(io.StringIO(content.decode())))
    assert [float(row["x_px"]) for row in found] == pytest.approx([float(row["x_px"]) for row in table], abs=0.01)


def test_a_field_without_impurities_has_a_table_without_rows(page, tmp_path):
    side = impurity_model.SIDE
    size = (side * impurity_model.PIXEL,) * 2
    phase = 2 * np.pi * (6 * np.add(*np.mgrid[:side, :side]) / side + np.arange(3)[:, None, None] / 3)
    # Its mean over the biases, which is the model's score, is zero.
    np.savez(tmp_path / "bare.npz", data=np.cos(phase), bias=impurity_model.BIASES, size_nm=size)
    page.select_option("#model", "stm-impurity")
    page.set_input_files("#file", tmp_path / "bare.npz")
    page.locator("#values", has_text="0 impurities").wait_for()
    _, content = downloaded(page, "#csv")
    common = ("distance", "inside", "model_sha256")
    assert list(csv.reader(io.StringIO(content.decode()))) == [["number", *COLUMNS, *common]]


def test_a_file_that_does_not_say_its_size(page, tmp_path):
    np.save(tmp_path / "map.npy", np.random.default_rng(0).random((40, 40)))
    page.set_input_files("#file", tmp_path / "map.npy")
    page.locator("#error", has_text="map.npy: got an array of shape").wait_for()
    assert "“Size of the field, height x width (nm)”" in page.inner_text("#error")
    assert page.evaluate("document.activeElement.id") == "size_nm"
    assert page.get_attribute("#size_nm", "aria-invalid") == "true"
    assert page.is_visible("#size_nm")
    assert not page.is_visible("#result")
    page.keyboard.type("4x4")
    page.keyboard.press("Enter")
    wait_answer(page)
    assert page.inner_text("#error") == ""
    assert page.get_attribute("#size_nm", "aria-invalid") == "false"
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    page.set_input_files("#file", tmp_path / "notes.pdf")
    page.locator("#error", has_text="notes.pdf is of no kind that can be read").wait_for()


def test_names_of_files_are_text(page, folder, image):
    hostile = folder / "<img src=x onerror=alert(1)>.npy"
    hostile.write_bytes(image.read_bytes())
    page.set_input_files("#file", hostile)
    wait_answer(page)
    assert hostile.name in page.inner_text("#source")
    assert page.locator("#source img").count() == 0


def test_by_keyboard_alone(page, image):
    def tab_to(name):
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"Tab never reached {name}")

    choosers = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))  # it refuses a built-in
    tab_to("model")
    tab_to("file")
    page.keyboard.press("Enter")
    while not choosers:
        page.wait_for_timeout(50)
    choosers[0].set_files(image)
    wait_answer(page)
    tab_to("explain")
    tab_to("opacity")
    before = pixels(page)
    page.keyboard.press("Home")
    assert page.inner_text("#opacity-value") == "0 %"
    assert (pixels(page) != before).any()
    tab_to("csv")
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert waiting.value.suggested_filename == "image_answer.csv"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # focus is seen


@pytest.mark.parametrize(
    "page",
    [
        {"color_scheme": "light", "viewport": {"width": 1100, "height": 900}},
        {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}, "has_touch": True},
    ],
    indirect=True,
    ids=["light", "dark on a phone"],
)
def test_accessible_in_light_and_dark(page, image):
    page.select_option("#model", "stm-impurity")
    page.click("#use-example")
    wait_answer(page)
    page.locator("#options summary").click()
    assert browser_tools.serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    level = sum(int(part) for part in back[4:-1].split(",")) / 3
    scheme = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (level < 60) is scheme
    corner = pixels(page)[-2, 2].mean()  # the canvas follows
    assert bool(corner < 60) is scheme


def test_a_token_is_asked_for_and_used(chromium, models, image):
    with running({"stm-hubbard": models["stm-hubbard"]}, token="a-long-word") as url:
        page = chromium.new_context().new_page()
        page.set_default_timeout(WAIT)
        page.goto(url)
        page.locator("#token").wait_for()
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.locator("#error", has_text="a valid token is needed").wait_for()
        page.fill("#token", "a-long-word")
        page.keyboard.press("Enter")
        page.locator("#card h3").first.wait_for()
        page.set_input_files("#file", image)
        wait_answer(page)
        assert page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0
        page.context.close()


def test_maps_and_downloads_are_of_the_question_that_was_answered(chromium, tmp_path):
    first, second, notes = tmp_path / "first.npz", tmp_path / "second.npz", tmp_path / "notes.pdf"
    impurity_model.write_field(first, PLACES)
    impurity_model.write_field(second, PLACES[:2])
    notes.write_bytes(b"%PDF")
    model = Session(impurity_model.write(tmp_path / "places.onnx"), provider="cpu", threads=1)
    with running({"stm-impurity": model}) as url:
        page = chromium.new_context(accept_downloads=True).new_page()
        page.set_default_timeout(WAIT)
        page.goto(url)
        page.locator("#card h3").first.wait_for()
        page.set_input_files("#file", first)
        wait_answer(page)
        page.locator("#options summary").click()
        page.fill("#key", "an array that the file has not")  # not asked with
        page.select_option("#place", "2")
        wait_status(page, "Showing gradient")
        name, content = downloaded(page, "#json")
        assert name == "first_answer.json"
        assert json.loads(content)["options"]["key"] == ""
        page.fill("#key", "")

        held = []
        page.route("**/ask?*", lambda route: held.append(route))  # it refuses a built-in
        page.set_input_files("#file", second)
        wait_status(page, "Reading second.npz")
        assert not page.is_visible("#result")  # its controls would mix two files
        while not held:
            page.wait_for_timeout(50)
        held[0].continue_()
        wait_answer(page)
        assert downloaded(page, "#csv")[0] == "second_answer.csv"
        page.set_input_files("#file", notes)
        page.locator("#error", has_text="notes.pdf is of no kind that can be read").wait_for()
        assert not page.is_visible("#result")
        page.context.close()


REAL = {
    "STS_grid_lockin.3ds": ("stm-impurity", {}, "impurit"),
    "m_nematic.mat": ("stm-hubbard", {"key": "m428", "channel": "43", "size_nm": "50x50"}, "U = "),
    "STM_nanonis_generic_4_5.sxm": ("stm-hubbard", {}, "U = "),
}


@pytest.fixture(scope="module")
def real():
    named = os.environ.get("STM_REALDATA")
    if not named:
        pytest.skip("STM_REALDATA is not set: it names a folder of instrument files")
    return {path.name: path for path in Path(named).rglob("*")}


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_real_files_through_the_page(page, url, real, name):
    if name not in real:
        pytest.skip(f"STM_REALDATA has no {name}")
    model, options, words = REAL[name]
    page.select_option("#model", model)
    page.locator("#options summary").click()
    for field, value in options.items():
        page.fill(f"#{field}", value)
    page.set_input_files("#file", real[name])
    wait_answer(page)
    assert words in page.inner_text("#values")
    # The same through the API.
    reading = {**options, "size_nm": (50, 50)} if "size_nm" in options else options
    found = Client(url, model, timeout=120).ask(real[name], **reading)
    assert found["words"] in page.inner_text("#status")
    assert np.isfinite(found["image"]["array"]).any()
