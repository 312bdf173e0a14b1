import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from stm_models.data import digest, store
from stm_models.data.dataset import load
from stm_models.errors import InputError
from support import toy_task

TASK = toy_task.ToyTask()
CONFIG = toy_task.ToyConfig(chains=2, length=3, flagged=(4,))
ATTRIBUTES = {
    "task": "toy",
    "recipe": "r" * 64,
    "config": {"chains": 2},
    "targets": [{"name": "U", "unit": "eV", "description": "interaction"}],
    "input": {"kind": "toy", "channels": 1},
}


def results(config=CONFIG):
    """Every group with its result, simulated in memory."""
    simulate = TASK.simulator(config)
    for chain in TASK.plan(config).chains:
        state = None
        for group in chain:
            result = simulate(group, state)
            state = result.state
            yield group, result


def filled(path, config=CONFIG, only=None):
    store.create(path, TASK.plan(config), ATTRIBUTES)
    data = store.Store(path)
    for group, result in results(config):
        if only is None or group.index in only:
            data.write(group, result)
    return data


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    filled(path).finish()
    return path


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy.zarr"))


def test_values_come_back(finished):
    samples = load(finished, verify=True, include_unconverged=True)
    for group, result in results():
        rows = samples.coordinates["group"] == group.index
        np.testing.assert_array_equal(samples.images[rows], result.arrays["image"].astype(np.float32))
        np.testing.assert_array_equal(samples.targets[rows, 0], group.parameters["U"])
        np.testing.assert_array_equal(samples.coordinates["bias"][rows], group.samples["bias"])
        state = store.Store(finished).state(group.index)["n"]
        assert state.tobytes() == result.state["n"].tobytes()
    assert samples.images.dtype == np.float32
    assert samples.targets.shape == (12, 1)
    assert samples.coordinates["chain"].tolist() == [0] * 6 + [1] * 6
    assert samples.coordinates["converged"].dtype == bool
    assert samples.attributes["input"] == {"kind": "toy", "channels": 1}
    assert len(samples.attributes["digest"]) == 64


def test_flagged_groups_are_dropped(finished):
    kept, everything = load(finished), load(finished, include_unconverged=True)
    assert (len(kept), len(everything)) == (10, 12)
    assert 4 not in kept.coordinates["group"]
    assert kept.coordinates["sample"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 10, 11]


def test_subset_takes_the_same_rows_of_everything(finished):
    part = load(finished).subset(np.array([9, 0]))
    assert part.images.shape == (2, 1, 6, 6)
    assert part.coordinates["sample"].tolist() == [11, 0]
    np.testing.assert_array_equal(part.targets[:, 0], part.coordinates["U"])


def test_xarray_reads_it_with_coordinates_and_units(finished):
    with xr.open_zarr(finished, consolidated=True) as data:
        assert data["image"].dims == ("sample", "channel", "y", "x")
        assert {"U", "bias", "converged", "residual", "group", "chain"} <= set(data["image"].coords)
        assert data["ldos"].attrs["units"] == "1/eV"
        assert data["U"].attrs == {"role": "parameter", "units": "eV", "long_name": "interaction"}
        np.testing.assert_array_equal(data["image"].values, zarr.open_group(finished)["image"][:])


def test_unfinished_store_says_how_to_continue(tmp_path):
    filled(tmp_path / "a.zarr", only={0, 1})
    with pytest.raises(InputError, match="same `stm simulate` command again"):
        load(tmp_path / "a.zarr")


@pytest.mark.parametrize("only", [{0, 1, 3}, set()])
def test_mend_knows_what_is_there(tmp_path, only):
    data = filled(tmp_path / "a.zarr", only=only)
    litter = tmp_path / "a.zarr" / "image" / "c.0.0.0.0123.partial"
    litter.write_bytes(b"x")
    assert set(np.flatnonzero(data.mend())) == only
    assert data.count_finished() == len(only)
    assert not litter.exists()


@pytest.mark.parametrize("name", ["image/c.2.0.0.0", "ldos/c.2.0", "state_n/c.2.0", "group_digest/c.2.0"])
@pytest.mark.parametrize("harm", ["cut", "gone", "empty"])
def test_mend_marks_a_damaged_group(tmp_path, name, harm):
    data = filled(tmp_path / "a.zarr")
    chunk = tmp_path / "a.zarr" / name
    if harm == "gone":
        chunk.unlink()
    else:
        chunk.write_bytes(chunk.read_bytes()[:20] if harm == "cut" else b"")
    assert np.flatnonzero(~data.mend()).tolist() == [2]
    assert data.count_finished() == 5


def test_finishing_twice_gives_the_same(tmp_path):
    data = filled(tmp_path / "a.zarr")
    assert data.finish() == data.finish() == load(tmp_path / "a.zarr").attributes["digest"]


