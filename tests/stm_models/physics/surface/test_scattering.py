"""Multiple scattering: the Hankel table, conservation laws, closed forms and an independent solve."""

import numpy as np
import pytest
from scipy.special import hankel1, j0

from stm_models.errors import InputError
from stm_models.physics.surface.hankel import SHORTEST, tabulate, waves
from stm_models.physics.surface.materials import create
from stm_models.physics.surface.scattering import Scatterers, density, pixel_grid, t_matrix

K = 0.88 + 0.004j


def cloud(count, seed=0, absorption=None, extent=60.0):
    rng = np.random.default_rng(seed)
    return Scatterers(
        rng.uniform(0, extent, (count, 2)),
        rng.normal(-0.5, 1.0, count),
        rng.normal(0, 3.0, count),
        np.ones(count) if absorption is None else np.full(count, absorption),
    )


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def dense_density(points, scatterers, bias, k):
    """Green function of the impurity problem by Foldy's equations, one column per source at the detector."""
    s = scatterers.strength([bias])[0]
    between = distances(scatterers.positions, scatterers.positions)
    np.fill_diagonal(between, 1)
    off = hankel1(0, k * between)
    np.fill_diagonal(off, 0)
    incident = hankel1(0, k * distances(scatterers.positions, points))
    exciting = np.linalg.solve(np.eye(len(s)) - off * s[None, :], incident)
    return 1 + np.sum(incident * s[:, None] * exciting, axis=0).real


@pytest.mark.parametrize("k", [0.9, K, 0.083 + 0.03j, 1.5 + 0.2j])
def test_hankel_table_is_scipys_function(k):
    r = np.concatenate([np.linspace(SHORTEST, 4 / abs(k), 20_001), np.linspace(4 / abs(k), 140, 20_001)])
    parts = waves(tabulate(k, r.max()), np.column_stack([np.zeros_like(r), r]), np.zeros((1, 2)))
    expected = hankel1(0, k * r)
    np.testing.assert_array_less(np.abs(parts[0] + 1j * parts[1] - expected), 1e-7 * np.abs(expected))


def test_optical_theorem_of_one_real_scatterer():
    """What one scatterer takes out of the forward wave it sends out again: |s|² = -Re s; absorption takes more."""
    one = cloud(5)
    s = one.strength([-0.2, 0.0])
    np.testing.assert_allclose(np.abs(s) ** 2, -s.real, atol=1e-14)
    lossy = cloud(5, absorption=0.4).strength([0.0])
    assert np.all(np.abs(lossy) ** 2 < -lossy.real - 0.1)


@pytest.mark.parametrize("absorption", [1.0, 0.5])
def test_optical_theorem_of_many_scatterers(absorption):
    """M + M^+ = -2 M^+ J0 M for real phase shifts and real k; with absorption the difference is definite."""
    scatterers = cloud(25, absorption=absorption)
    matrix = t_matrix(tabulate(0.88, 100), scatterers.positions, scatterers.strength([-0.1])[0])
    bessel = j0(0.88 * distances(scatterers.positions, scatterers.positions))
    lost = -(matrix + matrix.conj().T) - 2 * matrix.conj().T @ bessel @ matrix
    if absorption == 1:
        np.testing.assert_allclose(lost, 0, atol=2e-7)
    else:
        assert np.linalg.eigvalsh(lost).min() > 0.01


def test_single_impurity_closed_form():
    """Fiete and Heller, Rev. Mod. Phys. 75, 933 (2003): rho / rho0 = 1 + Re[s H²]."""
    one = Scatterers(np.array([[10.3, 12.8]]), np.array([-1.1]), np.array([-3.2]), np.array([0.35]))
    grid, biases = pixel_grid(24), np.array([-0.2, 0.02])
    k = create("Au(111)").complex_wave_number(biases, None, 4.6875)
    s = (0.35 * np.exp(2j * (-1.1 - 3.2 * biases)) - 1) / 2
    expected = 1 + (s[:, None] * hankel1(0, k[:, None] * distances(grid, one.positions)[:, 0]) ** 2).real
    np.testing.assert_allclose(density(grid, one, biases, k), expected, atol=1e-6)


@pytest.mark.parametrize("count", [2, 30])
def test_against_an_independent_dense_solve(count):
    scatterers = cloud(count, seed=3, absorption=0.7)
    grid = pixel_grid(40) + 0.05
    ours = density(grid, scatterers, [-0.1], [K])[0]
    expected = dense_density(grid, scatterers, -0.1, K)
    np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(expected).max())


def test_two_impurities_by_the_series_of_bounces():
    """M of two scatterers, closed form: s1 (1, s2 H) / (1 - s1 s2 H²), the sum over all bounces."""
    pair = cloud(2, seed=5)
    s1, s2 = pair.strength([0.0])[0]
    h = hankel1(0, K * np.linalg.norm(pair.positions[0] - pair.positions[1]))
    expected = np.array([[s1, s1 * h * s2], [s1 * h * s2, s2]]) / (1 - s1 * s2 * h**2)
    np.testing.assert_allclose(t_matrix(tabulate(K, 100), pair.positions, np.array([s1, s2])), expected, atol=1e-7)


