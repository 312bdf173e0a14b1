"""What every branch of the mean field promises, and how the branches agree where they must."""

import math

import numpy as np
import pytest
from scipy.special import expit

from stm_models.errors import InputError
from stm_models.physics.moire.branches import BRANCHES, create
from stm_models.physics.moire.coulomb import hartree_rows, screened
from stm_models.physics.moire.hopping import bloch_matrix, find_bonds, slater_koster
from stm_models.physics.moire.lattice import build
from stm_models.physics.moire.symmetry import k_mesh

FILLING, TEMPERATURE = 0.2, 0.02
CASES = [
    ("sym", "bands", None, 4.0),
    ("sym", "bands", 10.0, 4.0),
    ("broken", "random", None, 4.0),
    ("broken", "random", 10.0, 4.0),
    ("collinear", "af", None, 7.5),  # U/t = 2.8: beyond graphene's antiferromagnetic transition
    ("collinear", "fm", 10.0, 4.0),
    ("collinear", "random", 10.0, 8.0),
]


def make(name, dielectric, index=2):
    return create(name, build(index, 2.75), k_count=2, temperature=TEMPERATURE, dielectric=dielectric)


def solved(branch, interaction, start, tolerance=1e-9):
    result = branch.solve(
        interaction, FILLING, start, rng=np.random.default_rng([3, 1]), tolerance=tolerance, max_iterations=200
    )
    assert result.converged
    return result


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2]}")
def state(request):
    name, start, dielectric, interaction = request.param
    branch = make(name, dielectric)
    return branch, solved(branch, interaction, start), request.param


@pytest.mark.parametrize("name", ["broken", "collinear"])
def test_each_bond_is_listed_once_in_one_of_its_directions(name):
    branch = create(name, build(1, 2.75), k_count=1, temperature=TEMPERATURE, dielectric=10.0, fock_range=8.0)
    bonds = find_bonds(branch.lattice, 8.0)
    directed = list(zip(bonds.start, bonds.end, *bonds.cell.T, strict=True))
    own = {tuple(cell) for i, j, *cell in directed if i == j}
    assert {(1, 0), (0, 1), (1, -1), (-1, 1)} <= own  # an atom and its copies in the next cells
    listed = [directed[pair] for pair in branch.pairs]
    assert sorted(listed + [(j, i, -m, -n) for i, j, m, n in listed]) == sorted(directed)


def directed_orders(branch, arrays, bonds):
    """Bond orders (spins, B) of every directed bond, from whatever form the branch keeps them in."""
    if hasattr(branch, "sites"):
        return arrays["bond_order"][branch.bonds.label][None]
    kept = arrays["bond_order"]
    kept = kept.reshape(branch.channels, -1) if branch.real_orders else (kept @ [1, 1j])[None]
    where = {}
    for place, pair in enumerate(branch.pairs):
        i, j, (m, n) = bonds.start[pair], bonds.end[pair], bonds.cell[pair]
        where[(i, j, m, n)] = (place, False)
        where[(j, i, -m, -n)] = (place, True)
    found = [where[key] for key in zip(bonds.start, bonds.end, *bonds.cell.T, strict=True)]
    places, reverse = (np.array(column) for column in zip(*found, strict=True))
    return np.where(reverse, kept[:, places].conj(), kept[:, places])


def test_a_state_is_its_own_mean_field(state):
    """The Hamiltonian written from its formula, diagonalised on the whole mesh, gives the state and its energy."""
    branch, solution, (_, _, dielectric, interaction) = state
    lattice, size = branch.lattice, branch.lattice.size
    bonds, t = find_bonds(lattice), slater_koster(find_bonds(lattice).vector)
    n = branch.spin_density(solution.arrays)
    n = np.array([n[0], n[-1]])
    onsite = interaction * (n[::-1] - 0.5)
    exchange, hartree = np.zeros(len(t)), 0.0
    rho = np.zeros((2, len(t)))
    excess = n.sum(axis=0) - n.sum() / size
    if dielectric is not None:
        exchange = screened(bonds.length, dielectric, 10.0)
        kernel = hartree_rows(lattice, np.arange(size), dielectric, 10.0)
        hartree = kernel @ excess
        rho = directed_orders(branch, solution.arrays, bonds)
        rho = np.array([rho[0], rho[-1]])
    density, orders = np.zeros((2, size)), np.zeros((2, len(t)), complex)
    mesh = k_mesh(lattice, 2, ())
    entropy = 0.0
    for spin in range(2):
        for k, weight in zip(mesh.points, mesh.weights, strict=True):
            matrix = bloch_matrix(size, bonds, t - exchange * rho[spin], k) + np.diag(onsite[spin] + hartree)
            energies, vectors = np.linalg.eigh(matrix)
            f = expit((solution.chemical_potential - energies) / TEMPERATURE)
            matrix = (vectors * f) @ vectors.conj().T
            density[spin] += weight * matrix.diagonal().real
            phase = np.exp(-1j * (bonds.vector[:, :2] @ k))
            orders[spin] += weight * matrix[bonds.start, bonds.end] * phase
            f = np.clip(f, 1e-300, 1 - 1e-16)
            entropy -= weight * (f * np.log(f) + (1 - f) * np.log1p(-f)).sum()
    np.testing.assert_allclose(density, n, atol=1e-8)
    if dielectric is not None:
        np.testing.assert_allclose(orders, rho, atol=1e-8)
    energy = (t * orders.real).sum() + interaction * (n[0] * n[1] - n.sum(axis=0) / 2).sum()
    if dielectric is not None:
        energy += 0.5 * excess @ kernel @ excess - 0.5 * (exchange * np.abs(orders) ** 2).sum()
    assert solution.energy == pytest.approx(energy, abs=1e-6)
    assert solution.free_energy == pytest.approx(energy - TEMPERATURE * entropy, abs=1e-6)


