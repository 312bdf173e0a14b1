"""What each number of a field's recipe does: the same field without and with it."""

from dataclasses import replace

import numpy as np
import pytest

from stm_models.physics.surface.field_recipe import FieldRecipe
from stm_models.physics.surface.materials import create, lifetime_broadening
from stm_models.physics.surface.training_fields import training_field

SIZE, PIXEL = 48, 4.6875
BIASES = np.array([-0.2, 0.0, 0.1])
NONE = (0.0, 0.0)
BARE = FieldRecipe(
    size=SIZE, impurities=(4, 4), margin=0.0, decoys=(0, 0), core=NONE, occluded=NONE, phase_slope=0.0,
    wave_number=(1.0, 1.0), broadening=(1.0, 1.0), white=NONE, one_over_f=NONE, line=NONE, spikes=NONE, drift=NONE,
    tip=NONE, gain=NONE, set_point=NONE, plane=NONE, stripes=NONE,
)  # fmt: skip
both = pytest.mark.parametrize("waves", ["friedel", "scattering"])


def field(waves="scattering", biases=BIASES, seed=3, material="Au(111)", **changes):
    recipe = replace(BARE, **changes)
    return training_field(waves, recipe, np.random.default_rng(seed), create(material), biases, PIXEL)


def pair(waves, **changes):
    """Maps of one field without and with what ``changes`` adds."""
    return [np.asarray(field(waves, **given).maps, float) for given in ({}, changes)]


def peak(one, other, reach=6):
    """Shift (y, x) in px by which the middle of ``one`` is found in ``other``."""
    inner = slice(reach, SIZE - reach)
    shifts = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    moved = [np.roll(other, (-y, -x), axis=(0, 1))[inner, inner].ravel() for y, x in shifts]
    return np.array(shifts[np.argmax([np.corrcoef(one[inner, inner].ravel(), seen)[0, 1] for seen in moved])])


@both
def test_gain_grows_with_the_bias(waves):
    without, with_it = pair(waves, gain=(0.4, 0.4))
    ratio = with_it.mean(axis=(1, 2)) / without.mean(axis=(1, 2))
    np.testing.assert_allclose(ratio, 1 + 0.4 * BIASES / 0.25, rtol=1e-5)


@both
def test_set_point_is_one_smooth_factor(waves):
    without, with_it = pair(waves, set_point=(0.05, 0.05))
    factor = with_it / without
    np.testing.assert_allclose(factor[1:], factor[:1].repeat(2, axis=0), rtol=1e-5)
    assert 0.02 < factor[0].std() < 0.1
    assert np.abs(np.diff(factor[0], axis=0)).mean() < 0.3 * factor[0].std()


@both
def test_plane_is_a_plane(waves):
    without, with_it = pair(waves, plane=(0.1, 0.1))
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    terms = np.stack([y.ravel(), x.ravel(), np.ones(SIZE**2)], axis=1)
    for added in with_it - without:
        found = np.linalg.lstsq(terms, added.ravel(), rcond=None)[0]
        np.testing.assert_allclose(terms @ found, added.ravel(), atol=1e-6)
        assert np.hypot(*found[:2]) * (SIZE - 1) == pytest.approx(0.1, rel=1e-3)
        assert found[2] == pytest.approx(0, abs=1e-6)


@both
def test_stripes_are_lines_of_the_reconstruction(waves):
    without, with_it = pair(waves, stripes=(0.04, 0.04))
    for added in with_it / without - 1:
        assert np.abs(added).max() == pytest.approx(0.04, rel=0.05)
        spectrum = np.abs(np.fft.fft2(added, (512, 512)))
        y, x = np.unravel_index(np.argmax(spectrum), spectrum.shape)
        frequency = np.hypot(np.fft.fftfreq(512)[y], np.fft.fftfreq(512)[x])
        assert frequency == pytest.approx(PIXEL / create("Au(111)").stripe_period, rel=0.1)


def test_a_surface_without_reconstruction_has_no_stripes():
    volts = np.array([-0.02, 0.0])
    without, with_it = (field(biases=volts, material="Ag(111)", stripes=level).maps for level in (NONE, (0.04, 0.04)))
    np.testing.assert_array_equal(with_it, without)


def test_drift_moves_the_maps_apart():
    same = np.zeros(3)  # one bias: the maps differ by nothing else
    still, moved = (field(biases=same, impurities=(12, 12), drift=length).maps for length in (NONE, (5.2, 5.2)))
    np.testing.assert_allclose(still[0], still[2], atol=1e-6)
    np.testing.assert_allclose(moved[1], still[1], atol=1e-6)  # the middle of the stack is where it was
    ahead, behind = peak(moved[1], moved[0]), peak(moved[1], moved[2])
    np.testing.assert_array_equal(ahead, -behind)
    assert 0.7 * 4 - 1.5 <= np.hypot(*(ahead - behind)) <= 1.3 * 4 + 1.5


def test_broadening_damps_the_waves_with_the_distance():
    """rho - 1 = Re s H0(kr)² about one impurity: exp(-2 Im k r) is what the lifetime takes."""
    volts, material = np.array([0.0]), create("Au(111)")
    sharp, broad = (
        field(biases=volts, impurities=(1, 1), absorption=(0.0, 0.0), broadening=(factor, factor)) for factor in (0, 8)
    )
    y, x = np.mgrid[:SIZE, :SIZE] - sharp.positions[0][:, None, None]
    distance = np.hypot(y, x)
    decay = material.complex_wave_number(volts, 8 * lifetime_broadening(volts), PIXEL).imag[0]
    for near in (5, 10, 15):
        ring = (distance > near) & (distance < near + 4)
        ratio = np.std(broad.maps[0][ring]) / np.std(sharp.maps[0][ring])
        assert ratio == pytest.approx(np.exp(-2 * decay * (near + 2)), rel=0.15)


@both
def test_phase_slope_turns_the_waves_with_the_bias(waves):
    without, with_it = pair(waves, phase_slope=4.0)
    changed = np.abs(with_it - without).max(axis=(1, 2)) / without.std(axis=(1, 2))
    if waves == "scattering":  # Friedel waves are made as strong as before, all biases together
        assert changed[1] < 1e-5
    assert min(changed[0], changed[2]) > 0.3
