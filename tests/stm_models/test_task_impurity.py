"""The task impurity: its scores, answers and files, and what it takes for an image."""

import csv
import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.physics.surface import materials
from stm_models.physics.surface.field_recipe import FieldRecipe
from stm_models.physics.surface.training_fields import training_field
from stm_models.signal.calibration import Calibration
from stm_models.tasks import registry
from stm_models.tasks.impurity import drawing, scoring
from stm_models.tasks.impurity.answer_files import voltage_shares
from stm_models.tasks.impurity.answers import positions, write_positions
from stm_models.tasks.impurity.labels import heat_map
from stm_models.tasks.impurity.measured import to_pixels
from stm_models.tasks.impurity.simulation import plan, simulator
from stm_models.tasks.inputs import RawMap
from stm_models.tasks.outputs import PlaceMaps
from support import impurity_cases as cases

GOLD, BIASES, QUIET, make, fields = cases.GOLD, cases.BIASES, cases.QUIET, cases.make, cases.fields
answer_of = cases.answer_of


@pytest.fixture(scope="module")
def task():
    return registry.get("impurity")


def samples_of(results, **attributes):
    images = np.concatenate([r.arrays["image"] for r in results])
    where = np.concatenate([r.arrays["positions"] for r in results])
    return SimpleNamespace(images=images, arrays={"positions": where}, coordinates={}, attributes=attributes)


def perfect(samples, size=32):
    return np.stack([heat_map(true, (size, size))[None] for true in scoring.truths(samples)])


def test_a_perfect_map_scores_one(task):
    samples = samples_of(fields(fields=6))
    prediction = perfect(samples)
    calibration = json.loads(json.dumps(task.calibrate(prediction, samples), allow_nan=False))
    found = task.metrics(prediction, samples, calibration)
    assert found["f1"] == found["top_f1"] == 1
    assert found["error_px"] < 0.1
    assert all(np.isfinite(value) for value in found.values())
    worse = task.metrics(np.roll(prediction, 3, axis=-1), samples, calibration)
    assert worse["f1"] < 0.5
    nothing = task.metrics(np.zeros_like(prediction), samples, calibration)
    assert nothing["f1"] == nothing["count"] == 0
    assert task.calibrate(np.zeros_like(prediction), samples) == {}


def test_reliability_is_of_what_is_reported(task):
    """Of one right and one wrong place, both surely reported, and of a lot of background."""
    config = make(fields=1)
    samples = samples_of([simulator(config)(plan(config).groups[0], None)], **plan(config).attributes)
    samples.arrays["positions"][:] = -1
    samples.arrays["positions"][0, 0] = 20
    prediction = heat_map(np.array([[20.0, 20.0], [10.0, 10.0]]), (32, 32))[None, None]
    prediction = prediction + 0.1 * heat_map(np.mgrid[2:32:4, 24:32:4].reshape(2, -1).T.astype(float), (32, 32))
    record = Calibration(0.5, (0.4, 0.6), (0.0, 1.0), (), (), 0.9, 0.0).record()
    points = task.points(prediction, samples, record)
    assert points["reported"].sum() == 2 < len(points["reported"])
    assert task.metrics(prediction, samples, record)["confidence_error"] == 0.5
    figure = drawing.reliability_diagram({"fields": (samples, prediction)}, record)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["fields: ECE 0.500"]


def test_baselines_find_more_than_chance(task):
    config = make(generator="experiment", preset="std", size=64, fields=3)
    simulate = simulator(config)
    laid = plan(config)
    samples = samples_of([simulate(group, None) for group in laid.groups], **laid.attributes)
    scores = {}
    for name, predictor in task.baselines(samples, 0).items():
        prediction = predictor(samples)
        assert prediction.shape == (3, 1, 64, 64)
        scores[name] = task.metrics(prediction, samples, task.calibrate(prediction, samples))
    assert scores["matched_filter"]["top_f1"] > 0.5
    assert all(found["recall"] > found["chance_ratio"] for found in scores.values())