def test_reciprocity():
    """From r to r' as from r' to r: the T matrix is symmetric, with two species and absorption too."""
    scatterers = cloud(40, seed=7, absorption=0.35)
    matrix = t_matrix(tabulate(K, 100), scatterers.positions, scatterers.strength([0.02])[0])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    there, here = np.array([[3.0, 50.0]]), np.array([[41.0, 9.5]])
    a = hankel1(0, K * distances(scatterers.positions, here))[:, 0]
    b = hankel1(0, K * distances(scatterers.positions, there))[:, 0]
    assert a @ matrix @ b == pytest.approx(b @ matrix @ a)
    assert abs(a @ matrix @ b) > 0.01


def test_far_away_the_surface_is_clean():
    scatterers = cloud(20)
    angle = np.linspace(0, 2 * np.pi, 50)
    ring = np.column_stack([np.sin(angle), np.cos(angle)])
    off = [np.abs(density(30 + radius * ring, scatterers, [0.0], [0.88 + 0.02j])[0] - 1).max() for radius in (60, 400)]
    assert off[0] > 0.01
    assert off[1] < 1e-6


def test_one_scatterers_rings_fall_as_one_over_r():
    one = Scatterers(np.zeros((1, 2)), np.array([-1.0]), np.zeros(1), np.ones(1))
    points = np.column_stack([np.zeros(4000), np.linspace(20, 200, 4000)])
    wave = density(points, one, [0.0], [0.88])[0] - 1
    near, far = points[:, 1] < 40, points[:, 1] > 180
    assert (np.abs(wave) * points[:, 1])[near].max() == pytest.approx(
        (np.abs(wave) * points[:, 1])[far].max(), rel=0.02
    )


@pytest.mark.parametrize(
    ("name", "pixel"), [("Au(111)", 4.6875), ("Au(111) photoemission", 4.6875), ("Cu(111)", 4.6875), ("Ag(111)", 9.0)]
)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_fourier_ring_lies_at_twice_the_wave_number(name, pixel, share):
    """The ring of the Fourier transform at 2 k(V), within one bin 2 pi / L; the mean over four fields."""
    size, count = 128, 60
    material = create(name)
    bias = np.array([material.window[0] + share * (material.window[1] - material.window[0])])
    window = np.outer(np.hanning(size), np.hanning(size))
    frequency = np.fft.fftfreq(size) * size
    bins = np.rint(np.hypot(frequency[:, None], frequency)).astype(int).ravel()
    # Sharp waves: the lifetime widens the ring inwards, in silver by more than a bin.
    k = material.complex_wave_number(bias, 0.001, pixel)
    grid, power = pixel_grid(size), np.zeros(size * size)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        # Phases of every kind: one phase alone has its weight on one side of the ring.
        scatterers = Scatterers(
            rng.uniform(0, size, (count, 2)), rng.uniform(0, np.pi, count), np.zeros(count), np.full(count, 0.8)
        )
        wave = density(grid, scatterers, bias, k)[0] - 1
        wave *= np.prod(1 - np.exp(-((distances(scatterers.positions, grid) / 2) ** 2)), axis=0)
        power += np.abs(np.fft.fft2(wave.reshape(size, size) * window)).ravel() ** 2
    profile = np.bincount(bins, power) / np.bincount(bins)
    ring = 3 + profile[3 : size // 2].argmax()
    assert abs(ring - 2 * material.wave_number(bias, pixel)[0] * size / (2 * np.pi)) <= 1


def test_phase_shift_follows_the_bias_and_drift_moves_the_frame():
    one = Scatterers(np.array([[4.0, 5.0]]), np.array([0.9]), np.array([4.0]), np.array([0.75]))
    np.testing.assert_allclose(one.strength([-0.2])[0, 0], (0.75 * np.exp(0.2j) - 1) / 2)
    grid = pixel_grid(10) + 0.25
    moved = density(grid, one, [0.0, 0.0], [K, K], np.array([[0.0, 0.0], [0.5, -1.0]]))
    np.testing.assert_allclose(moved[1], density(grid + np.array([0.5, -1.0]), one, [0.0], [K])[0], atol=1e-6)
    assert np.abs(moved[1] - moved[0]).max() > 0.01


def test_no_scatterer_leaves_the_surface_clean():
    nothing = Scatterers(np.empty((0, 2)), np.empty(0), np.empty(0), np.empty(0))
    np.testing.assert_array_equal(density(pixel_grid(4), nothing, [0.0], [K]), 1)


def test_bad_input_is_refused():
    one = cloud(1)
    with pytest.raises(InputError, match="same length"):
        density(pixel_grid(4), one, [0.0, 0.1], [K])
    with pytest.raises(InputError, match="outgoing"):
        density(pixel_grid(4), one, [0.0], [-0.5])
    with pytest.raises(InputError, match=r"\(N, 2\)"):
        Scatterers(np.zeros((1, 3)), np.zeros(1), np.zeros(1), np.ones(1))
    with pytest.raises(InputError, match="absorption"):
        Scatterers(np.zeros((1, 2)), np.zeros(1), np.zeros(1), np.full(1, 1.5))
    with pytest.raises(InputError, match="phase"):
        Scatterers(np.zeros((1, 2)), np.full(1, np.nan), np.zeros(1), np.ones(1))
