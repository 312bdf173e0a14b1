"""The task hubbard: what its config refuses, what its images are, and its answers."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from stm_models.config import validate
from stm_models.data.store import Store, create
from stm_models.errors import InputError
from stm_models.physics.moire import branches
from stm_models.physics.moire.fourier import KGrid, direct_transform
from stm_models.physics.moire.lattice import build, patch
from stm_models.tasks import registry
from stm_models.tasks.hubbard.candidates import lowest
from stm_models.tasks.hubbard.config import STARTS, HubbardSimulation
from stm_models.tasks.hubbard.structure import GEOMETRY, imaged_atoms, structure
from stm_models.tasks.inputs import RawMap

SMALL = {
    "index": 2, "layer_distance": 2.75, "dielectric": None, "k_mesh": 2, "interaction": [1.0, 5.0],
    "interaction_count": 3, "replicates": 2, "draws": 2, "image_size": 33,
}  # fmt: skip


CONFIGS = Path(__file__).parents[2] / "configs" / "hubbard"


def make(**changes):
    return validate(HubbardSimulation, {**SMALL, **changes}, "simulate")


@pytest.fixture(scope="module")
def task():
    return registry.get("hubbard")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"interaction": [-1, 2]}, ["interaction", "at least 0 eV", "-1"]),
        ({"interaction": [4, 2]}, ["interaction", "4.0 is above 2.0"]),
        ({"index": 0}, ["index", "greater than or equal to 1", "got 0"]),
        ({"index": "five"}, ["index", "valid integer", "'five'"]),
        ({"k_mesh": 0}, ["k_mesh", "greater than or equal to 1"]),
        ({"temperature": math.nan}, ["temperature", "finite"]),
        ({"filling": [0, math.nan]}, ["filling", "finite"]),
        ({"dielectric": math.inf}, ["dielectric", "finite"]),
        ({"dielectric": 0}, ["dielectric", "greater than 0"]),
        ({"filling": [0, 76]}, ["filling", "76 electrons", "I=2"]),
        ({"filling": [0.2, -0.2]}, ["filling", "above"]),
        ({"bias": [-4, 4]}, ["bias", "within 1", "-4"]),
        ({"broadening_spread": [0, 1]}, ["broadening_spread", "above 0"]),
        ({"interaction_sampling": "random"}, ["interaction_sampling", "grid", "uniform"]),
        ({"branch": "colinear"}, ["branch", "'sym', 'broken' or 'collinear'"]),
        ({"starts": ["fm"]}, ["starts", "branch sym starts from bands", "'fm' is one of branch collinear"]),
        ({"branch": "broken", "starts": "bands"}, ["starts", "branch broken starts from random"]),
        ({"branch": "collinear", "starts": ["fm", "af", "fm"]}, ["starts", "'fm' is there twice"]),
        ({"starts": []}, ["starts", "at least 1"]),
        ({"keep": "all"}, ["keep", "'lowest' or 'cycle'"]),
        ({"index": []}, ["index", "at least one index"]),
        ({"index": [2, 3, 2]}, ["index", "each once"]),
        ({"index": [2, 0]}, ["index.1", "greater than or equal to 1"]),
        ({"index": [3, 2], "filling": [0, 76]}, ["filling", "76 electrons", "I=2"]),
        ({"index": [1, 2, 3]}, ["replicates", "at least 3", "3 indices in turn", "got 2"]),
        (
            {"branch": "collinear", "keep": "cycle", "index": [1, 2]},
            ["replicates", "at least 6", "2 indices x 3 starts"],
        ),
        ({"layer_distance": [2.7, 5.5]}, ["layer_distance", "below 5"]),
        ({"layer_distance": [2.8, 2.7]}, ["layer_distance", "2.8 is above 2.7"]),
        ({"strain": 0.1}, ["strain", "within 0.05"]),
        ({"strain_angle": 30}, ["strain_angle", "simulate.strain"]),
        ({"energies": []}, ["energies", "ascending"]),
        ({"energies": [0.1, 0]}, ["energies", "ascending"]),
        ({"energies": [0, 50]}, ["energies", "within 1"]),
        ({"kmesh": 3}, ["unknown key 'kmesh'", "did you mean 'k_mesh'", "index", "seed"]),
    ],
)  # fmt: skip
def test_config_refuses_the_impossible_in_one_line(changes, words):
    with pytest.raises(InputError) as caught:
        make(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("simulate: ")
    assert all(word in message for word in words), message


def test_every_branch_has_the_starts_that_the_config_offers():
    assert {name: branch.starts for name, branch in branches.BRANCHES.items()} == STARTS


def test_one_number_stands_for_a_list_or_a_range():
    assert make(index=[2], layer_distance=[2.75, 2.75], starts=["bands"], strain=[0, 0], energies=0.0) == make()
    config = make(branch="collinear", index=[1, 2], strain=[0, 0.01])
    assert HubbardSimulation.model_validate(config.model_dump(mode="json")) == config
    assert config.starts == ("pm", "fm", "af")


def test_too_many_electrons_are_refused_by_the_solver_too():
    branch = branches.create("sym", build(1), k_count=1, temperature=0.01, dielectric=None)
    with pytest.raises(InputError, match="cannot place 60 electrons in 28 bands"):
        branch.solve(0.0, 32.0, "bands")


def test_plan_is_a_grid_of_interactions_with_random_fillings(task):
    config = make(filling=[-0.2, 0.1], bias=[-0.004, 0.004], broadening=0.03, broadening_spread=[0.9, 1.1])
    plan = task.plan(config)
    assert len(plan.chains) == 2
    for replicate, chain in enumerate(plan.chains):
        assert [group.parameters["U"] for group in chain] == [1.0, 3.0, 5.0]
        assert {group.parameters["replicate"] for group in chain} == {replicate}
    fillings = np.array([group.parameters["filling"] for group in plan.groups])
    assert len(set(fillings)) == 6
    assert -0.2 <= fillings.min() < fillings.max() <= 0.1
    for group in plan.groups:
        assert np.abs(group.samples["bias"]).max() <= 0.004
        assert 0.027 <= group.samples["broadening"].min() <= group.samples["broadening"].max() <= 0.033
    (structure,) = plan.attributes["structures"]
    assert (structure["index"], structure["atoms"]) == (2, 76)
    assert structure["twist_angle_deg"] == pytest.approx(13.174, abs=1e-3)


def test_more_replicates_leave_the_earlier_ones_as_they_are(task):
    few, many = (task.plan(make(replicates=count)) for count in (1, 3))
    for first, second in zip(few.groups, many.groups[:3], strict=True):
        assert first.parameters == second.parameters
        assert np.array_equal(first.samples["bias"], second.samples["bias"])


@pytest.fixture(scope="module", params=[1.0, 0.1])
def simulated(request, task):
    config = make(bottom_layer=request.param)
    group = task.plan(config).groups[1]
    return config, group, task.simulator(config)(group, None)


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


def test_image_has_its_peak_at_zero_and_inversion(simulated):
    _, _, result = simulated
    images = result.arrays["image"][:, 0]
    np.testing.assert_allclose(images[:, 16, 16], 1, atol=1e-6)
    assert images.max() < 1 + 1e-6
    np.testing.assert_allclose(images, images[:, ::-1, ::-1], atol=1e-6)


def test_warm_start_gives_the_cold_starts_image(task):
    config = make(tolerance=1e-8, dielectric=10.0)
    first, second, _ = task.plan(config).chains[0]
    simulate = task.simulator(config)
    warm = simulate(second, simulate(first, None).state)
    cold = simulate(second, None)
    np.testing.assert_allclose(warm.arrays["image"], cold.arrays["image"], atol=1e-6)
    assert warm.scalars["iterations"] <= cold.scalars["iterations"]


def test_what_did_not_converge_is_flagged(task):
    config = make(max_iterations=1, tolerance=1e-8)
    result = task.simulator(config)(task.plan(config).groups[0], None)
    assert result.scalars["converged"] == 0.0
    assert result.scalars["iterations"] == result.scalars["attempts"] > 1
    assert result.scalars["residual"] > 1e-8


def test_prepare_gives_the_simulators_image_back(task):
    """A wider simulated field, read as scattered points in nm, is cropped to the disc and gives its image."""
    config = make()
    plan = task.plan(config)
    result = task.simulator(config)(plan.groups[1], None)
    points, sites = patch(build(2, 2.75), config.patch_radius * math.sqrt(19) + 2)
    raw = RawMap(result.arrays["ldos"][0, :, None, sites].T.astype(float), None, None, "test", points * 0.246)
    prepared = task.prepare(raw, plan.attributes["input"])
    assert prepared.image.shape == plan.arrays["image"].shape
    assert prepared.known.all()
    np.testing.assert_allclose(prepared.image, result.arrays["image"][0], atol=1e-5)


def test_prepare_needs_a_size(task):
    plan = task.plan(make())
    raw = RawMap(np.random.default_rng(0).random((1, 32, 32)), None, None, "map.npy")
    with pytest.raises(InputError, match=r"map\.npy .*--size-nm"):
        task.prepare(raw, plan.attributes["input"])


def test_decode_names_value_unit_and_verdict(task):
    metadata = {"targets": [{"name": "U", "unit": "eV"}], "interval": {"level": 0.9}}
    outputs = {
        "prediction": np.array([[1.5], [2.5], [3.5]], np.float32), "lower": np.array([[1.25], [2.0], [3.0]]),
        "upper": np.array([[1.75], [3.0], [4.0]]), "distance": np.array([2.0, 4.0, 30.0]),
        "novelty": np.array([0.4, 0.03, 0.0025]),
    }  # fmt: skip
    near, unusual, far = task.decode(outputs, metadata)
    assert near["U"] == {"value": 1.5, "unit": "eV", "lower": 1.25, "upper": 1.75, "level": 0.9}
    assert task.words({**near, "name": "a"}) == "U = 1.500 eV, 1.250 to 1.750 at 90 %"
    assert far["U"]["value"] == 3.5
    assert [one["inside"] for one in (near, unusual, far)] == [True, True, False]
    assert [one["novelty"] for one in (near, unusual, far)] == [0.4, 0.03, 0.0025]
    assert "with care" in unusual["verdict"]
    assert "0.25 % of held-out" in far["verdict"]
    assert "do not trust the value" in far["verdict"]
    (alone,) = task.decode({"prediction": np.array([[3.0]])}, metadata)
    assert alone["U"]["value"] == 3.0
    assert "verdict" not in alone


def geometry(group):
    return tuple(group.parameters[name] for name in GEOMETRY)


VARIED = {
    "index": [2, 1], "layer_distance": [2.7, 2.8], "strain": [0.0, 0.02], "strain_angle": [0, 180], "replicates": 4,
}  # fmt: skip


def test_a_chain_has_one_structure_and_the_chains_differ(task):
    plan = task.plan(make(**VARIED))
    structures = [{geometry(group) for group in chain} for chain in plan.chains]
    assert all(len(of) == 1 for of in structures)
    assert len(set.union(*structures)) == 4
    assert [chain[0].parameters["index"] for chain in plan.chains] == [2, 1, 2, 1]
    assert [chain[0].parameters["sites"] for chain in plan.chains] == [76, 28, 76, 28]
    for group in plan.groups:
        assert 2.7 <= group.parameters["layer_distance"] <= 2.8
        assert 0 <= group.parameters["strain"] <= 0.02
        assert 0 <= group.parameters["strain_angle"] <= 180
        assert structure(group.parameters).size == group.parameters["sites"]
    again = task.plan(make(**VARIED))
    assert [(g.parameters, g.samples["bias"].tolist()) for g in plan.groups] == [
        (g.parameters, g.samples["bias"].tolist()) for g in again.groups
    ]


def test_a_range_of_structures_leaves_fillings_and_biases_as_they_are(task):
    plain, varied = (task.plan(make(replicates=4, **changes)) for changes in ({}, {"strain": [0.0, 0.02]}))
    for one, other in zip(plain.groups, varied.groups, strict=True):
        assert one.parameters["filling"] == other.parameters["filling"]
        assert np.array_equal(one.samples["broadening"], other.samples["broadening"])


@pytest.mark.parametrize("branch", ["sym", "collinear"])
def test_a_smaller_structure_is_padded_and_the_padding_reaches_nothing(task, tmp_path, branch):
    config = make(**VARIED | {"branch": branch, "starts": STARTS[branch][:1], "energies": [0.0, 0.05]})
    plan = task.plan(config)
    first, second, _ = plan.chains[1]
    assert first.parameters["index"] == 1
    simulate = task.simulator(config)
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


def test_each_energy_is_a_channel(task):
    energies = [-0.1, 0.0, 0.2]
    config = make(energies=energies, dielectric=10.0)
    group = task.plan(config).groups[2]
    stack = task.simulator(config)(group, None)
    assert task.plan(config).attributes["input"]["energies"] == energies
    assert stack.arrays["image"].shape == (2, 3, 33, 33)
    for channel, energy in enumerate(energies):
        single = task.simulator(make(energies=energy, dielectric=10.0))(group, None)
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


def test_strain_takes_the_sixfold_axis_and_leaves_the_inversion(task):
    images = {}
    for strain in (0.0, 0.01):
        config = make(strain=strain, dielectric=10.0)
        group = task.plan(config).groups[0]
        result = task.simulator(config)(group, None)
        straight, sixth = turned(config, group, result, 60)
        broken = np.abs(straight - sixth).max()
        assert broken > 1e-2 if strain else broken < 1e-6
        straight, half = turned(config, group, result, 180)
        np.testing.assert_allclose(straight, half, atol=1e-12)
        images[strain] = result.arrays["image"][0, 0]
        assert (result.scalars["nematicity"] > 1e-3) == bool(strain)
        np.testing.assert_allclose(images[strain], images[strain][::-1, ::-1], atol=1e-6)
    assert np.abs(images[0.0] - images[0.01]).max() > 1e-2


MAGNETIC = {"branch": "collinear", "interaction": [0.0, 8.0], "starts": ["pm", "fm", "af"], "max_iterations": 100}


def test_the_lowest_of_the_candidates_is_kept(task):
    config = make(**MAGNETIC)
    free, _, magnetic = task.plan(config).chains[0]
    simulate = task.simulator(config)
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


def test_replicates_that_take_the_starts_in_turn_hold_metastable_states(task):
    config = make(**MAGNETIC | {"keep": "cycle", "replicates": 3, "interaction": [8.0, 8.0], "interaction_count": 1})
    simulate = task.simulator(config)
    results = [simulate(group, None) for group in task.plan(config).groups]
    assert [result.scalars["start"] for result in results] == [0, 1, 2]
    assert all(result.scalars["energy_spread"] == 0 for result in results)
    moments = [result.scalars["largest_moment"] for result in results]
    assert moments[0] < 1e-6 < 0.3 < moments[2]
    assert results[0].scalars["free_energy"] > results[2].scalars["free_energy"] + 1


def test_a_warm_chain_follows_one_start_and_a_cold_one_starts_anew(task):
    group = task.plan(make()).groups[1]
    warm, cold = (task.simulator(make(warm=warm)) for warm in (True, False))
    state = cold(task.plan(make()).groups[0], None).state
    assert warm(group, state).scalars["start"] == 1  # 'warm' follows the starts
    assert cold(group, state).scalars["start"] == 0
    assert np.array_equal(cold(group, state).arrays["image"], cold(group, None).arrays["image"])
    assert task.plan(make()).attributes["starts"] == ["bands", "warm"]


def test_random_starts_are_told_apart_by_their_place_and_repeat(task):
    config = make(branch="broken", starts=["random", "random"], dielectric=10.0, index=1, interaction_count=1)
    group = task.plan(config).groups[0]
    one, other = task.simulator(config)(group, None), task.simulator(config)(group, None)
    assert np.array_equal(one.arrays["image"], other.arrays["image"])
    twice = task.simulator(make(branch="broken", dielectric=10.0, index=1, interaction_count=1))(group, None)
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


def test_an_energy_without_states_is_said(task):
    config = make(energies=[0.0, 1.0], broadening=1e-4, broadening_spread=[1, 1], index=1, k_mesh=1)
    with pytest.raises(InputError, match=r"no state within nine broadenings .* larger simulate\.broadening"):
        task.simulator(config)(task.plan(config).groups[0], None)


def test_possible_targets_are_what_differs(task):
    def names(**changes):
        plan = task.plan(make(**changes))
        known = {v.name: v for v in (*plan.parameters, *plan.scalars)}
        for target in plan.attributes["possible_targets"]:
            assert (known[target["name"]].unit, known[target["name"]].description) == (
                target["unit"], target["description"],
            )  # fmt: skip
        return {target["name"] for target in plan.attributes["possible_targets"]}

    assert names(filling=[0, 0]) == {"chemical_potential", "charge_modulation", "gap"}
    assert names(**VARIED) - names() == {"index", "layer_distance", "strain", "strain_angle", "nematicity"}
    assert {"largest_moment", "net_moment", "staggered_moment"} <= names(**MAGNETIC)
    assert "U" not in names()


@pytest.mark.parametrize("unseen", [False, True])
def test_fresh_states_have_every_structure_and_start(task, unseen):
    config = make(branch="collinear", starts=["pm", "af"], keep="cycle", index=[1, 2], replicates=4)
    fresh = task.fresh(config, 99, 8, unseen=unseen)
    HubbardSimulation.model_validate(fresh.model_dump())
    plan = task.plan(fresh)
    assert {chain[0].parameters["index"] for chain in plan.chains} == {1, 2}
    assert 8 <= len(plan.groups) <= 16
    assert plan.attributes["input"] == task.plan(config).attributes["input"]


def test_prepare_matches_a_stack_of_maps_to_the_energies(task):
    """The maps lie unsorted among others in the file; biases are a little off."""
    config = make(energies=[-0.1, 0.0, 0.2])
    group = task.plan(config).groups[1]
    result = task.simulator(config)(group, None)
    atoms = imaged_atoms(config, group.parameters)
    maps = result.arrays["ldos"][0][:, None, atoms.copies].astype(float)
    others = np.random.default_rng(0).random((2, *maps.shape[1:]))
    raw = RawMap(
        np.concatenate([maps[[2, 0]], others, maps[[1]]]), None, np.array([0.21, -0.11, -0.4, 0.6, 0.005]),
        "stack.npz", atoms.positions * 0.246,
    )  # fmt: skip
    spec = task.plan(config).attributes["input"]
    assert spec["energy_tolerance"] == pytest.approx(0.03)
    prepared = task.prepare(raw, spec)
    np.testing.assert_allclose(prepared.image, result.arrays["image"][0], atol=1e-5)
    assert any("-0.11, 0.005, 0.21 V" in note for note in prepared.notes)
    assert len(prepared.notes) == len(set(prepared.notes))


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_preset_runs_in_small(task, name):
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["simulate"]
    full = validate(HubbardSimulation, values, name)
    assert full.interaction == (0, 6)
    small = {"index": 2, "layer_distance": 2.75, "interaction_count": 2, "replicates": full.kinds, "image_size": 24}
    config = validate(HubbardSimulation, values | small, name)
    plan = task.plan(config)
    simulate, state = task.simulator(config), None
    for group in plan.chains[0]:
        result = simulate(group, state)
        state = result.state
        assert result.scalars["converged"] == 1
        assert result.arrays["image"].shape == (config.draws, *plan.arrays["image"].shape)
        assert 0 < result.arrays["image"].min() < result.arrays["image"].max() <= 1 + 1e-6


def test_presets_are_what_their_names_say():
    presets = {
        path.stem: validate(HubbardSimulation, yaml.safe_load(path.read_text(encoding="utf-8"))["simulate"], path.stem)
        for path in CONFIGS.glob("*.yaml")
    }
    assert set(presets) == {"test", "quick", "paper", "fillings", "magnetic", "energies"}
    paper = presets["paper"]
    assert (paper.index, paper.layer_distance, paper.k_mesh) == ((9,), (2.94, 2.94), 3)
    assert (paper.temperature, paper.broadening, paper.patch_radius, paper.image_size) == (0.005, 0.01, 1.5, 256)
    assert (paper.interaction_count, paper.replicates, paper.draws) == (61, 8, 5)
    assert presets["fillings"].filling == (-4, 4)
    assert (presets["magnetic"].branch, presets["magnetic"].dielectric) == ("collinear", None)
    assert presets["magnetic"].starts == ("pm", "fm", "af")
    assert len(presets["energies"].energies) == 5
