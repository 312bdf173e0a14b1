"""The fast path (real form, symmetric classes, Anderson) against the same problem written plainly."""

import math

import numpy as np
import pytest
from scipy.special import expit

from stm_models.physics.moire import plain, real_form
from stm_models.physics.moire.branches import create
from stm_models.physics.moire.coulomb import hartree_rows, screened
from stm_models.physics.moire.eigen import diagonalise
from stm_models.physics.moire.hopping import bloch_matrix, find_bonds, slater_koster
from stm_models.physics.moire.lattice import build
from stm_models.physics.moire.symmetry import k_mesh, orbits


def occupations(energies, level, temperature):
    return expit((level - np.asarray(energies)) / temperature)


@pytest.fixture(
    scope="module",
    params=[
        (2, None, 4.0, 0.3, 0.02),
        (2, 10.0, 3.0, -0.2, 0.02),
        (3, None, 5.0, 0.15, 0.01),
        (3, 10.0, 3.0, 0.2, 0.01),
    ],
    ids=["I2-hubbard", "I2-coulomb", "I3-hubbard", "I3-coulomb"],
)
def both(request):
    """One state solved by the fast path and by the plain one, both to 1e-9 or better."""
    index, dielectric, interaction, filling, temperature = request.param
    lattice = build(index, 2.75)
    field = create("sym", lattice, k_count=3, temperature=temperature, dielectric=dielectric)
    fast = field.solve(interaction, filling, "bands", tolerance=1e-10)
    slow = plain.solve(
        lattice, interaction, filling, k_count=3, temperature=temperature, dielectric=dielectric,
        mixing=0.6, tolerance=1e-10,
    )  # fmt: skip
    assert fast.converged
    assert slow.converged
    return field, fast, slow, request.param


def test_density_agrees_with_the_plain_solver(both):
    """An independent prototype found n alike to 5e-8 in the real form and in complex code."""
    field, fast, slow, _ = both
    np.testing.assert_allclose(field.site_values(fast.arrays["density"]), slow.density, atol=5e-9)
    assert np.ptp(slow.density) > 0.005  # not a trivial, even density
    assert fast.chemical_potential == pytest.approx(slow.chemical_potential, abs=1e-8)


def test_bond_orders_agree_with_the_plain_solver(both):
    field, fast, slow, _ = both
    assert np.abs(slow.bond_order.imag).max() < 1e-8
    np.testing.assert_allclose(fast.arrays["bond_order"][field.bonds.label], slow.bond_order.real, atol=5e-9)


def test_bands_agree_with_the_plain_solver(both):
    field, fast, slow, _ = both
    whole = k_mesh(field.lattice, 3, operations=())
    for point, energies in zip(field.mesh.points, fast.energies, strict=True):
        here = np.flatnonzero(np.linalg.norm(whole.points - point, axis=1) < 1e-9)
        np.testing.assert_allclose(energies, slow.energies[here[0]], atol=1e-7)


def test_ldos_agrees_with_the_plain_solver(both):
    """Independent prototype: LDOS to 2e-7 between the real form and the complex code."""
    field, fast, slow, _ = both
    bias, broadening = np.array([-0.1, 0.0, 0.02]), np.array([0.03, 0.03, 0.05])
    expected = np.zeros((3, field.lattice.size))
    for energies, vectors, weight in zip(slow.energies, slow.vectors, slow.weights, strict=True):
        apart = energies[:, None] - slow.chemical_potential - bias
        peak = np.exp(-(apart**2) / (2 * broadening**2)) / np.sqrt(2 * math.pi * broadening**2)
        expected += 2 * weight * (np.abs(vectors) ** 2 @ peak).T
    result = field.ldos(fast, bias, broadening)
    np.testing.assert_allclose(result, expected, atol=2e-7 * max(1, expected.max()))


def test_energy_is_the_expectation_value_of_the_interaction(both):
    """Hopping, U (n² - n), Hartree and exchange of the plain density matrix, summed without any band."""
    field, fast, slow, (_, dielectric, interaction, _, temperature) = both
    lattice = field.lattice
    bonds = find_bonds(lattice)
    n, rho = slow.density, slow.bond_order
    energy = 2 * (slater_koster(bonds.vector) @ rho.real) + interaction * (n**2 - n).sum()
    if dielectric is not None:
        change = n - n.mean()
        energy += 2 * change @ hartree_rows(lattice, np.arange(lattice.size), dielectric, 10.0) @ change
        energy -= screened(bonds.length, dielectric, 10.0) @ np.abs(rho) ** 2
    assert fast.energy == pytest.approx(energy, abs=1e-7)
    f = occupations(slow.energies, slow.chemical_potential, temperature)
    f = np.clip(f, 1e-300, 1 - 1e-16)
    entropy = -2 * slow.weights @ (f * np.log(f) + (1 - f) * np.log1p(-f)).sum(axis=1)
    assert fast.free_energy == pytest.approx(energy - temperature * entropy, abs=1e-7)


def test_electrons_are_counted(both):
    """sum n = Ne/2 per spin to 1e-12 of it; each site holds between 0 and 1."""
    field, fast, _, (_, _, _, filling, _) = both
    count = field.lattice.size + filling
    assert 2 * field.site_values(fast.arrays["density"]).sum() == pytest.approx(count, rel=1e-12)
    assert fast.arrays["density"].min() >= 0
    assert fast.arrays["density"].max() <= 1


@pytest.mark.parametrize("dielectric", [None, 10.0])
def test_real_form_has_the_spectrum_and_projector_of_the_bloch_matrix(dielectric):
    """The C2zT trick at a k point of no symmetry, with on-site energies and exchange."""
    lattice = build(2, 2.75)
    generator = np.random.default_rng(2)
    bonds = find_bonds(lattice)
    sites, classes = orbits(lattice, bonds)
    value = slater_koster(bonds.vector) + 0.1 * generator.normal(size=len(classes.size))[classes.label]
    onsite = generator.normal(size=len(sites.size))[sites.label]
    k = np.array([0.33, -0.71])
    expected, states = np.linalg.eigh(bloch_matrix(lattice.size, bonds, value, k) + np.diag(onsite))

    half, used = lattice.size // 2, bonds.start < lattice.size // 2
    phase = bonds.vector[used, :2] @ k
    cos, sin, start, end = np.cos(phase), np.sin(phase), bonds.start[used], bonds.end[used]
    matrix = np.empty((lattice.size, lattice.size))
    real_form.assemble(value[used], cos, sin, start, end, onsite[:half], matrix)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    energies, vectors = diagonalise(matrix.T)
    np.testing.assert_allclose(energies, expected, atol=1e-12)

    weight = occupations(energies, 0.3, 0.2)
    np.testing.assert_allclose(
        real_form.site_density(vectors, weight), ((np.abs(states) ** 2) @ weight)[:half], atol=1e-12
    )
    order = np.zeros(len(start))
    projector = real_form.occupied_projector(vectors, weight)
    real_form.pair_expectation(projector, cos, sin, start, end, np.arange(len(start)), order)
    exact = (states * weight) @ states.conj().T
    np.testing.assert_allclose(order, (exact[start, end] * np.exp(-1j * phase)).real, atol=1e-12)