def test_arrays_are_what_the_branch_says(state):
    branch, solution, _ = state
    described = branch.state_arrays()
    assert list(solution.arrays) == list(described)
    for name, spec in described.items():
        assert solution.arrays[name].shape == spec.shape
        assert solution.arrays[name].dtype == spec.dtype == "float64"
        assert len(spec.dims) == len(spec.shape)


def test_electrons_are_counted(state):
    """The electrons of a cell to 1e-12 of them; each site holds between 0 and 1 per spin."""
    branch, solution, _ = state
    density = branch.spin_density(solution.arrays)
    count = branch.lattice.size + FILLING
    assert 2 * density.mean(axis=0).sum() == pytest.approx(count, rel=1e-12)
    assert density.min() >= 0
    assert density.max() <= 1


def test_ldos_holds_two_electrons_per_site(state):
    branch, solution, _ = state
    step = 0.05
    low, high = solution.energies.min() - 1, solution.energies.max() + 1
    grid = np.arange(low, high, step) - solution.chemical_potential
    spectrum = branch.ldos(solution, grid, np.full(len(grid), 0.1))
    assert spectrum.shape == (len(grid), branch.lattice.size)
    np.testing.assert_allclose(spectrum.sum(axis=0) * step, 2, atol=1e-6)


def test_occupied_ldos_is_the_density(state):
    """int LDOS f dE = n_up + n_dn, site by site: the LDOS belongs to the right sites."""
    branch, solution, _ = state
    eta = 0.004
    grid = np.arange(solution.energies.min() - 0.1, solution.energies.max() + 0.1, eta / 2)
    grid -= solution.chemical_potential
    spectrum = branch.ldos(solution, grid, np.full(len(grid), eta))
    electrons = 2 * branch.spin_density(solution.arrays).mean(axis=0)
    np.testing.assert_allclose(expit(-grid / TEMPERATURE) @ spectrum * eta / 2, electrons, atol=2e-3)


def test_a_stored_state_starts_warm(state):
    branch, solution, (_, _, _, interaction) = state
    stored = {name: values.copy() for name, values in solution.arrays.items()}
    again = branch.solve(interaction, FILLING, stored, tolerance=1e-7)
    assert again.converged
    assert again.iterations <= 3
    assert again.energy == pytest.approx(solution.energy, abs=1e-9)


def test_band_structure_runs_through_the_mesh(state):
    branch, solution, (_, _, _, interaction) = state
    bands = branch.band_structure(solution.arrays, interaction, branch.mesh.points)
    spins = len(solution.energies) // len(branch.mesh.points)
    assert bands.shape == (len(branch.mesh.points), spins * branch.lattice.size)
    expected = np.concatenate(np.split(solution.energies, spins), axis=1)
    np.testing.assert_allclose(bands, expected, atol=1e-7)
    k = np.array([[0.11, 0.23]])
    period = branch.lattice.reciprocal.sum(axis=0)
    here, there = (branch.band_structure(solution.arrays, interaction, k + shift) for shift in (0, period))
    np.testing.assert_allclose(here, there, atol=1e-9)


@pytest.mark.parametrize(("name", "start"), [("sym", "bands"), ("broken", "random"), ("collinear", "random")])
def test_same_seed_gives_the_same_bits(name, start):
    branch = make(name, 10.0, index=1)
    runs = [
        branch.solve(3.0, FILLING, start, rng=np.random.default_rng(seed), max_iterations=3, max_attempts=1)
        for seed in (5, 5, 6)
    ]
    assert all(np.array_equal(runs[0].arrays[key], runs[1].arrays[key]) for key in runs[0].arrays)
    assert runs[0].energy == runs[1].energy
    if start == "random":
        assert runs[0].energy != runs[2].energy


@pytest.mark.parametrize("case", [("broken", "random", 10.0, 4.0), ("collinear", "af", None, 7.5)])
def test_hellmann_feynman(case):
    """dF/dU = sum_i (n_up n_dn - (n_up + n_dn)/2) along one solution: the energy belongs to the equations."""
    name, start, dielectric, interaction = case
    branch, step = make(name, dielectric), 1e-3
    middle = solved(branch, interaction, start, 1e-10)
    above, below = (solved(branch, interaction + s, middle.arrays, 1e-10) for s in (step, -step))
    n = branch.spin_density(middle.arrays)
    expected = (n[0] * n[-1] - n.mean(axis=0)).sum()
    assert (above.free_energy - below.free_energy) / (2 * step) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("dielectric", [None, 10.0])
