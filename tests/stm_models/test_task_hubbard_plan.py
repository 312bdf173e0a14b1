"""The task hubbard: what its config refuses and its presets hold, and what it plans."""

import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.learning.parts import divide
from pipelines.settings import SplitConfig
from pipelines.simulating.simulation import simulate
from stm_models.config import validate
from stm_models.data.dataset import load
from stm_models.errors import InputError
from stm_models.physics.moire import branches
from stm_models.physics.moire.lattice import build
from stm_models.tasks.hubbard.config import STARTS, HubbardSimulation
from stm_models.tasks.hubbard.structure import GEOMETRY, structure
from support import hubbard_cases as cases

TASK, MAGNETIC, VARIED, make = cases.TASK, cases.MAGNETIC, cases.VARIED, cases.make


CONFIGS = Path(__file__).parents[2] / "configs" / "hubbard"
ONE_FILLING = {"filling": [0.1, 0.1]}
ONE_BIAS = {"bias": [0, 0], "broadening_spread": [1, 1]}


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
        ({"interaction_count": 1}, ["interaction_sampling", "1 eV alone, not 1 to 5", "uniform", "interaction=[1,1]"]),
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
        ({**ONE_FILLING, **ONE_BIAS, "replicates": 3},
         ["only 1 of 3 replicates", "simulate.replicates=1", "simulate.filling", "simulate.draws"]),
        ({"patch_radius": 8, "image_size": 32}, ["image_size", "least 46, better 224", "patch_radius"]),
        ({"strain": 0.1}, ["strain", "within 0.05"]),
        ({"strain_angle": 30}, ["strain_angle", "simulate.strain"]),
        ({"gate_distance": 5}, ["gate_distance", "dielectric=null", "no effect", "leave it at 10"]),
        ({"fock_range": 3}, ["fock_range", "dielectric=null", "no effect", "leave it at 2.5"]),
        ({"dielectric": 10, "index": [1, 2], "fock_range": 5}, ["k_mesh", "2.65 a (I=1)", "least 4", "most 2.65"]),
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


def test_options_of_the_coulomb_interaction_are_taken_where_there_is_one():
    config = make(dielectric=5, gate_distance=5, fock_range=3)
    assert (config.gate_distance, config.fock_range) == (5, 3)


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


def test_plan_is_a_grid_of_interactions_with_random_fillings():
    config = make(filling=[-0.2, 0.1], bias=[-0.004, 0.004], broadening=0.03, broadening_spread=[0.9, 1.1])
    plan = TASK.plan(config)
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


def test_more_replicates_leave_the_earlier_ones_as_they_are():
    few, many = (TASK.plan(make(replicates=count)) for count in (1, 3))
    for first, second in zip(few.groups, many.groups[:3], strict=True):
        assert first.parameters == second.parameters
        assert np.array_equal(first.samples["bias"], second.samples["bias"])


def states(config):
    return [group.state for group in TASK.plan(config).groups]


def test_states_that_nothing_tells_apart_are_one():
    assert states(make()) == [0, 1, 2, 3, 4, 5]
    assert states(make(**ONE_FILLING)) == [0, 1, 2, 0, 1, 2]
    assert states(make(**ONE_FILLING, interaction_sampling="uniform")) == [0, 1, 2, 3, 4, 5]
    assert states(make(**ONE_FILLING, layer_distance=[2.7, 2.8])) == [0, 1, 2, 3, 4, 5]
    cycle = make(**MAGNETIC, **ONE_FILLING, keep="cycle", replicates=6, interaction_count=2)
    assert states(cycle) == [0, 1] * 6  # in a weak U every start ends in the paramagnet
    assert states(make(**ONE_FILLING, **ONE_BIAS, index=[1, 2])) == [0, 1, 2, 3, 4, 5]
    assert len(TASK.plan(make(**ONE_FILLING, **ONE_BIAS, replicates=1)).groups) == 3


def test_a_split_has_no_state_on_both_sides(tmp_path):
    data = tmp_path / "data.zarr"
    simulate(TASK, make(**ONE_FILLING, interaction_count=5, replicates=4), data, workers=1, progress=False)
    samples = load(data)
    _, same = np.unique(samples.coordinates["free_energy"].round(9), return_inverse=True)
    assert len(set(same)) == 5
    parts = divide(samples, TASK, SplitConfig(unseen_fraction=0))
    sides = [set(same[part.coordinates["sample"]]) for part in (parts.train, parts.validation)]
    assert not set.intersection(*sides)
    assert [len(side) for side in sides] == [4, 1]


def geometry(group):
    return tuple(group.parameters[name] for name in GEOMETRY)


def test_a_chain_has_one_structure_and_the_chains_differ():
    plan = TASK.plan(make(**VARIED))
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
    again = TASK.plan(make(**VARIED))
    assert [(g.parameters, g.samples["bias"].tolist()) for g in plan.groups] == [
        (g.parameters, g.samples["bias"].tolist()) for g in again.groups
    ]