def test_decode_gives_positions_in_pixels_and_nanometres(task):
    spec = plan(make()).attributes["input"]
    answer = json.loads(json.dumps(answer_of(task, spec, [[10.0, 20.25]]), allow_nan=False))
    (one,) = answer["impurities"]
    assert (one["y_px"], one["x_px"]) == pytest.approx((10, 20.25), abs=0.02)
    assert (one["y_nm"], one["x_nm"]) == pytest.approx((10.5 * 0.46875, 20.75 * 0.46875), abs=0.02)
    assert 0 <= one["confidence"] <= 1
    assert answer["inside"]
    assert task.words(answer | {"true": {"count": 2}}).startswith("1 impurity (true 2), weakest confidence ")
    assert task.words(answer_of(task, spec, np.empty((0, 2)))) == "0 impurities"


def test_of_an_ensemble_each_position_has_the_spread_there(task, tmp_path):
    spread = np.zeros((1, 1, 32, 32))
    spread[0, 0, 10, 20], spread[0, 0, 25, 5] = 0.25, 0.125
    spec = plan(make()).attributes["input"]
    answer = answer_of(task, spec, [[10.0, 20.25], [25.0, 5.0]], spread=spread)
    found = {round(one["y_px"]): one["spread"] for one in answer["impurities"]}
    assert found == {10: 0.25, 25: 0.125}
    rows = list(csv.DictReader(write_positions(tmp_path / "positions.csv", answer).open()))
    assert {float(row["spread"]) for row in rows} == {0.25, 0.125}


def test_prepare_brings_a_file_to_the_models_pixels_and_back(task):
    """A field measured with pixels half as large: positions come back in the file's pixels and in nm."""
    config = make(generator="scattering", size=48)
    spec = plan(config).attributes["input"]
    field = training_field(
        "scattering", FieldRecipe(size=96, wave_number=(1, 1), **QUIET), np.random.default_rng(1), GOLD,
        np.asarray(config.biases), 4.6875 / 2,
    )  # fmt: skip
    size = 96 * 0.46875 / 2
    prepared = task.prepare(RawMap(field.maps, (size, size), np.asarray(config.biases), "field"), spec)
    assert prepared.image.shape == (3, 48, 48)
    assert any("interpolated" in note for note in prepared.notes)
    answer = answer_of(task, spec, [[10.0, 20.0]], prepared.about, 48)
    assert positions(answer)[0] == pytest.approx([20.5, 40.5], abs=0.05)
    assert answer["impurities"][0]["y_nm"] == pytest.approx(10.5 * 0.46875, abs=0.02)
    json.dumps(prepared.about, allow_nan=False)


@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_other_pixels_keep_the_oscillation(ratio):
    wanted, size = 0.46875, round(96 / ratio)
    k = 2 * GOLD.wave_number(0.0, 10 * wanted)  # per pixel of the model
    y, x = (np.mgrid[:size, :size] + 0.5) * ratio
    maps, step = to_pixels(np.cos(k * (0.8 * x + 0.6 * y))[None], (wanted * ratio, wanted * ratio), wanted, "wave")
    y, x = (np.mgrid[: maps.shape[1], : maps.shape[2]] + 0.5) * np.array(step)[:, None, None] * ratio
    kept = 2 * np.abs(np.mean((maps[0] * np.exp(-1j * k * (0.8 * x + 0.6 * y)))[6:-6, 6:-6]))
    assert 0.93 < kept < 1.01
    assert np.abs(maps).max() < 1.05  # nothing swings over at the edges


@pytest.mark.parametrize(("material", "limit"), [("Au(111)", 0.8183), ("Cu(111)", 0.7082)])
def test_pixels_too_coarse_for_the_oscillation_are_told_as_in_simulations(task, material, limit):
    """Half a period at the highest bias, whatever the model's pixels are."""
    spec = plan(make()).attributes["input"] | {"material": material}
    for pixel, told in ((0.999 * limit, False), (1.001 * limit, True)):
        raw = RawMap(np.random.default_rng(0).normal(1, 0.1, (3, 32, 32)), (32 * pixel, 32 * pixel), BIASES, "file")
        assert any("so coarse" in note for note in task.prepare(raw, spec).notes) == told
        k = materials.create(material).wave_number(max(BIASES), 10 * pixel)
        with pytest.raises(InputError, match="too coarse") if told else nullcontext():
            materials.create(material).check_pixels(k, 10 * pixel)


