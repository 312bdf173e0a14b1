"""A wave of known length and amplitude comes out where and as high as it should."""

import math

import numpy as np
import pytest

from stm_models.signal.spectrum import peaks, spectrum
from stm_models.tasks.inputs import RawMap


def raster(kx, ky, size_nm, rows=96, columns=80, amplitude=0.8, offset=5.0):
    height, width = size_nm or (rows, columns)
    y = (np.arange(rows) + 0.5) * height / rows
    x = (np.arange(columns) + 0.5) * width / columns
    wave = amplitude * np.cos(kx * x[None, :] + ky * y[:, None] + 0.4)
    return RawMap((offset + wave)[None], size_nm, None, "wave")


@pytest.mark.parametrize("size_nm", [(20.0, 12.0), None])
def test_a_wave_is_one_peak(size_nm):
    height, width = size_nm or (96, 80)
    kx, ky = 2 * math.pi * 12 / width, 2 * math.pi * 9 / height  # whole periods: exactly on a pixel
    magnitude, axes = spectrum(raster(kx, ky, size_nm))
    assert axes.labels[0] == ("kx (1/nm)" if size_nm else "kx (rad/pixel)")
    strongest = peaks(magnitude, axes)[0]
    assert strongest["kx"] == pytest.approx(kx, rel=1e-9)
    assert strongest["ky"] == pytest.approx(ky, rel=1e-9)
    assert strongest["magnitude"] == pytest.approx(0.4, rel=0.01)
    assert magnitude[48, 40] < 1e-3  # the mean is gone
    assert axes.extent[1] == pytest.approx(math.pi * 80 / width, rel=0.02)


def test_a_wave_along_minus_y_is_found_in_the_upper_half():
    magnitude, axes = spectrum(raster(6.0, -4.0, (20.0, 12.0)))
    found = peaks(magnitude, axes)[0]
    assert (found["kx"], found["ky"]) == (pytest.approx(-6, abs=0.3), pytest.approx(4, abs=0.2))


def test_scattered_points_of_the_same_wave():
    rng = np.random.default_rng(1)
    points = rng.uniform(-4, 4, (6000, 2))
    points = points[np.hypot(*points.T) < 4]
    kx, ky = 12.0, 7.0
    values = 3 + 0.5 * np.cos(points @ [kx, ky])
    magnitude, axes = spectrum(RawMap(values.reshape(1, 1, -1), (8, 8), None, "points", points))
    found = peaks(magnitude, axes)[0]
    assert found["kx"] == pytest.approx(kx, abs=0.3)
    assert found["ky"] == pytest.approx(ky, abs=0.3)
    assert found["magnitude"] == pytest.approx(0.25, rel=0.1)


def test_a_constant_map_has_no_peaks():
    magnitude, axes = spectrum(RawMap(np.full((1, 16, 16), 3.0), (1.0, 1.0), None, "flat"))
    assert np.all(magnitude == 0)
    assert peaks(magnitude, axes) == []
