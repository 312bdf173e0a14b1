"""What every registered task must do, at the scale of its own test preset."""

import json

import numpy as np
import pytest
import yaml

from pipelines.settings import preset_folder
from stm_models.config import Config, validate
from stm_models.errors import InputError
from stm_models.search import Choice, Range
from stm_models.tasks import registry
from stm_models.tasks.base import Task
from stm_models.tasks.plan import Variable


@pytest.fixture(scope="module", params=registry.names())
def task(request):
    return registry.get(request.param)


@pytest.fixture(scope="module")
def config(task):
    preset = yaml.safe_load((preset_folder(task.name) / "test.yaml").read_text(encoding="utf-8"))
    return validate(task.simulation, preset["simulate"], "test preset")


@pytest.fixture(scope="module")
def plan(task, config):
    return task.plan(config)


@pytest.fixture(scope="module")
def chain(task, config, plan):
    """The first two groups of the first chain (of the first two where each stands alone) with their results."""
    simulate = task.simulator(config)
    groups = [group for chain in plan.chains[:2] for group in chain[:2]][:2]
    results, state = [], None
    for group in groups:
        results.append(simulate(group, state))
        state = results[-1].state
    return groups, results


def test_task_says_what_it_is(task):
    assert isinstance(task, Task)
    assert task.targets
    assert all(isinstance(target, Variable) and target.unit for target in task.targets)
    assert issubclass(task.simulation, Config)
    for text in (task.name, task.title, task.metric, *task.losses, task.default_network):
        assert text
    assert all(isinstance(range_, Range | Choice) for range_ in task.search_space().values())
    for range_ in task.search_space().values():
        if isinstance(range_, Range):
            assert range_.low < range_.high


def test_default_config_plans(task):
    assert task.plan(task.simulation()).groups


def test_plan_is_consistent(task, plan):
    groups = plan.groups
    assert [group.index for group in groups] == list(range(len(groups)))
    assert plan.samples_per_group >= 1
    for chain in plan.chains:
        assert [group.index for group in chain] == sorted(group.index for group in chain)
    for group in groups:
        assert set(group.parameters) == {variable.name for variable in plan.parameters}
        assert set(group.samples) == {variable.name for variable in plan.samples}
        assert all(isinstance(value, float) and np.isfinite(value) for value in group.parameters.values())
        for values in group.samples.values():
            assert values.shape == (plan.samples_per_group,)
            assert np.isfinite(values).all()
    names = {variable.name for variable in plan.parameters}
    assert task.stratify in names
    kinds = {target.name in plan.arrays for target in task.targets}
    assert len(kinds) == 1  # numbers or maps, not both
    if kinds == {False}:
        assert {target.name for target in task.targets} <= names
    else:
        assert all(plan.arrays[target.name].shape == plan.arrays["image"].shape[1:] for target in task.targets)
    assert set(task.arrays) <= set(plan.arrays)
    assert "converged" in {variable.name for variable in plan.scalars}
    for spec in [*plan.arrays.values(), *plan.state.values()]:
        assert len(spec.dims) == len(spec.shape)
        assert min(spec.shape) >= 1
        assert spec.unit
        assert spec.description
    named = [*plan.parameters, *plan.samples, *plan.scalars]
    assert len({variable.name for variable in named}) == len(named)
    assert all(variable.unit and variable.description for variable in named)
    about = {variable.name: (variable.unit, variable.description) for variable in named}
    for label in plan.attributes.get("possible_targets", []):
        assert about[label["name"]] == (label["unit"], label["description"])
        assert label["name"] not in {target.name for target in task.targets}


def test_input_is_described(plan):
    spec = json.loads(json.dumps(plan.attributes, allow_nan=False))["input"]
    image = plan.arrays["image"]
    assert (spec["channels"], spec["height"], spec["width"]) == image.shape
    assert spec["dims"] == list(image.dims) == ["channel", "y", "x"]
    assert image.dtype == "float32"
    assert spec["unit"] == image.unit
    assert spec["kind"]
    assert plan.attributes["simulator_version"]


def test_images_can_be_drawn(task, plan):
    spec = plan.attributes["input"]
    names = task.channel_names(spec)
    assert len(set(names)) == spec["channels"]
    x0, x1, y0, y1 = task.axes(spec).extent
    assert x0 < x1
    assert y0 < y1
    for points in task.marks(plan.attributes, plan.groups[0].parameters).values():
        assert points.shape[1:] == (2,)
        assert np.isfinite(points).all()


