"""The task impurity: what its config refuses, its fields and labels."""

from dataclasses import replace

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.physics.surface import presets
from stm_models.physics.surface.experiment import pseudo_experiment
from stm_models.physics.surface.field_recipe import FieldRecipe
from stm_models.physics.surface.training_fields import training_field
from stm_models.signal.preprocessing import prepare_stack
from stm_models.tasks import registry
from stm_models.tasks.impurity.labels import heat_map, padded, pixel_map, unpadded
from stm_models.tasks.impurity.simulation import WAVES, plan, simulator
from support import impurity_cases as cases

GOLD, BIASES, QUIET, make, fields = cases.GOLD, cases.BIASES, cases.QUIET, cases.make, cases.fields


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"biases": [-0.6, 0.02]}, ["-0.6 V is at or below the band bottom of Au(111)"]),
        ({"biases": [0.02, -0.2]}, ["ascending"]),
        ({"material": "Ag(111)"}, ["band bottom of Ag(111)", "Au(111)"]),
        ({"material": "Gold"}, ["unknown material 'Gold'", "Au(111)"]),
        ({"preset": "hardd"}, ["did you mean 'hard'"]),
        ({"generator": "eq3"}, ["'mixed'"]),
        ({"white": [2, 1]}, ["white", "range"]),
        ({"impurities": [0, 3]}, ["impurities"]),
        ({"size": 4}, ["size", "8"]),
        ({"core_width": [0, 1]}, ["core_width", "above 0 px"]),
        ({"spikes": [3, 3]}, ["spikes", "at most 1"]),
        ({"biases": [0.0], "dense_biases": 20}, ["dense_biases", "at least two biases"]),
        ({"biases": [-0.2, -0.1, 0.0], "dense_biases": 2}, ["none lies within 0.05 V", "at -0.1 V", "at least 3"]),
        ({"biases": [-0.2, -0.18, 0.0], "dense_biases": 5}, ["within 0.01 V", "at -0.18 V", "at least 11"]),
        ({"absorption": [0.5, 1.5]}, ["absorption", "at most 1"]),
        ({"minimum_distance": 20}, ["36 impurities and decoys do not fit in 32 x 32 px", "at most 1 of both"]),
        ({"generator": "paper", "size": 8, "impurities": [10, 70]}, ["70 impurities on 8 x 8", "one on each"]),
        ({"biases": [-0.5, 0.0]}, ["gain of 0.6", "-0.2 of the signal at -0.5 V", "simulate.gain"]),
        ({"generator": "paper", "pixel_size": 12}, ["too coarse", "Au(111)", "expected less than"]),
    ],
)
def test_config_refuses_what_cannot_be(changes, words):
    with pytest.raises(InputError) as error:
        make(**changes)
    for word in words:
        assert word in str(error.value)


def test_the_fullest_fields_and_fewest_biases_that_are_taken_can_be_made():
    full = {"size": 24, "impurities": [26, 26], "decoys": [9, 9], "margin": 0.5, "fields": 20}
    assert all(len(unpadded(made.arrays["positions"])[0]) == 26 for made in fields(generator="friedel", **full))
    assert make(biases=[-0.2, -0.18, 0.0], dense_biases=11).dense_biases == 11
    (made,) = fields(biases=[-0.2, -0.1, 0.0], dense_biases=3, fields=1)
    assert made.arrays["image"].shape == (1, 3, 32, 32)


def test_too_coarse_pixels_are_refused():
    with pytest.raises(InputError, match="too coarse"):
        fields(pixel_size=30.0, generator="scattering")


@pytest.mark.parametrize("generator", ["friedel", "scattering", "paper", "experiment"])
def test_labels_are_at_the_positions(generator):
    for result in fields(generator=generator, keep_maps=True):
        arrays = {name: values[0] for name, values in result.arrays.items()}
        (where,) = unpadded(arrays["positions"][None])
        pixels = np.rint(where).astype(int).clip(0, 31)
        assert set(zip(*np.nonzero(arrays["pixel"]), strict=True)) == {tuple(pixel) for pixel in pixels.tolist()}
        peak = arrays["heat"][pixels[:, 0], pixels[:, 1]]
        assert np.all(peak > np.exp(-0.5 * 0.5 / 0.8**2) - 1e-6)  # at most half a pixel away along each axis
        assert np.array_equal(arrays["image"], prepare_stack(arrays["maps"]))


