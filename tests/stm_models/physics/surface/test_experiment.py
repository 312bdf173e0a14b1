"""Pseudo-experiments: what is drawn, what the instrument adds, what the shifted presets change."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from stm_models.errors import InputError
from stm_models.physics.surface.bound_state import BoundState, bound_state_map
from stm_models.physics.surface.experiment import PIXEL_SIZE, pseudo_experiment
from stm_models.physics.surface.materials import create as material
from stm_models.physics.surface.presets import PRESETS, create

PURE = replace(
    create("std"), name="pure", scale=0.0, white=0.0, one_over_f=0.0, line=0.0, drift=0.0, tip=1e-3, gain=0.0,
    stripes=0.0, plane=0.0, set_point=0.0,
)  # fmt: skip


def field(preset, seed=0, **options):
    return pseudo_experiment(preset, np.random.default_rng(seed), **({"biases": 3, "size": 48} | options))


def test_the_presets_have_their_frozen_values():
    """Fixed before any training (docs/impurity.md), so a change here is a change of the test set."""
    std, hard = create("std"), create("hard")
    assert (std.scale, std.white, std.one_over_f, std.line, std.decoys, std.drift) == (0.6, 0.5, 0.35, 0.35, 0, 0.35)
    assert (hard.scale, hard.white, hard.one_over_f, hard.line, hard.decoys, hard.drift) == (
        0.2,
        2.0,
        1.4,
        1.4,
        10,
        0.7,
    )
    for preset in (std, hard):
        first, second = preset.species
        assert (first.phase[0], second.phase[0], first.slope[0], second.slope[0]) == (-1.1, 0.9, -0.8, 1.0)
        assert (first.absorption[0], second.absorption[0]) == (0.35, 0.75)
        assert (preset.tip, preset.set_point, preset.stripes, preset.minimum_distance) == (0.5, 0.04, 0.03, 4.0)
    same = {"name": None, "noise": None, "core": None, "wave_number": None, "scale": None}
    for name, preset in PRESETS.items():
        base = create(name.split("+")[0])
        assert asdict(preset) | same == asdict(base) | same
        shift = name.partition("+")[2]
        assert (preset.noise == "slow") == (shift in ("noise", "all"))
        assert (preset.core == "ring") == (shift in ("core", "all"))
        assert preset.wave_number == (1.05 if shift in ("k", "all") else 1.0)
        assert preset.scale == base.scale * {"bare": 0, "bright": 5}.get(shift, 1)
    assert len(PRESETS) == 14


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_a_whole_field(name):
    result = field(name, size=80, biases=2)
    count = len(result.positions)
    assert result.maps.shape == (2, 80, 80)
    assert result.maps.dtype == result.bound_state.dtype == np.float32
    assert np.isfinite(result.maps).all()
    assert 40 <= count <= 70
    assert len(result.decoys) == (10 if name.startswith("hard") else 0)
    assert result.species.shape == (count,)
    assert np.all((result.positions >= -0.5) & (result.positions < 79.5))
    around = result.scatterers.positions[count:]
    assert len(around) > 10
    assert np.all(np.any((around < -0.5) | (around >= 79.5), axis=1))
    everything = np.concatenate([result.scatterers.positions, result.decoys])
    gaps = np.linalg.norm(everything[:, None] - everything, axis=2) + 1e9 * np.eye(len(everything))
    assert gaps.min() >= 4


def test_without_instrument_it_is_the_damped_scattering():
    from stm_models.physics.surface.scattering import density, pixel_grid

    result = field(PURE)
    grid = pixel_grid(48)
    k = material("Au(111)").complex_wave_number(result.biases, None, PIXEL_SIZE)
    wave = density(grid, result.scatterers, result.biases, k) - 1
    square = ((grid[:, None] - result.scatterers.positions) ** 2).sum(axis=2)
    expected = 1 + wave * np.prod(1 - np.exp(-square), axis=1)
    np.testing.assert_allclose(result.maps.reshape(3, -1), expected, atol=1e-5)
    rings = expected[:, square.min(axis=1) > 9]
    assert result.oscillation == pytest.approx(np.sqrt(rings.var(axis=1).mean()), rel=1e-4)
    assert 0.05 < result.oscillation < expected.std()


def test_species_have_their_phases_and_share():
    results = [field("std", seed, biases=1, size=80) for seed in range(8)]
    species = np.concatenate([r.species for r in results])
    assert species.mean() == pytest.approx(0.3, abs=0.06)
    for kind, phase, absorption in ((0, -1.1, 0.35), (1, 0.9, 0.75)):
        delta = np.concatenate([r.scatterers.phase[: len(r.species)][r.species == kind] for r in results])
        a = np.concatenate([r.scatterers.absorption[: len(r.species)][r.species == kind] for r in results])
        assert delta.mean() == pytest.approx(phase, abs=0.08)
        assert delta.std() == pytest.approx(0.25, abs=0.05)
        assert a.mean() == pytest.approx(absorption, abs=0.05)


@pytest.mark.parametrize("name", ["std", "hard", "hard+noise"])
def test_noise_has_its_size_and_direction(name):
    noisy = field(name, size=80)
    preset = replace(create(name), white=0.0, one_over_f=0.0, line=0.0)
    added = (noisy.maps - field(preset, size=80).maps) / noisy.oscillation
    expected = np.sqrt(create(name).white ** 2 + create(name).one_over_f ** 2 + create(name).line ** 2)
    assert added.std() == pytest.approx(expected, rel=0.1)
    lag = 8
    fast = np.mean(added[..., lag:] * added[..., :-lag]) / added.var()
    slow = np.mean(added[:, lag:] * added[:, :-lag]) / added.var()
    assert (slow > fast + 0.1) if name.endswith("noise") else (fast > slow + 0.1)


def test_shifted_presets_share_everything_else():
    base, noise, core, k = (field(name) for name in ("hard", "hard+noise", "hard+core", "hard+k"))
    for other in (noise, core, k):
        np.testing.assert_array_equal(other.positions, base.positions)
        np.testing.assert_array_equal(other.wave_numbers, base.wave_numbers)
        np.testing.assert_array_equal(other.bound_state, base.bound_state)
        assert np.abs(other.maps - base.maps).max() > 0.01
    np.testing.assert_allclose(k.true_wave_numbers, 1.05 * base.true_wave_numbers)
    np.testing.assert_allclose(base.true_wave_numbers.real, base.wave_numbers, rtol=1e-3)


def test_ring_cores_have_no_height_in_the_middle():
    loud = replace(PURE, scale=5.0, spot_slope=0.0)
    spot, ring = field(loud, biases=[0.0]), field(replace(loud, core="ring"), biases=[0.0])
    nothing = field(replace(loud, scale=0.0), biases=[0.0])
    inside = np.clip(np.rint(spot.positions).astype(int), 0, 47)
    height = np.abs(spot.maps - nothing.maps)[0][tuple(inside.T)]
    middle = np.abs(ring.maps - nothing.maps)[0][tuple(inside.T)]
    assert np.median(middle) < 0.3 * np.median(height)


def test_positions_are_where_the_spots_are():
    """Row, column order and pixel centres at whole numbers: the centre of mass of a spot is its position."""
    one = replace(PURE, impurities=(1, 1), margin=0.0, scale=5.0, tip=0.5)
    for seed in range(4):
        spot, nothing = (field(replace(one, scale=s), seed, biases=[0.0], size=80) for s in (5.0, 0.0))
        weight = np.abs(spot.maps - nothing.maps)[0]
        centre = [(axis * weight).sum() / weight.sum() for axis in np.mgrid[:80, :80]]
        if np.all((spot.positions > 6) & (spot.positions < 73)):
            np.testing.assert_allclose(centre, spot.positions[0], atol=0.02)


def test_drift_moves_the_stack_about_its_middle():
    drifting = replace(PURE, drift=3.0, impurities=(30, 30))
    result = field(drifting, biases=[-0.001, 0.0, 0.001])
    shift = result.displacement[2] - result.displacement[0]
    assert 2.1 <= np.linalg.norm(shift) <= 3.9
    np.testing.assert_array_equal(result.displacement[1], 0)
    spectrum = np.fft.fft2(result.maps[0] - 1) * np.conj(np.fft.fft2(result.maps[2] - 1))
    y, x = np.unravel_index(np.fft.ifft2(spectrum).real.argmax(), (48, 48))
    seen = (np.array([y, x]) + 24) % 48 - 24
    np.testing.assert_allclose(seen, shift, atol=0.75)


def test_bound_states_stand_at_the_impurities():
    result = field("hard", 3, size=80)
    state = result.bound_state
    peaks = np.argwhere((maximum_filter(state, 5) == state) & (state > 0.6))
    gaps = np.linalg.norm(peaks[:, None] - result.positions[None], axis=2)
    assert np.mean(gaps.min(axis=0) < 1.5) > 0.75
    assert np.mean(gaps.min(axis=1) < 1.5) > 0.9
    far = np.linalg.norm(result.decoys[:, None] - result.positions[None], axis=2).min(axis=1) > 6
    if far.any():
        pixel = np.rint(np.clip(result.decoys[far], 0, 79)).astype(int)
        assert state[tuple(pixel.T)].max() < 0.6


def test_bound_state_profile():
    quiet = BoundState(spread=0.0, noise=0.0)
    state = bound_state_map(np.array([[20.0, 30.0]]), 61, quiet, np.random.default_rng(0))
    assert state[20, 30] == pytest.approx(1.15, abs=1e-3)
    from scipy.special import k0

    expected = np.exp(-9 / (2 * 1.4**2)) + 0.15 * (k0(0.6) / k0(0.2)) ** 2
    assert state[20, 33] == state[17, 30] == pytest.approx(expected, abs=1e-4)


def test_stripes_belong_to_gold():
    striped = replace(PURE, stripes=0.3)
    gold, copper = field(striped, material="Au(111)"), field(striped, material="Cu(111)")
    period = 63 / PIXEL_SIZE
    frequency = np.hypot(np.fft.fftfreq(48)[:, None], np.fft.fftfreq(48))
    near = np.abs(frequency - 1 / period) < 1 / 48
    power = [np.abs(np.fft.fft2(r.maps.mean(axis=0) - 1))[near].max() for r in (gold, copper)]
    assert power[0] > 3 * power[1]


def test_same_seed_same_field():
    np.testing.assert_array_equal(field("hard").maps, field("hard").maps)
    assert not np.array_equal(field("hard").maps, field("hard", 1).maps)


def test_biases_follow_the_material():
    assert len(field("std", biases=5).biases) == 5
    silver = field("std", material="Ag(111)")
    assert silver.biases.min() == -0.06
    with pytest.raises(InputError, match="band bottom"):
        field("std", material="Ag(111)", biases=[-0.1])
    with pytest.raises(InputError, match="too coarse"):
        field("std", pixel_size=9.0)
    with pytest.raises(InputError, match=r"did you mean 'hard\+all'"):
        field("hard+al")
    with pytest.raises(InputError, match="list of values"):
        field("std", biases=[])
    with pytest.raises(InputError, match="positions fit"):
        field(replace(create("std"), minimum_distance=30.0))