def test_a_range_of_structures_leaves_fillings_and_biases_as_they_are():
    plain, varied = (TASK.plan(make(replicates=4, **changes)) for changes in ({}, {"strain": [0.0, 0.02]}))
    for one, other in zip(plain.groups, varied.groups, strict=True):
        assert one.parameters["filling"] == other.parameters["filling"]
        assert np.array_equal(one.samples["broadening"], other.samples["broadening"])


def test_possible_targets_are_what_differs():
    def names(**changes):
        plan = TASK.plan(make(**changes))
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
    broken = {"branch": "broken", "starts": ["random"]}  # no complex bond order without exchange
    assert names(**broken, dielectric=10.0) - names(**broken) == {"bond_current"}


@pytest.mark.parametrize("unseen", [False, True])
def test_fresh_states_have_every_structure_and_start(unseen):
    config = make(branch="collinear", starts=["pm", "af"], keep="cycle", index=[1, 2], replicates=4)
    fresh = TASK.fresh(config, 99, 8, unseen=unseen)
    HubbardSimulation.model_validate(fresh.model_dump())
    plan = TASK.plan(fresh)
    assert {chain[0].parameters["index"] for chain in plan.chains} == {1, 2}
    assert 8 <= len(plan.groups) <= 16
    assert plan.attributes["input"] == TASK.plan(config).attributes["input"]


def test_fresh_states_are_no_states_of_the_training_again():
    config = make(**ONE_FILLING)
    fresh = TASK.fresh(config, 77, 6, unseen=False)
    assert not TASK.states(fresh) & TASK.states(config)
    again = config.model_copy(update={"seed": 77, "bias": (0, 0)})
    assert TASK.states(again) == TASK.states(config)
    assert not TASK.states(again.model_copy(update={"temperature": 0.02})) & TASK.states(config)
    assert TASK.fresh(make(), 77, 6, unseen=False).interaction_sampling == "grid"
    assert not TASK.states(make(seed=77)) & TASK.states(make())


def test_fresh_states_of_chains_of_one_state_share_no_structure():
    fresh = TASK.fresh(make(strain=[0, 0.02], interaction_count=1, interaction_sampling="uniform"), 99, 24, unseen=True)
    assert len({group.parameters["strain"] for group in TASK.plan(fresh).groups}) == 24


@pytest.mark.parametrize(
    "ranges",
    [
        {"strain": [0, 0.02]},
        {"layer_distance": [2.7, 2.9]},
        {"strain": [0.01, 0.01], "strain_angle": [0, 90]},
        {"index": [1, 2], "replicates": 2},
    ],
)
def test_states_that_calibrate_share_no_drawn_structure(ranges):
    config = make(interaction_count=4, **ranges)
    made = TASK.held_out(config, 99, 24)
    HubbardSimulation.model_validate(made.model_dump())
    assert [len(chain) for chain in TASK.plan(made).chains] == [1] * 24
    assert made.draws == 2
    assert not TASK.states(made) & TASK.states(config)
    # States that a benchmark measures on stay as they were.
    assert TASK.fresh(config, 99, 24, unseen=True).interaction_count > 1


def test_states_of_one_structure_calibrate_in_chains():
    config = make(interaction_count=4)
    assert TASK.held_out(config, 99, 24) == TASK.fresh(config, 99, 24, unseen=True).model_copy(update={"draws": 2})
    assert TASK.held_out(config, 99, 24).interaction_count == 12


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_every_preset_runs_in_small(name):
    values = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))["simulate"]
    full = validate(HubbardSimulation, values, name)
    assert full.interaction == (0, 6)
    small = {"index": 2, "layer_distance": 2.75, "interaction_count": 2, "replicates": full.kinds, "image_size": 24}
    config = validate(HubbardSimulation, values | small, name)
    plan = TASK.plan(config)
    simulate, state = TASK.simulator(config), None
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


def test_planning_makes_one_solver_for_all_structures_of_one_size(monkeypatch):
    """Structures under any strain off the axes have the same two operations; what is planned for holds each state."""
    made = []

    def counted(*arguments, **options):
        made.append(arguments)
        return create(*arguments, **options)

    create = branches.create
    monkeypatch.setattr(branches, "create", counted)
    config = make(replicates=9, strain=[0.0, 0.01], strain_angle=[0, 60], interaction_count=1, interaction=[1, 1])
    planned = TASK.plan(config)
    assert len(made) == 1
    for chain in planned.chains:
        branch = create(
            "sym", structure(chain[0].parameters), k_count=config.k_mesh, temperature=config.temperature,
            dielectric=config.dielectric,
        )  # fmt: skip
        for name, spec in branch.state_arrays().items():
            assert spec.shape <= planned.state[name].shape