def test_heat_is_the_largest_gaussian():
    where = np.array([[3.2, 4.7], [4.0, 6.0]])
    heat = heat_map(where, (9, 11))
    for y, x in [(3, 5), (4, 6), (0, 0), (8, 10)]:
        slow = max(np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * 0.8**2)) for a, b in where)
        assert heat[y, x] == pytest.approx(slow, abs=1e-6)
    edge = pixel_map(np.array([[-0.5, 10.49]]), (9, 11))
    assert edge[0, 10] == 1
    assert edge.sum() == 1


def test_padding_keeps_positions_left_of_the_first_pixel():
    where = np.array([[-0.45, 3.0], [2.0, -0.4]])
    assert np.allclose(unpadded(padded(where, 5)[None])[0], where, atol=1e-6)


def test_levels_of_the_papers_fields_are_in_the_units_that_they_state():
    paper = {"generator": "paper", "keep_maps": True, "size": 48, "impurities": [3, 3], "fields": 1}
    (clean,), (noisy,) = (fields(**paper, eta=eta) for eta in (0.0, 0.5))
    y, x = np.mgrid[:48, :48]
    (places,) = unpadded(clean.arrays["positions"])
    away = np.min([np.hypot(y - py, x - px) for py, px in places], axis=0) > 3
    rms = np.sqrt(clean.arrays["maps"][0][:, away].var(axis=1).mean())
    assert [made.scalars["oscillation"] for made in (clean, noisy)] == pytest.approx([rms, rms], rel=1e-3)
    noise = (noisy.arrays["maps"] - clean.arrays["maps"]).std()
    assert noise == pytest.approx(0.5, rel=0.05)
    assert noisy.scalars["white"] * noisy.scalars["oscillation"] == pytest.approx(0.5)
    assert clean.scalars["white"] == 0


def test_the_count_is_the_planned_one():
    config = make(generator="experiment", preset=["std", "hard+all"], size=48, fields=4)
    simulate = simulator(config)
    for group in plan(config).groups:
        (where,) = unpadded(simulate(group, None).arrays["positions"])
        assert len(where) == group.parameters["count"]


@pytest.mark.parametrize("share", [0.0, 0.75, 1.0])
def test_mixed_fields_have_their_share_of_multiple_scattering(share):
    groups = plan(make(generator="mixed", scattering_share=share, fields=400)).groups
    waves = [WAVES[int(group.parameters["waves"])] for group in groups]
    assert set(waves) <= {"friedel", "scattering"}
    found = waves.count("scattering") / len(waves)
    assert abs(found - share) <= 4 * np.sqrt(share * (1 - share) / len(waves))


def test_fields_of_the_same_impurities_stay_together_in_a_split():
    groups = plan(make(generator="experiment", preset=["std", "std+noise"], fields=6)).groups
    assert [group.state for group in groups] == [0, 0, 2, 2, 4, 4]


def test_presets_in_turn_share_all_but_their_difference():
    first, second, *_ = fields(generator="experiment", preset=["std", "std+noise"], fields=2, keep_maps=True)
    assert np.array_equal(first.arrays["positions"], second.arrays["positions"])
    assert not np.allclose(first.arrays["maps"], second.arrays["maps"])


def test_the_experiment_is_the_frozen_one():
    """Nothing comes between the preset and the maps, and its random numbers are its own."""
    config = make(generator="experiment", preset="hard", size=40, keep_maps=True, seed=5)
    group = plan(config).groups[1]
    count = round(group.parameters["count"] / 0.25)
    again = pseudo_experiment(
        replace(presets.create("hard"), impurities=(count, count)), np.random.default_rng([5, 1, 3]),
        biases=list(config.biases), size=40,
    )  # fmt: skip
    result = simulator(config)(group, None)
    assert np.array_equal(result.arrays["maps"][0], again.maps)
    assert np.array_equal(result.arrays["bound_state"][0], again.bound_state)


