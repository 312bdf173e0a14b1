"""Measured maps of twisted double bilayer graphene, read and transformed."""

import numpy as np
import pytest

from stm_models.data.readers import read, select
from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid
from stm_models.signal.real_map import to_ft_image

pytestmark = pytest.mark.realdata


def test_the_stack_and_its_biases(nematic):
    raw = read(nematic, key="m428")
    assert raw.values.shape == (101, 64, 64)
    assert raw.size_nm is None
    assert raw.bias.max() == pytest.approx(0.1, abs=1e-6)
    assert raw.bias.min() == pytest.approx(-0.1, abs=1e-6)
    assert "v.mat" in raw.source
    assert np.isfinite(raw.values).all()
    with pytest.raises(InputError, match=r"101 channels, -0\.1 to 0\.1 V"):
        select(raw)
    with pytest.raises(InputError, match="outside"):
        select(raw, bias=-14)


def test_one_bias_becomes_an_image(nematic):
    raw = read(nematic, bias=-0.014, size_nm=(50.0, 50.0))
    assert raw.values.shape == (1, 64, 64)
    assert raw.bias[0] == pytest.approx(-0.014, abs=1e-6)
    np.testing.assert_array_equal(raw.values[0], read(nematic).values[57])
    grid = KGrid(256)
    picture, known, notes = to_ft_image(raw, grid)
    assert picture.shape == known.shape == (256, 256)
    assert np.isfinite(picture).all()
    nyquist = np.pi * 64 / (50 / 0.246)
    assert np.abs(grid.kx[known.any(0)]).max() <= nyquist < np.abs(grid.kx[known.any(0)]).max() + grid.step[0]
    assert 1 - known.mean() == pytest.approx(1 - nyquist**2 / (grid.kx_max * grid.ky_max), abs=0.002)
    assert np.all(picture[~known] == 0)
    assert 0.01 < picture.max() <= 1
    assert any("98.2% of the model's window is masked" in note for note in notes)
    centre = to_ft_image(raw, KGrid(257))[0][128, 128]
    assert centre == pytest.approx(1, abs=1e-6)


def test_without_a_size_it_is_refused(nematic):
    with pytest.raises(InputError, match="--size-nm"):
        to_ft_image(read(nematic, bias=-0.014), KGrid(64))