def test_chemical_potential_is_the_price_of_an_electron_in_a_magnet(dielectric):
    """dF/dN = mu, plus the Hartree term of the even background: see the same test of `sym`."""
    branch, step = make("collinear", dielectric), 1e-3
    interaction = 7.5 if dielectric is None else 8.0
    middle = solved(branch, interaction, "af", 1e-10)
    assert branch.order(middle).staggered_moment > 5
    energies = []
    for shift in (step, -step):
        near = branch.solve(
            interaction, FILLING + shift, middle.arrays, tolerance=1e-10, max_iterations=200, leave_saddles=False
        )
        energies.append(near.free_energy)
    background = 0.0
    if dielectric is not None:
        n = branch.spin_density(middle.arrays).mean(axis=0)
        kernel = hartree_rows(branch.lattice, np.arange(len(n)), dielectric, 10.0)
        background = -2 * (kernel @ (n - n.mean())).sum() / len(n)
    assert (energies[0] - energies[1]) / (2 * step) == pytest.approx(middle.chemical_potential + background, abs=5e-6)


@pytest.mark.parametrize("dielectric", [None, 10.0])
def test_collinear_without_a_moment_is_sym(dielectric):
    expected = solved(make("sym", dielectric), 4.0, "bands")
    field = make("sym", dielectric)
    branch = make("collinear", dielectric)
    result = solved(branch, 4.0, "pm")
    reference = field.spin_density(expected.arrays)[0]
    np.testing.assert_allclose(result.arrays["density"], [reference, reference], atol=1e-8)
    assert result.energy == pytest.approx(expected.energy, abs=1e-7)
    assert result.free_energy == pytest.approx(expected.free_energy, abs=1e-7)
    bias, broadening = np.array([-0.1, 0.02]), np.array([0.03, 0.05])
    np.testing.assert_allclose(branch.ldos(result, bias, broadening), field.ldos(expected, bias, broadening), atol=1e-6)


@pytest.mark.parametrize("dielectric", [None, 10.0])
def test_broken_stays_on_a_symmetric_state(dielectric):
    """The symmetric state is a fixed point of the wider equations, of the same energy, and shows no order."""
    field, branch = make("sym", dielectric), make("broken", dielectric)
    expected = solved(field, 4.0, "bands", 1e-10)
    start = {"density": field.spin_density(expected.arrays)[0]}
    if dielectric is not None:
        orders = expected.arrays["bond_order"][field.bonds.label[branch.pairs]]
        start["bond_order"] = np.column_stack([orders, np.zeros_like(orders)])
    result = branch.solve(4.0, FILLING, start, tolerance=1e-8)
    assert result.iterations == 1
    assert result.energy == pytest.approx(expected.energy, abs=1e-7)
    assert branch.order(result).nematicity < 1e-7
    assert branch.order(result).bond_current < 1e-7
    assert branch.order(result).gap == pytest.approx(field.order(expected).gap, abs=1e-7)


def test_no_branch_lies_above_sym():
    """Wider freedom cannot cost energy: at I=1 all random starts end at or below the symmetric state."""
    lowest = solved(make("sym", 10.0, index=1), 4.0, "bands").free_energy
    for name in ("broken", "collinear"):
        assert solved(make(name, 10.0, index=1), 4.0, "random").free_energy <= lowest + 1e-7


def test_moment_of_the_bilayer_needs_a_strong_interaction():
    """Independent prototype, Hubbard alone, I=3, lambda=3: no moment until U about 5 eV, up to .22 mu_B at 6 eV."""
    branch = create("collinear", build(3, 3.35), k_count=2, temperature=0.01, dielectric=None, interlayer_scale=3.0)
    weak, strong = (branch.order(branch.solve(u, 0.0, "af")) for u in (4.0, 6.0))
    assert weak.largest_moment < 1e-3
    assert strong.largest_moment == pytest.approx(0.22, abs=0.015)
    assert strong.staggered_moment > 1
    assert strong.net_moment < 1e-6


@pytest.mark.parametrize("name", sorted(BRANCHES))
def test_wrong_starts_are_refused(name):
    branch = make(name, None, index=1)
    with pytest.raises(InputError, match=branch.starts[0]):
        branch.solve(1.0, 0.0, "nonsense")
    with pytest.raises(InputError, match="density"):
        branch.solve(1.0, 0.0, {"density": np.ones(999)})
    bad = {key: np.full(spec.shape, math.nan) for key, spec in branch.state_arrays().items()}
    with pytest.raises(InputError, match="not finite"):
        branch.solve(1.0, 0.0, bad)
    if "random" in branch.starts:
        with pytest.raises(InputError, match="generator"):
            branch.solve(1.0, 0.0, "random")


def test_unknown_branch_is_refused():
    with pytest.raises(InputError, match="sym, broken, collinear"):
        make("symm", None)
