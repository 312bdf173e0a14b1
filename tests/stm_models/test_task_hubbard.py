"""The task hubbard: what its config refuses, what its images are, and its answers."""

import math

import numpy as np
import pytest

from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.physics.moire import branches
from stm_models.physics.moire.fourier import KGrid, direct_transform
from stm_models.physics.moire.lattice import build, patch
from stm_models.tasks import registry
from stm_models.tasks.base import RawMap
from stm_models.tasks.hubbard.config import HubbardSimulation

SMALL = {
    "index": 2, "layer_distance": 2.75, "dielectric": None, "k_mesh": 2, "interaction": [1.0, 5.0],
    "interaction_count": 3, "replicates": 2, "draws": 2, "image_size": 33,
}  # fmt: skip


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
    metadata = {
        "targets": [{"name": "U", "unit": "eV"}],
        "distance": {"quantiles": {"0.5": 1.0, "0.95": 2.0, "0.99": 3.0, "1.0": 4.0}},
    }
    outputs = {"prediction": np.array([[1.5], [2.5]], np.float32), "distance": np.array([2.0, 30.0])}
    near, far = task.decode(outputs, metadata)
    assert near["U"] == {"value": 1.5, "unit": "eV"}
    assert far["U"]["value"] == 2.5
    assert near["inside"] is True
    assert far["inside"] is False
    assert "10 times" in far["verdict"]
    (alone,) = task.decode({"prediction": np.array([[3.0]])}, metadata)
    assert alone["U"]["value"] == 3.0
    assert "verdict" not in alone