def test_dense_biases_average_into_the_channels():
    """126 biases carry less noise into each channel than one map each."""
    one, many = (
        fields(generator="experiment", preset="hard", size=48, fields=1, dense_biases=count)[0] for count in (None, 126)
    )
    assert many.arrays["image"].shape == one.arrays["image"].shape
    rough = [np.abs(np.diff(r.arrays["image"][0, 1], axis=1)).mean() for r in (one, many)]
    assert rough[1] < 0.7 * rough[0]


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({"generator": "friedel"}, True), ({"generator": "mixed"}, True), ({"generator": "scattering"}, False),
        ({"generator": "mixed", "dense_biases": 30}, False),
    ],
)  # fmt: skip
def test_fields_are_drawn_while_training_only_like_those_of_the_data_set(changes, drawn):
    attributes = {"config": make(**changes).model_dump(mode="json")}
    assert (registry.get("impurity").on_the_fly(attributes) is not None) == drawn


@pytest.mark.parametrize("waves", ["friedel", "scattering"])
def test_cores_say_nothing(waves):
    """Over many fields the mean of the map at an impurity is that of anywhere else: only rings tell."""
    recipe = FieldRecipe(size=32, impurities=(4, 4), decoys=(4, 4), **QUIET)
    core, decoy = [], []
    for seed in range(60):
        field = training_field(waves, recipe, np.random.default_rng(seed), GOLD, BIASES, 4.6875)
        image = prepare_stack(field.maps)[1]
        for where, into in ((field.positions, core), (field.decoys, decoy)):
            pixel = np.rint(where).astype(int).clip(0, 31)
            into.extend(np.abs(image[pixel[:, 0], pixel[:, 1]]))
    assert np.mean(core) == pytest.approx(np.mean(decoy), rel=0.25)


@pytest.mark.parametrize("waves", ["friedel", "scattering"])
def test_rings_have_twice_the_wave_number(waves):
    recipe = FieldRecipe(
        size=64, impurities=(1, 1), margin=0.0, decoys=(0, 0), core=(0, 0), wave_number=(1, 1), tip=(0, 0),
        gain=(0, 0), set_point=(0, 0), plane=(0, 0), stripes=(0, 0), drift=(0, 0), **QUIET,
    )  # fmt: skip
    field = training_field(waves, recipe, np.random.default_rng(3), GOLD, BIASES, 4.6875)
    y, x = np.mgrid[:64, :64] - field.positions[0][:, None, None]
    r = np.hypot(y, x)
    for values, k in zip(field.maps, GOLD.wave_number(BIASES, 4.6875), strict=True):
        window = (r > 3) & (r < 25)
        trial = np.linspace(1.0, 2.4, 141)
        wave = (values - values.mean()) * r**1.5 * np.hanning(29)[np.clip(r.astype(int), 0, 28)]
        power = [abs(np.sum(wave[window] * np.exp(1j * q * r[window]))) for q in trial]
        assert trial[int(np.argmax(power))] == pytest.approx(2 * k, abs=0.1)


def test_no_training_noise_is_correlated_across_the_lines():
    recipe = FieldRecipe(
        size=64, impurities=(1, 1), decoys=(0, 0), white=(1, 1), one_over_f=(1, 1), line=(1, 1), spikes=(0, 0),
        contrast=(1e-3, 1e-3), set_point=(0, 0), plane=(0, 0), stripes=(0, 0), core=(0, 0), tip=(0, 0),
    )  # fmt: skip
    quiet = replace(recipe, white=(0, 0), one_over_f=(0, 0), line=(0, 0))
    along, across = [], []
    for seed in range(12):
        noisy, clean = (
            training_field("friedel", one, np.random.default_rng(seed), GOLD, BIASES, 4.6875) for one in (recipe, quiet)
        )
        noise = np.asarray(noisy.maps, float) - clean.maps
        noise -= noise.mean(axis=(1, 2), keepdims=True)
        along.append((noise[:, :, 1:] * noise[:, :, :-1]).mean() / noise.var())
        across.append((noise[:, 1:] * noise[:, :-1]).mean() / noise.var())
    assert np.mean(along) > 0.3
    assert abs(np.mean(across)) < 0.05
