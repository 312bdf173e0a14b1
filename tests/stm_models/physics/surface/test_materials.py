"""Wave numbers of the surface states against the literature, and biases that have none."""

import numpy as np
import pytest
from scipy.constants import angstrom, electron_volt, hbar, m_e

from stm_models.errors import InputError
from stm_models.physics.surface.materials import KINETIC, MATERIALS, create, lifetime_broadening


def test_kinetic_constant_is_half_hbar_squared_over_the_electron_mass():
    assert hbar**2 / (2 * m_e) / electron_volt / angstrom**2 == pytest.approx(KINETIC, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("Au(111)", 0.187, 0.189),
        ("Au(111) photoemission", 0.180, 0.182),
        ("Ag(111)", 0.080, 0.086),
        ("Cu(111)", 0.209, 0.218),
    ],
)
def test_fermi_wave_number_is_the_published_one(name, low, high):
    assert low < create(name).wave_number(0.0) < high
    assert create(name).source


@pytest.mark.parametrize(("bias", "expected"), [(-0.23, 0.659), (0.0, 0.883), (0.02, 0.900)])
def test_gold_on_the_papers_pixels(bias, expected):
    """Band and pixels (375 Å / 80) of arXiv:2006.15898: rad/px."""
    assert create("Au(111)").wave_number(bias, 375 / 80) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("material", MATERIALS.values(), ids=lambda m: m.name)
def test_window_has_surface_states_and_does_not_alias(material):
    k = material.wave_number(material.biases(126), 375 / 80)
    assert np.all(np.diff(k) > 0)
    assert 2 * k.max() < np.pi


def test_126_biases_of_gold_are_the_papers():
    np.testing.assert_allclose(np.diff(create("Au(111)").biases(126)), 0.002)


def test_complex_wave_number_is_that_of_the_complex_energy():
    material = create("Cu(111)")
    biases = np.array([-0.2, 0.1])
    k = material.complex_wave_number(biases, [0.01, 0.03], 2.0)
    energy = KINETIC * (k / 2.0) ** 2 / material.mass + material.band_bottom
    np.testing.assert_allclose(energy, biases + 0.5j * np.array([0.01, 0.03]), atol=1e-12)
    np.testing.assert_allclose(
        material.complex_wave_number(biases), material.complex_wave_number(biases, lifetime_broadening(biases))
    )
    np.testing.assert_allclose(lifetime_broadening([0.0, -0.52]), [0.010, 0.040])


def test_bias_without_surface_state_is_refused_with_choices():
    silver = create("Ag(111)")
    for bias in (silver.band_bottom, -0.23):
        with pytest.raises(InputError, match=r"band bottom of Ag\(111\).*-0\.06 to 0\.02 V.*Au\(111\)"):
            silver.wave_number([0.0, bias])
    with pytest.raises(InputError, match="finite"):
        silver.complex_wave_number(np.nan)
    with pytest.raises(InputError, match="pixel size"):
        silver.wave_number(0.0, 0.0)
    with pytest.raises(InputError, match="broadening"):
        silver.complex_wave_number(0.0, -0.01)
    with pytest.raises(InputError, match=r"choose from Au\(111\)"):
        create("Au111")