def test_plan_depends_on_the_seed_alone(task, config, plan):
    def numbers(plan):
        groups = plan.groups
        columns = [
            [*group.parameters.values(), *(value for values in group.samples.values() for value in values)]
            for group in groups
        ]
        return np.array(columns)

    assert np.array_equal(numbers(task.plan(config)), numbers(plan))
    other = task.plan(config.model_copy(update={"seed": config.seed + 1}))
    assert not np.array_equal(numbers(other), numbers(plan))


def test_results_match_the_plan(plan, chain):
    for result in chain[1]:
        assert set(result.arrays) == set(plan.arrays)
        assert set(result.state) == set(plan.state)
        assert set(result.scalars) == {variable.name for variable in plan.scalars}
        for name, spec in plan.arrays.items():
            assert result.arrays[name].shape == (plan.samples_per_group, *spec.shape), name
            assert result.arrays[name].dtype == spec.dtype, name
            assert np.isfinite(result.arrays[name]).all(), name
        for name, spec in plan.state.items():
            assert np.all(np.array(result.state[name].shape) <= spec.shape), name  # the store appends zeros
            assert result.state[name].dtype == spec.dtype, name
        assert all(np.isfinite(value) for value in result.scalars.values())
        assert result.scalars["converged"] == 1.0


def test_samples_and_groups_differ(chain):
    (_, (first, second)) = chain
    images = np.concatenate([first.arrays["image"], second.arrays["image"]])
    for i in range(len(images)):
        for j in range(i):
            assert not np.array_equal(images[i], images[j])


def test_simulation_repeats_bit_for_bit(task, config, chain):
    groups, results = chain
    simulate = task.simulator(config)
    again = simulate(groups[1], results[0].state)
    for name, values in results[1].arrays.items():
        assert np.array_equal(values, again.arrays[name]), name
    for name, values in results[1].state.items():
        assert np.array_equal(values, again.state[name]), name
    assert results[1].scalars == again.scalars


def test_a_group_does_not_remember_what_was_simulated_before_it(task, config, chain):
    groups, results = chain
    simulate = task.simulator(config)
    simulate(groups[1], None)
    again = simulate(groups[0], None)
    assert all(np.array_equal(values, again.arrays[name]) for name, values in results[0].arrays.items())


def test_fresh_states_have_unseen_targets(task, config, plan):
    if not task.unseen:
        pytest.skip(f"{task.name} holds no values out: every field is another one")
    fresh = task.fresh(config, config.seed + 1000, 24, unseen=True)
    assert type(fresh) is task.simulation
    task.simulation.model_validate(fresh.model_dump())  # copies are not validated by themselves
    new = task.plan(fresh)
    assert 24 <= len(new.groups) * new.samples_per_group <= 36
    assert new.attributes["input"] == plan.attributes["input"]
    old = np.array([[group.parameters[t.name] for t in task.targets] for group in plan.groups])
    now = np.array([[group.parameters[t.name] for t in task.targets] for group in new.groups])
    assert len(np.unique(now, axis=0)) == len(now)  # continuous: no value twice
    assert not np.isin(now, old).any()
    assert np.all(now.min(axis=0) >= old.min(axis=0))
    assert np.all(now.max(axis=0) <= old.max(axis=0))
    assert np.all(np.ptp(now, axis=0) > 0.5 * np.ptp(old, axis=0))


def test_fresh_states_at_seen_targets_are_other_states(task, config, plan):
    fresh = task.plan(task.fresh(config, config.seed + 1000, 24, unseen=False))
    if task.unseen:
        old = {tuple(group.parameters[t.name] for t in task.targets) for group in plan.groups}
        for group in fresh.groups:
            assert tuple(group.parameters[t.name] for t in task.targets) in old
    assert fresh.attributes["input"]["channels"] == plan.attributes["input"]["channels"]
    assert 12 <= len(fresh.groups) * fresh.samples_per_group <= 48
    everything = {tuple(group.parameters.values()) for group in plan.groups}
    assert not everything & {tuple(group.parameters.values()) for group in fresh.groups}


def test_config_refuses_what_does_not_exist(task):
    with pytest.raises(InputError, match=r"unknown key 'no_such_key'; the keys are .*seed"):
        validate(task.simulation, {"no_such_key": 1}, "simulate")


def test_unknown_task_lists_the_choices():
    with pytest.raises(InputError, match=r"unknown task 'hubard': choose from .*hubbard.*did you mean 'hubbard'"):
        registry.get("hubard")
    with pytest.raises(InputError, match="choose from"):
        registry.get("")


def test_registry_gives_one_object_and_takes_others(monkeypatch):
    assert registry.get("hubbard") is registry.get("hubbard")
    assert registry.names() == sorted(registry.names())
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))

    class Other(type(registry.get("hubbard"))):
        name = "other"

    other = Other()
    registry.register(other)
    assert registry.get("other") is other
    assert "other" in registry.names()
