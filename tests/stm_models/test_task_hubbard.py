"""The task hubbard: what its images are, which state it keeps, and its answers."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stm_models.data.store import Store, create
from stm_models.errors import InputError
from stm_models.physics.moire import branches
from stm_models.physics.moire.fourier import KGrid, direct_transform
from stm_models.physics.moire.lattice import build, patch
from stm_models.tasks.hubbard.candidates import lowest
from stm_models.tasks.hubbard.config import STARTS
from stm_models.tasks.hubbard.structure import imaged_atoms
from stm_models.tasks.inputs import RawMap
from support import hubbard_cases as cases

TASK, MAGNETIC, VARIED, make = cases.TASK, cases.MAGNETIC, cases.VARIED, cases.make


@pytest.fixture(scope="module", params=[1.0, 0.1])
def simulated(request):
    config = make(bottom_layer=request.param)
    group = TASK.plan(config).groups[1]
    return config, group, TASK.simulator(config)(group, None)


def test_image_is_the_transform_of_the_disc(simulated):
    """From lattice, mean field and the Fourier sum, put together here by hand."""
    config, group, result = simulated
    lattice = build(2, 2.75)
    branch = branches.create("sym", lattice, k_count=2, temperature=0.01, dielectric=None)
    solution = branch.solve(group.parameters["U"], group.parameters["filling"], "bands")
    expected = branch.ldos(solution, group.samples["bias"], group.samples["broadening"])
    np.testing.assert_allclose(result.arrays["ldos"][:, 0], expected, rtol=1e-6)
    radius = config.patch_radius * math.sqrt(19)
    points, sites = patch(lattice, radius)
    weights = expected[:, sites] * np.exp(-(points**2).sum(axis=1) / (2 * (0.4 * radius) ** 2))
    weights = weights * np.where(lattice.layer[sites] == 0, config.bottom_layer, 1.0)
    full = np.abs(direct_transform(points[:, 0], points[:, 1], weights, KGrid(33)))
    np.testing.assert_allclose(result.arrays["image"][:, 0], full / weights.sum(axis=1)[:, None, None], atol=2e-6)
    assert result.scalars["charge_modulation"] == pytest.approx(2 * np.ptp(solution.arrays["density"]))
    assert result.scalars["energy"] == solution.energy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.05),
        ("dielectric", 4.0),
        ("gate_distance", 1.0),
        ("fock_range", 1.2),
        ("interlayer_scale", 0.5),
    ],
)
def test_each_setting_of_the_mean_field_arrives_there(name, value):
    config = make(**{"dielectric": 10.0, name: value})
    group = TASK.plan(config).groups[1]
    found = TASK.simulator(config)(group, None).arrays["ldos"][:, 0]
    usual = {"k_count": 2, "temperature": 0.01, "dielectric": 10.0}
    for settings in (usual | {name: value}, usual):
        branch = branches.create("sym", build(2, 2.75), **settings)
        solution = branch.solve(group.parameters["U"], group.parameters["filling"], "bands")
        expected = branch.ldos(solution, group.samples["bias"], group.samples["broadening"])
        away = np.abs(found - expected).max() / expected.max()
        assert away > 1e-3 if settings == usual else away < 1e-6


def test_image_has_its_peak_at_zero_and_inversion(simulated):
    _, _, result = simulated
    images = result.arrays["image"][:, 0]
    np.testing.assert_allclose(images[:, 16, 16], 1, atol=1e-6)
    assert images.max() < 1 + 1e-6
    np.testing.assert_allclose(images, images[:, ::-1, ::-1], atol=1e-6)


def test_warm_start_gives_the_cold_starts_image():
    config = make(tolerance=1e-8, dielectric=10.0)
    first, second, _ = TASK.plan(config).chains[0]
    simulate = TASK.simulator(config)
    warm = simulate(second, simulate(first, None).state)
    cold = simulate(second, None)
    np.testing.assert_allclose(warm.arrays["image"], cold.arrays["image"], atol=1e-6)
    assert warm.scalars["iterations"] <= cold.scalars["iterations"]


def test_what_did_not_converge_is_flagged():
    config = make(max_iterations=1, tolerance=1e-8)
    result = TASK.simulator(config)(TASK.plan(config).groups[0], None)
    assert result.scalars["converged"] == 0.0
    assert result.scalars["iterations"] == result.scalars["attempts"] > 1
    assert result.scalars["residual"] > 1e-8


def test_prepare_gives_the_simulators_image_back():
    """A wider simulated field, read as scattered points in nm, is cropped to the disc and gives its image."""
    config = make()
    plan = TASK.plan(config)
    result = TASK.simulator(config)(plan.groups[1], None)
    points, sites = patch(build(2, 2.75), config.patch_radius * math.sqrt(19) + 2)
    raw = RawMap(result.arrays["ldos"][0, :, None, sites].T.astype(float), None, None, "test", points * 0.246)
    prepared = TASK.prepare(raw, plan.attributes["input"])
    assert prepared.image.shape == plan.arrays["image"].shape
    assert prepared.known.all()
    np.testing.assert_allclose(prepared.image, result.arrays["image"][0], atol=1e-5)


def test_prepare_needs_a_size():
    plan = TASK.plan(make())
    raw = RawMap(np.random.default_rng(0).random((1, 32, 32)), None, None, "map.npy")
    with pytest.raises(InputError, match=r"map\.npy .*--size-nm"):
        TASK.prepare(raw, plan.attributes["input"])


@pytest.mark.parametrize(
    ("name", "value"), [("kx_max", None), ("ky_max", "wide"), ("kx_max", 0.0), ("envelope", None), ("radius", -1.0)]
)
def test_a_models_input_that_says_too_little_is_refused(name, value):
    spec = dict(TASK.plan(make()).attributes["input"])
    spec = {key: own for key, own in spec.items() if key != name} | ({} if value is None else {name: value})
    raw = RawMap(np.random.default_rng(0).random((1, 32, 32)), (5.0, 5.0), None, "map.npy")
    with pytest.raises(InputError, match=f"the model's input: {name}: .*; write the model file anew"):
        TASK.prepare(raw, spec)
    if name.startswith("k"):
        with pytest.raises(InputError, match=f"the model's input: {name}: "):
            TASK.axes(spec)


def test_decode_names_value_unit_and_verdict():
    metadata = {"targets": [{"name": "U", "unit": "eV"}], "interval": {"level": 0.9}}
    outputs = {
        "prediction": np.array([[1.5], [2.5], [3.5]], np.float32), "lower": np.array([[1.25], [2.0], [3.0]]),
        "upper": np.array([[1.75], [3.0], [4.0]]), "distance": np.array([2.0, 4.0, 30.0]),
        "novelty": np.array([0.4, 0.03, 0.0025]),
    }  # fmt: skip
    near, unusual, far = TASK.decode(outputs, metadata)
    assert near["U"] == {"value": 1.5, "unit": "eV", "lower": 1.25, "upper": 1.75, "level": 0.9}
    assert TASK.words({**near, "name": "a"}) == "U = 1.500 eV, 1.250 to 1.750 at 90 %"
    assert far["U"]["value"] == 3.5
    assert [one["inside"] for one in (near, unusual, far)] == [True, True, False]
    assert [one["novelty"] for one in (near, unusual, far)] == [0.4, 0.03, 0.0025]
    assert "with care" in unusual["verdict"]
    assert "0.25 % of held-out" in far["verdict"]
    assert "do not trust the value" in far["verdict"]
    (alone,) = TASK.decode({"prediction": np.array([[3.0]])}, metadata)
    assert alone["U"]["value"] == 3.0
    assert "verdict" not in alone


@pytest.mark.parametrize("branch", ["sym", "collinear"])
def test_a_smaller_structure_is_padded_and_the_padding_reaches_nothing(tmp_path, branch):
    config = make(**VARIED | {"branch": branch, "starts": STARTS[branch][:1], "energies": [0.0, 0.05]})
    plan = TASK.plan(config)
    first, second, _ = plan.chains[1]
    assert first.parameters["index"] == 1
    simulate = TASK.simulator(config)
    result = simulate(first, None)
    ldos = result.arrays["ldos"]
    assert ldos.shape == (2, 2, 76) == (config.draws, *plan.arrays["ldos"].shape)
    assert np.all(ldos[..., :28] > 0)
    assert np.all(ldos[..., 28:] == 0)
    atoms = imaged_atoms({"config": config.model_dump(mode="json")}, first.parameters)
    assert atoms.copies.max() == 27
    assert atoms.radius == pytest.approx(2 * math.sqrt(19))  # one field of view: the larger structure's
    ldos[..., 28:] = np.nan
    for image, density in zip(result.arrays["image"][0], ldos[0].astype(float), strict=True):
        weights = density[atoms.copies] * atoms.weights
        full = np.abs(direct_transform(*atoms.positions.T, weights, KGrid(33))) / weights.sum()
        np.testing.assert_allclose(image, full, atol=2e-6)
    # Stored and read back, the state is larger by zeros and starts the next group just the same.
    ldos[..., 28:] = 0
    create(tmp_path / "d.zarr", plan, {})
    store = Store(tmp_path / "d.zarr")
    store.write(first, result)
    larger = {name: np.zeros(np.array(spec.shape) + 1) for name, spec in plan.state.items()}
    with pytest.raises(ValueError, match="state_density has shape"):
        store.write(second, replace(result, state=larger))
    state = store.state(first.index)
    for name, spec in plan.state.items():
        assert state[name].shape == spec.shape
        inner = tuple(map(slice, result.state[name].shape))
        assert np.array_equal(state[name][inner], result.state[name])
        assert np.count_nonzero(state[name]) == np.count_nonzero(result.state[name])
    assert any(state[name].size > values.size for name, values in result.state.items())
    from_store, direct = simulate(second, state), simulate(second, result.state)
    assert np.array_equal(from_store.arrays["image"], direct.arrays["image"])
    assert from_store.scalars == direct.scalars


def test_each_energy_is_a_channel():
    energies = [-0.1, 0.0, 0.2]
    config = make(energies=energies, dielectric=10.0)
    group = TASK.plan(config).groups[2]
    stack = TASK.simulator(config)(group, None)
    assert TASK.plan(config).attributes["input"]["energies"] == energies
    assert stack.arrays["image"].shape == (2, 3, 33, 33)
    for channel, energy in enumerate(energies):
        single = TASK.simulator(make(energies=energy, dielectric=10.0))(group, None)
        np.testing.assert_allclose(stack.arrays["image"][:, channel], single.arrays["image"][:, 0], atol=1e-7)
        np.testing.assert_allclose(stack.arrays["ldos"][:, channel], single.arrays["ldos"][:, 0], rtol=1e-6)
    assert np.abs(np.diff(stack.arrays["image"], axis=1)).max(axis=(0, 2, 3)).min() > 3e-4


def turned(config, group, result, degrees):
    """|F(k)| / F(0) at some wave vectors and at the same turned about z: (2, vectors)."""
    atoms = imaged_atoms(config, group.parameters)
    weights = result.arrays["ldos"][0, 0, atoms.copies].astype(float) * atoms.weights
    k = np.random.default_rng(0).uniform(-3, 3, (60, 2))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    both = np.stack([k, k @ np.array([[cos, sin], [-sin, cos]])])
    return np.abs(np.exp(-1j * both @ atoms.positions.T) @ weights) / weights.sum()


def test_strain_takes_the_sixfold_axis_and_leaves_the_inversion():
    images = {}
    for strain in (0.0, 0.01):
        config = make(strain=strain, dielectric=10.0)
        group = TASK.plan(config).groups[0]
        result = TASK.simulator(config)(group, None)
        straight, sixth = turned(config, group, result, 60)
        broken = np.abs(straight - sixth).max()
        assert broken > 1e-2 if strain else broken < 1e-6
        straight, half = turned(config, group, result, 180)
        np.testing.assert_allclose(straight, half, atol=1e-12)
        images[strain] = result.arrays["image"][0, 0]
        assert (result.scalars["nematicity"] > 1e-3) == bool(strain)
        np.testing.assert_allclose(images[strain], images[strain][::-1, ::-1], atol=1e-6)
    assert np.abs(images[0.0] - images[0.01]).max() > 1e-2


def test_the_lowest_of_the_candidates_is_kept():
    config = make(**MAGNETIC)
    free, _, magnetic = TASK.plan(config).chains[0]
    simulate = TASK.simulator(config)
    result = simulate(magnetic, None)
    branch = branches.create("collinear", build(2, 2.75), k_count=2, temperature=0.01, dielectric=None)
    alone = [branch.solve(8.0, magnetic.parameters["filling"], start, max_iterations=100) for start in config.starts]
    assert all(solution.converged for solution in alone)
    energies = [solution.free_energy for solution in alone]
    assert result.scalars["start"] == np.argmin(energies) == 2
    assert result.scalars["free_energy"] == pytest.approx(min(energies), abs=1e-9)
    assert result.scalars["energy_spread"] == pytest.approx(max(energies) - min(energies), abs=1e-9)
    assert result.scalars["energy_spread"] > 1
    assert result.scalars["largest_moment"] > 0.3
    assert result.scalars["iterations"] == sum(solution.iterations for solution in alone)
    # Without U there is nothing to order: all are one state, and the first start has its name.
    none = simulate(free, None)
    assert none.scalars["start"] == 0
    assert none.scalars["energy_spread"] < 1e-6
    assert none.scalars["largest_moment"] < 1e-6
    # The predecessor's state is one candidate more, and does not hide the lower ones.
    assert simulate(magnetic, none.state).scalars["free_energy"] == pytest.approx(min(energies), abs=1e-6)
    assert simulate(magnetic, none.state).scalars["iterations"] > result.scalars["iterations"]


def test_replicates_that_take_the_starts_in_turn_hold_metastable_states():
    config = make(**MAGNETIC | {"keep": "cycle", "replicates": 3, "interaction": [8.0, 8.0], "interaction_count": 1})
    simulate = TASK.simulator(config)
    results = [simulate(group, None) for group in TASK.plan(config).groups]
    assert [result.scalars["start"] for result in results] == [0, 1, 2]
    assert all(result.scalars["energy_spread"] == 0 for result in results)
    moments = [result.scalars["largest_moment"] for result in results]
    assert moments[0] < 1e-6 < 0.3 < moments[2]
    assert results[0].scalars["free_energy"] > results[2].scalars["free_energy"] + 1


def test_a_warm_chain_follows_one_start_and_a_cold_one_starts_anew():
    group = TASK.plan(make()).groups[1]
    warm, cold = (TASK.simulator(make(warm=warm)) for warm in (True, False))
    state = cold(TASK.plan(make()).groups[0], None).state
    assert warm(group, state).scalars["start"] == 1  # 'warm' follows the starts
    assert cold(group, state).scalars["start"] == 0
    assert np.array_equal(cold(group, state).arrays["image"], cold(group, None).arrays["image"])
    assert TASK.plan(make()).attributes["starts"] == ["bands", "warm"]


def test_random_starts_are_told_apart_by_their_place_and_repeat():
    one_state = {"branch": "broken", "dielectric": 10.0, "index": 1, "interaction": [1, 1], "interaction_count": 1}
    config = make(**one_state, starts=["random", "random"])
    group = TASK.plan(config).groups[0]
    one, other = TASK.simulator(config)(group, None), TASK.simulator(config)(group, None)
    assert np.array_equal(one.arrays["image"], other.arrays["image"])
    twice = TASK.simulator(make(**one_state))(group, None)
    assert one.scalars["iterations"] > twice.scalars["iterations"]
    assert one.scalars["free_energy"] <= twice.scalars["free_energy"] + 1e-6


def test_converged_goes_before_low_and_the_first_of_equals_stays():
    def found(energy, converged=True):
        return SimpleNamespace(free_energy=energy, converged=converged, iterations=3, attempts=1)

    kept = lowest(enumerate([found(-9.0, False), found(-1.0), found(-2.0), found(-2.0 - 1e-7), found(-1.5)]))
    assert kept.start == 2
    assert kept.spread == pytest.approx(1.0)
    assert (kept.iterations, kept.attempts) == (15, 5)
    assert lowest(enumerate([found(-1.0, False), found(-2.0, False)])).start == 1
    assert lowest(enumerate([found(-1.0, False)])).spread == 0


def test_an_energy_without_states_is_said():
    config = make(energies=[0.0, 1.0], broadening=1e-4, broadening_spread=[1, 1], index=1, k_mesh=1)
    with pytest.raises(InputError, match=r"no state within nine broadenings .* larger simulate\.broadening"):
        TASK.simulator(config)(TASK.plan(config).groups[0], None)


def test_prepare_matches_a_stack_of_maps_to_the_energies():
    """The maps lie unsorted among others in the file; biases are a little off."""
    config = make(energies=[-0.1, 0.0, 0.2])
    group = TASK.plan(config).groups[1]
    result = TASK.simulator(config)(group, None)
    atoms = imaged_atoms(config, group.parameters)
    maps = result.arrays["ldos"][0][:, None, atoms.copies].astype(float)
    others = np.random.default_rng(0).random((2, *maps.shape[1:]))
    raw = RawMap(
        np.concatenate([maps[[2, 0]], others, maps[[1]]]), None, np.array([0.21, -0.11, -0.4, 0.6, 0.005]),
        "stack.npz", atoms.positions * 0.246,
    )  # fmt: skip
    spec = TASK.plan(config).attributes["input"]
    assert spec["energy_tolerance"] == pytest.approx(0.03)
    prepared = TASK.prepare(raw, spec)
    np.testing.assert_allclose(prepared.image, result.arrays["image"][0], atol=1e-5)
    assert any("-0.11, 0.005, 0.21 V" in note for note in prepared.notes)
    assert len(prepared.notes) == len(set(prepared.notes))
