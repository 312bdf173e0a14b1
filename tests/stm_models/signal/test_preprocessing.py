"""What a network sees does not depend on units, planes, line offsets or the size of a signal."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.errors import InputError
from stm_models.signal.preprocessing import Preparation, finished_rows, over_level, prepare_stack, without_spikes


def raw(seed=0, count=3, height=48, width=40):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    wave = np.stack([np.cos(0.9 * x + 0.4 * y + phase) for phase in rng.uniform(0, 6, count)])
    return 5 + 0.4 * wave + 0.1 * rng.standard_normal((count, height, width))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.floats(1e-12, 1e6), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_gain_planes_and_line_offsets_do_not_matter(seed, gain, slope_y, slope_x):
    maps = raw(seed)
    rng = np.random.default_rng([seed, 1])
    y, x = np.mgrid[:48, :40] / 48 - 0.5
    lines = 0.3 * rng.standard_normal((3, 48, 1))
    changed = gain * (maps + slope_y * y + slope_x * x + lines)
    np.testing.assert_allclose(prepare_stack(changed), prepare_stack(maps), atol=1e-5)


def test_result_is_bounded_and_keeps_the_wave():
    maps = raw()
    out = prepare_stack(maps)
    assert out.shape == maps.shape
    assert out.dtype == np.float32
    assert out.max() == 1
    assert out.min() == -1
    wave = maps[1] - maps[1].mean()
    assert np.corrcoef(wave.ravel(), out[1].ravel())[0, 1] > 0.95
    assert np.abs(np.median(out, axis=2)).max() < 1e-6


def test_a_spike_neither_squeezes_nor_shades_its_surroundings():
    maps = raw()
    spoiled = maps.copy()
    spoiled[0, 5, 7] = 1e6
    spoiled[1, 30, 12] = -20.0
    assert np.quantile(np.abs(prepare_stack(spoiled) - prepare_stack(maps)), 0.9) > 0.05
    mended = without_spikes(spoiled)
    assert np.quantile(np.abs(prepare_stack(mended) - prepare_stack(maps)), 0.9) < 0.02
    assert np.count_nonzero(mended != spoiled) == 2
    np.testing.assert_array_equal(without_spikes(maps), maps)
    y, x = np.mgrid[:48, :40]
    sharp = 1 + 0.5 * np.exp(-((y - 20) ** 2 + (x - 20) ** 2) / 2 / 0.7**2) + 0.05 * np.cos(x)
    np.testing.assert_array_equal(without_spikes(sharp[None])[0], sharp)  # an impurity's spot is no spike


def test_the_background_is_removed_and_detail_stays():
    x = np.mgrid[:80, :80][1]
    slow, fast = 3 * np.cos(2 * np.pi * x / 160), np.cos(0.8 * x)
    out = prepare_stack((10 + slow + fast)[None])[0]
    inner = np.s_[20:60, 20:60]
    assert np.corrcoef(fast[inner].ravel(), out[inner].ravel())[0, 1] > 0.99
    kept = prepare_stack((10 + slow + fast)[None], Preparation(high_pass=0))[0]
    assert np.corrcoef(fast[inner].ravel(), kept[inner].ravel())[0, 1] < 0.97


def test_a_lock_in_of_the_wrong_sign_is_turned_but_not_a_difference():
    maps = raw()
    np.testing.assert_allclose(prepare_stack(-maps), prepare_stack(maps), atol=1e-6)
    difference = maps - 5
    np.testing.assert_allclose(prepare_stack(-difference), -prepare_stack(difference), atol=1e-6)
    np.testing.assert_allclose(prepare_stack(difference), prepare_stack(maps), atol=1e-5)


def test_a_few_bright_pixels_in_an_empty_map_are_contrast():
    maps = np.ones((1, 40, 40))
    maps[0, 20, 20] = 2
    out = prepare_stack(maps, Preparation(plane=False, high_pass=0))
    assert out[0, 20, 20] == 1
    assert np.count_nonzero(out) == 1


@pytest.mark.parametrize("precision", [np.float64, np.float32])
@pytest.mark.parametrize("flat", ["constant", "plane", "lines", "zero"])
def test_a_map_without_contrast_is_refused(flat, precision):
    y, x = np.mgrid[:20, :20]
    one = {"constant": np.full((20, 20), 3.3), "plane": 1e-9 * (7 + 0.1 * x - y), "lines": np.sin(y) + 4, "zero": 0 * x}
    maps = raw(height=20, width=20)
    maps[1] = one[flat]
    with pytest.raises(InputError, match=r"map 2 of 3 has no contrast .* choose another channel"):
        prepare_stack(maps.astype(precision))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        (np.ones((4, 4)), r"shape \(4, 4\): expected \(bias, y, x\)"),
        (np.ones((2, 4, 40)), "4 x 40 pixels: expected at least 8"),
        (np.ones((0, 40, 40)), "expected"),
        (np.ones((1, 9, 9), complex), "complex128: expected real numbers"),
        (np.array([[["a"]]]), "expected real numbers"),
    ],
)
def test_foreign_shapes_are_refused(maps, message):
    with pytest.raises(InputError, match=message):
        prepare_stack(maps)


def test_an_unfinished_scan_is_told_and_can_be_cut():
    whole = raw()
    maps = whole.copy()
    maps[:, 30:] = np.nan
    with pytest.raises(InputError, match=r"rows 30 to 47 of 48 .* cut the maps to their measured rows"):
        prepare_stack(maps)
    rows, notes = finished_rows(maps)
    assert (rows, len(notes)) == (slice(0, 30), 1)
    assert "18 of 48 rows" in notes[0]
    np.testing.assert_array_equal(prepare_stack(maps[:, rows]), prepare_stack(whole[:, :30]))
    assert finished_rows(whole) == (slice(0, 48), ())
    maps[:, 30:] = 0
    maps[:, :2] = 0
    assert finished_rows(maps)[0] == slice(2, 30)
    maps[:, 10] = np.nan
    with pytest.raises(InputError, match="between others"):
        finished_rows(maps)
    with pytest.raises(InputError, match="none of the 48 rows"):
        finished_rows(np.zeros_like(maps))
    whole[1, 3, 4] = np.inf
    with pytest.raises(InputError, match="map 2 of 3 holds 1 values"):
        prepare_stack(whole)


def test_the_row_in_which_a_scan_stopped_is_left_out():
    maps = raw()
    maps[:, 5, 3] = 0  # a dead pixel is no end
    assert finished_rows(maps) == (slice(0, 48), ())
    maps[:, 41:] = 0
    maps[:, 40, 17:] = 0
    rows, (note,) = finished_rows(maps)
    assert rows == slice(0, 40)
    assert "8 of 48 rows" in note
    turned = maps[:, ::-1]
    assert finished_rows(turned)[0] == slice(8, 48)
    maps[:, 1:] = 0
    maps[:, 0, 7] = 0
    with pytest.raises(InputError, match="none of the 48 rows was measured to its end"):
        finished_rows(maps)


def test_maps_of_different_set_points_become_comparable():
    maps = raw()
    gains = np.array([1.0, -3.0, 1e-12])[:, None, None]
    np.testing.assert_allclose(over_level(gains * maps), over_level(maps), rtol=1e-9)
    np.testing.assert_array_equal(over_level(maps - 5), maps - 5)


def test_options_survive_json_and_unknown_ones_are_refused():
    how = Preparation(high_pass=5.0, lines=False)
    assert Preparation.of(json.loads(json.dumps(how.record()))) == how
    with pytest.raises(InputError, match=r"unknown preparation 'highpass'.*did you mean 'high_pass'"):
        Preparation.of({"highpass": 8})
    for wrong in ({"high_pass": -1.0}, {"inside": 0.1}, {"high_pass": float("nan")}):
        with pytest.raises(InputError, match="expected"):
            Preparation.of(wrong)