def test_prepare_takes_any_biases_in_any_order(task):
    config = make(generator="experiment", preset="std", fields=1, dense_biases=51, keep_maps=True)
    spec = plan(config).attributes["input"]
    result = simulator(config)(plan(config).groups[0], None)
    maps, biases = result.arrays["maps"][0][::-1], config.simulated_biases[::-1]
    size = 32 * 0.46875
    prepared = task.prepare(RawMap(maps, (size, size), biases, "file"), spec)
    assert np.allclose(prepared.image, result.arrays["image"][0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("biases", None), ("biases", []), ("biases", ["low"]), ("pixel_nm", None), ("pixel_nm", 0.0), ("reach", None),
     ("half_width", None), ("band_bottom", "deep"), ("preparation", None), ("material", None)],
)  # fmt: skip
def test_a_models_input_that_says_too_little_is_refused(task, name, value):
    spec = plan(make()).attributes["input"]
    spec = {key: own for key, own in spec.items() if key != name} | ({} if value is None else {name: value})
    raw = RawMap(np.random.default_rng(0).normal(1, 0.1, (3, 32, 32)), (15.0, 15.0), BIASES, "file")
    asked = [lambda: task.prepare(raw, spec)]
    if name in ("biases", "pixel_nm"):
        asked.append(lambda: answer_of(task, spec, [[10.0, 20.0]]))
        asked.append(lambda: task.channel_names(spec) if name == "biases" else task.axes(spec))
    for ask in asked:
        with pytest.raises(InputError, match=f"the model's input: {name}.*; write the model file anew"):
            ask()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bias": None}, "does not state its biases"),
        ({"size_nm": None}, "--size-nm"),
        ({"bias": np.array([-0.8, -0.7, -0.6])}, "band bottom"),
        ({"bias": np.array([0.5, 0.6, 0.7])}, "no map within"),
        ({"size_nm": (1.0, 1.0)}, "at least 8"),
        ({"size_nm": (1e7, 1e7)}, "at most"),
        ({"points": np.zeros((3, 2))}, "scattered"),
        ({"unit": "m", "channel": "Z"}, "is in m, which no map of dI/dV is"),
        ({"unit": "Hz", "channel": "OC M1 Freq. Shift"}, "choose another with --channel"),
        ({"values": np.ones((3, 1, 1)), "size_nm": None}, "spectrum at a single point"),
    ],
)
def test_prepare_refuses_what_cannot_be_used(task, changes, words):
    maps = np.random.default_rng(0).normal(1, 0.1, (3, 32, 32))
    raw = replace(RawMap(maps, (15.0, 15.0), BIASES, "file"), **changes)
    with pytest.raises(InputError, match=words):
        task.prepare(raw, plan(make()).attributes["input"])


@pytest.mark.parametrize(
    ("unit", "channel", "told"),
    [
        ("A", "LI Demod 1 X", False), ("V", "LockinX [bwd]", False), ("S", "dI/dV from Current", False),
        ("pA/V", "spectra dI/dV", False), (None, None, False), ("A", "Current", True), ("V", "LockinY", True),
        ("1", "counter", True),
    ],
)  # fmt: skip
def test_a_signal_that_may_be_no_didv_is_told(task, unit, channel, told):
    maps = np.random.default_rng(0).normal(1, 0.1, (3, 32, 32))
    raw = RawMap(maps, (15.0, 15.0), BIASES, "file", unit=unit, channel=channel)
    notes = task.prepare(raw, plan(make()).attributes["input"]).notes
    assert any(f"are of {channel}, which is not known as a signal of dI/dV" in note for note in notes) == told


def test_unfinished_scans_keep_their_place(task):
    maps = np.random.default_rng(0).normal(1, 0.1, (3, 40, 32))
    maps[:, :8] = 0
    prepared = task.prepare(RawMap(maps, (40 * 0.46875, 15.0), BIASES, "file"), plan(make()).attributes["input"])
    assert prepared.image.shape == (3, 32, 32)
    assert prepared.about["first_row"] == 8
    answer = answer_of(task, plan(make()).attributes["input"], [[3.0, 4.0]], prepared.about)
    assert positions(answer)[0] == pytest.approx([11, 4], abs=0.02)
    raw = RawMap(maps[:, 8:], (32 * 0.46875, 15.0), BIASES, "scanned downwards", unrecorded=(8, 0))
    assert task.prepare(raw, plan(make()).attributes["input"]).about["first_row"] == 8


