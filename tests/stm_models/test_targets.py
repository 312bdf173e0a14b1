"""Labels beside the task's own as targets."""

import numpy as np
import pytest
import zarr

from stm_models.data.dataset import load, stored
from stm_models.data.store import Store, create
from stm_models.errors import InputError
from support import toy_task

OWN = {"name": "U", "unit": "eV", "description": "interaction"}
OTHERS = [
    {"name": "r", "unit": "1", "description": "replicate"},
    {"name": "residual", "unit": "eV", "description": "how well"},
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    task, config = toy_task.ToyTask(), toy_task.ToyConfig(chains=2, length=3)
    path = tmp_path_factory.mktemp("targets") / "a.zarr"
    about = {"task": "toy", "recipe": "r" * 64, "config": {}, "targets": [OWN], "possible_targets": OTHERS,
             "input": {"kind": "toy", "channels": 1}}  # fmt: skip
    create(path, task.plan(config), about)
    store, simulate = Store(path), task.simulator(config)
    for chain in task.plan(config).chains:
        state = None
        for group in chain:
            result = simulate(group, state)
            store.write(group, result)
            state = result.state
    store.finish()
    return path


def test_by_default_the_data_sets_own(path):
    samples = load(path)
    assert samples.attributes["targets"] == [OWN]
    assert samples.targets.shape == (12, 1)


def test_chosen_targets_come_in_the_order_asked_for_with_units(path):
    samples = load(path, verify=True, targets=["residual", "U", "r"])
    assert samples.attributes["targets"] == [OTHERS[1], OWN, OTHERS[0]]
    for column, name in enumerate(("residual", "U", "r")):
        np.testing.assert_array_equal(samples.targets[:, column], samples.coordinates[name])
    assert samples.subset(np.array([3])).targets.shape == (1, 3)


@pytest.mark.parametrize(
    ("targets", "match"),
    [
        (["U", "gap"], r"unknown target of the data set .*'gap': choose from U, r, residual"),
        (["U", "U"], "expected one or more different ones of U, r, residual"),
        ([], "expected one or more different ones"),
    ],
)
def test_targets_that_there_are_not(path, targets, match):
    with pytest.raises(InputError, match=match):
        load(path, targets=targets)


def test_a_label_that_is_missing_in_some_samples(path, tmp_path):
    import shutil

    copy = shutil.copytree(path, tmp_path / "copy.zarr")
    array = zarr.open_group(copy, mode="r+")["residual"]
    values = array[:]
    values[[2, 5]] = np.nan
    array[:] = values
    assert len(load(copy)) == 12
    with pytest.raises(InputError, match="lacks the label 'residual' in 2 of 12 samples"):
        load(copy, targets=["residual"])


def test_stored_arrays_by_sample(path):
    samples = load(path)
    whole = zarr.open_group(path)["ldos"][:]
    np.testing.assert_array_equal(stored(samples, "ldos"), whole)
    rows = np.array([7, 0, 11])
    np.testing.assert_array_equal(stored(samples.subset(rows), "ldos"), whole[rows])
    with pytest.raises(InputError, match=r"does not hold 'U' \(it holds image, ldos\)"):
        stored(samples, "U")
