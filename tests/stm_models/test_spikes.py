"""Spikes are replaced, atoms are not: whatever the scale, the sampling and the noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stm_models.physics.raster import rasterise
from stm_models.signal.spikes import despike


def atoms(pixels=120, spacing=1.0, width=0.2, side=12.0):
    """A triangular lattice of Gaussians, brighter along one direction."""
    m, n = (axis.ravel() for axis in np.meshgrid(np.arange(-20, 21), np.arange(-20, 21)))
    points = spacing * np.stack([m + n / 2, n * np.sqrt(3) / 2], axis=1)
    return rasterise(points, (1 + 0.3 * np.cos(m))[None], side=side, pixels=pixels, width=width)[0]


@given(st.integers(0, 2**32 - 1), st.floats(1e-12, 1e12), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_spikes_go_and_the_rest_stays(seed, scale, count):
    rng = np.random.default_rng(seed)
    clean = atoms() * (1 + 0.1 * rng.standard_normal((120, 120)))
    hit = rng.choice(np.arange(4, 116, 4), (count, 2))
    spiked = clean.copy()
    spiked[hit[:, 0], hit[:, 1]] += rng.choice([-1, 1], count) * rng.uniform(7, 10, count) * clean.std()
    found, replaced = despike(scale * spiked)
    places = len(np.unique(hit, axis=0))
    assert places <= replaced <= places + 3
    assert np.abs(found / scale - clean)[hit[:, 0], hit[:, 1]].max() < 4 * clean.std()
    untouched = np.ones(clean.shape, bool)
    untouched[hit[:, 0], hit[:, 1]] = False
    assert np.count_nonzero((found != scale * spiked) & untouched) <= 3


@pytest.mark.parametrize(("pixels", "spacing"), [(120, 1.0), (50, 1.0), (120, 4.0), (240, 4.0), (50, 5.9)])
def test_atoms_are_no_spikes(pixels, spacing):
    """Few or many, down to a width of 0.85 pixels."""
    values = atoms(pixels, spacing)
    found, replaced = despike(values)
    assert replaced == 0
    assert found is values


def test_neither_flat_nor_empty_maps_nor_noise_have_any():
    rng = np.random.default_rng(0)
    for values in (np.zeros((9, 9)), np.full((9, 9), 3.0), np.outer(np.arange(9.0), np.ones(9)),
                   rng.standard_normal((200, 200)), rng.integers(0, 3, (50, 50)).astype(float)):  # fmt: skip
        assert despike(values)[1] == 0


@pytest.mark.parametrize("place", [(0, 0), (0, 7), (119, 119), (60, 119)])
def test_a_spike_at_the_border_is_seen(place):
    clean = atoms()
    spiked = clean.copy()
    spiked[place] += 9 * clean.std()
    found, replaced = despike(spiked)
    assert replaced == 1
    assert abs(found[place] - clean[place]) < 3 * clean.std()
    assert spiked[place] > 8 * clean.std()