def test_files_beside_an_answer(task, tmp_path):
    spec = plan(make()).attributes["input"]
    true = np.array([[10.0, 20.0], [5.0, 6.0]])
    answer = answer_of(task, spec, true) | {"name": "field"}
    image = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    found = task.places(answer, {})
    order = np.lexsort(found.T[::-1])
    np.testing.assert_allclose(found[order], true[::-1], atol=0.02)
    corners = np.maximum(found.round().astype(int) - 8, 0)
    maps = np.zeros((2, 3, 16, 20), np.float32)
    for row, (y, x) in enumerate((found - corners).round().astype(int)):
        maps[row, row, y, x] = 2.0  # the first impurity is seen at the first voltage alone, the second ...
        maps[row, 2, y, x + 3] = -6.0
    explained = PlaceMaps("gradient", found, found.round().astype(int), corners, maps)
    files = task.answer_files(tmp_path, answer, image, explained, {})
    names = [path.name for path in files]
    assert names == ["field_positions.csv", "field_overlay.png", "field_voltages.csv", "field_voltages.png"]
    with (tmp_path / "field_positions.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [float(rows[0][name]) for name in ("y_px", "x_px")] == pytest.approx(positions(answer)[0], abs=1e-3)
    assert len(rows) == 2
    with (tmp_path / "field_voltages.csv").open() as handle:
        shares = [(row["impurity"], row["bias_V"], row["core"], row["rings"]) for row in csv.DictReader(handle)]
    none = ("0.0000", "0.0000")
    assert shares == [
        ("0", "-0.23", "0.2500", "0.0000"), ("0", "-0.105", *none), ("0", "0.02", "0.0000", "0.7500"),
        ("1", "-0.23", *none), ("1", "-0.105", "0.2500", "0.0000"), ("1", "0.02", "0.0000", "0.7500"),
    ]  # fmt: skip
    empty = answer_of(task, spec, np.empty((0, 2))) | {"name": "none"}
    assert task.places(empty, {}).shape == (0, 2)
    assert len(task.answer_files(tmp_path, empty, image, None, {})) == 2


def test_places_are_pixels_of_the_prepared_image(task):
    true = np.array([[3.0, 4.0], [20.0, 11.0]])
    about = {"step": [1.5, 2.0], "first_row": 8, "pixel_nm": [0.3, 0.2]}
    answer = answer_of(task, plan(make()).attributes["input"], true, about)
    found = task.places(answer, about)
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], true, atol=0.02)


def test_picture_of_many_voltages_and_impurities_has_a_scale_for_each_row():
    maps = np.random.default_rng(0).normal(size=(7, 30, 12, 14)) * (1 + np.arange(7))[:, None, None, None]
    places = np.full((7, 2), 5.5)
    explained = PlaceMaps("gradient", places, places.astype(int), np.zeros((7, 2), int), maps)
    figure = drawing.explanation(explained, [f"{v} mV" for v in range(30)], [f"impurity {i}" for i in range(7)])
    images = [panel.images[0] for panel in figure.axes if panel.images and panel.get_xlim() == (-16, 16)]
    assert len(images) == 4 * 8
    limits = [image.get_clim() for image in images]
    for row in range(4):
        assert set(limits[8 * row : 8 * row + 8]) == {limits[8 * row]}
        assert limits[8 * row] == pytest.approx((-np.abs(maps[row]).max(), np.abs(maps[row]).max()))
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert (titles[0], titles[-1]) == ("0 mV", "29 mV")


def test_voltage_shares_tell_core_from_rings():
    maps = np.zeros((2, 2, 32, 32))
    maps[0, 0, 16, 16] = 3.0
    maps[0, 1, 16, 20] = -1.0
    maps[1, 1, 2, 3] = 5.0
    shares = voltage_shares(maps, np.array([[16.0, 16.0], [2.0, 3.0]]))
    assert np.allclose(shares, [[[0.75, 0.0], [0.0, 0.25]], [[0.0, 0.0], [1.0, 0.0]]])


def test_fresh_fields_average_as_many_biases_as_the_training(task):
    config = make(dense_biases=126)
    fresh = task.fresh(config, 7, 3, unseen=False)
    assert (fresh.generator, fresh.seed, fresh.fields) == ("experiment", 7, 3)
    assert fresh.dense_biases == task.held_out(config, 7, 3).dense_biases == 126