def test_digest_ignores_the_last_bits_and_sees_the_rest(tmp_path):
    def whole(name, change):
        path = tmp_path / name
        store.create(path, TASK.plan(CONFIG), ATTRIBUTES)
        data = store.Store(path)
        for group, result in results():
            arrays = dict(result.arrays)
            if group.index == 3:
                arrays["image"] = arrays["image"] + change
            data.write(group, replace(result, arrays=arrays))
        return data.finish()

    # The largest image value is 1 by construction, so both stay on their side of a rounding step.
    assert whole("a", 0.0) == whole("b", 1e-12)
    assert whole("c", 1e-3) != whole("a2", 0.0)


def test_group_digest_depends_on_every_part():
    base = {
        "arrays": {"image": np.array([[0.5, 0.25]], np.float32)},
        "digits": {"image": 5},
        "parameters": {"U": 1.0},
        "samples": {"bias": np.array([0.1])},
        "converged": True,
    }
    changes = [
        {"arrays": {"image": np.array([[0.5, 0.2501]], np.float32)}},
        {"arrays": {"image": np.array([[0.5], [0.25]], np.float32)}},
        {"digits": {"image": 4}},
        {"parameters": {"U": 1.001}},
        {"samples": {"bias": np.array([0.2])}},
        {"converged": False},
    ]
    seen = {digest.group(**{**base, **change}).tobytes() for change in [{}, *changes]}
    assert len(seen) == len(changes) + 1
    near = {"arrays": {"image": np.array([[0.5 + 1e-7, 0.25 - 1e-7]], np.float32)}}
    assert np.array_equal(digest.group(**base), digest.group(**{**base, **near}))


def test_recipe_depends_on_task_config_and_version():
    recipes = {
        digest.recipe("a", {"x": 1, "y": 2}, "1"),
        digest.recipe("a", {"y": 2, "x": 1}, "1"),
        digest.recipe("b", {"x": 1, "y": 2}, "1"),
        digest.recipe("a", {"x": 1, "y": 3}, "1"),
        digest.recipe("a", {"x": 1, "y": 2}, "2"),
    }
    assert len(recipes) == 4


def change_image(path, value):
    image = zarr.open_group(path, mode="r+")["image"]
    image[6, 0, 2, 2] = value


def test_altered_values_are_found_by_verify(copy):
    change_image(copy, 0.123)
    load(copy)
    with pytest.raises(InputError, match="group 3 do not match"):
        load(copy, verify=True)


def test_altered_digest_is_found_by_verify(copy):
    zarr.open_group(copy, mode="r+").attrs["digest"] = "0" * 64
    with pytest.raises(InputError, match="digest"):
        load(copy, verify=True)


def test_nan_is_refused(copy):
    change_image(copy, np.nan)
    with pytest.raises(InputError, match="NaN or infinity in 1 images, first in sample 6"):
        load(copy)


@pytest.mark.parametrize("name", ["image/c.1.0.0.0", "U/c.0", "converged/c.0"])
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_damaged_file_is_one_line(copy, name, harm):
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 255
    (copy / name).write_bytes(raw if harm == "flipped" else raw[: len(raw) // 2])
    with pytest.raises(InputError, match="damaged") as error:
        load(copy)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["image/c.1.0.0.0", "U/c.0", "converged/c.0"])
def test_missing_chunk_is_found(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"1 chunks of {name.partition('/')[0]} are missing"):
        load(copy)


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="no data set at"):
        load(tmp_path / "none.zarr")
    with pytest.raises(InputError, match="empty folder"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no Zarr v3 store"):
        load(tmp_path)
    with pytest.raises(InputError, match="no Zarr v3 store"):
        load(tmp_path / "notes.txt")
    zarr.open_group(tmp_path / "foreign.zarr", mode="w")
    with pytest.raises(InputError, match="schema None"):
        load(tmp_path / "foreign.zarr")
    (tmp_path / "foreign.zarr" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "foreign.zarr")
    with pytest.raises(InputError, match="no data set of ours"):
        store.create(tmp_path, TASK.plan(CONFIG), ATTRIBUTES)


def test_nothing_converged_is_said(tmp_path):
    filled(tmp_path / "a.zarr", toy_task.ToyConfig(chains=1, length=2, flagged=(0, 1))).finish()
    with pytest.raises(InputError, match=r"no state .* converged"):
        load(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("image", np.full((2, 1, 6, 6), np.nan), "image holds NaN"),
        ("image", np.zeros((2, 1, 6, 5)), "image has shape"),
        ("ldos", np.zeros((3, 5)), "ldos has shape"),
    ],
)
def test_a_result_that_does_not_fit_is_refused(tmp_path, name, values, message):
    data = filled(tmp_path / "a.zarr", only=set())
    group, result = next(iter(results()))
    with pytest.raises(ValueError, match=message):
        data.write(group, replace(result, arrays={**result.arrays, name: values}))
    assert data.count_finished() == 0


def test_a_plan_with_clashing_names_is_refused(tmp_path):
    plan = TASK.plan(CONFIG)
    with pytest.raises(ValueError, match="must differ"):
        store.create(tmp_path / "a.zarr", replace(plan, samples=plan.parameters), ATTRIBUTES)
    with pytest.raises(ValueError, match="without gaps"):
        store.create(tmp_path / "a.zarr", replace(plan, chains=plan.chains[1:]), ATTRIBUTES)
    assert not list(tmp_path.iterdir())
