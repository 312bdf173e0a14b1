from pathlib import Path

import numpy as np
import pytest

from stm_models.data import panel
from stm_models.data.dataset import Samples
from stm_models.errors import InputError


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    targets = rng.permutation(np.linspace(0, 6, 60))[:, None]
    return Samples(
        images=rng.normal(size=(60, 1, 4, 4)).astype(np.float32),
        targets=targets,
        coordinates={"sample": np.arange(100, 160), "U": targets[:, 0]},
        attributes={"targets": [{"name": "U", "unit": "eV", "description": ""}], "digest": "d" * 64},
        path=Path("x.zarr"),
    )


def test_chosen_samples_spread_over_the_target(samples):
    chosen = panel.choose(samples, np.arange(60))
    values = samples.targets[chosen, 0]
    assert len(set(chosen)) == 12
    assert (values[0], values[-1]) == (0, 6)
    assert np.diff(values).max() < 2 * np.diff(values).min()
    shuffled = np.random.default_rng(1).permutation(60)
    assert np.array_equal(panel.choose(samples, shuffled), chosen)
    assert sorted(panel.choose(samples, np.array([5, 7]))) == [5, 7]


def test_round_trip(samples, tmp_path):
    chosen = panel.choose(samples, np.arange(60), 5)
    arrays = {"prediction": np.arange(5.0)[:, None], "gradient": np.ones((5, 1, 4, 4), np.float32)}
    panel.save(tmp_path / "panel.npz", samples, chosen, arrays)
    read = panel.load(tmp_path / "panel.npz")
    np.testing.assert_array_equal(read.images, samples.images[chosen])
    np.testing.assert_array_equal(read.targets, samples.targets[chosen])
    np.testing.assert_array_equal(read.rows, chosen + 100)
    assert read.names[0] == f"U = 0 eV, sample {chosen[0] + 100}"
    assert len(set(read.names)) == 5
    assert read.target_names.tolist() == ["U"]
    assert read.digest == "d" * 64
    assert set(read.arrays) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(read.arrays[name], values)
    assert [p.name for p in tmp_path.iterdir()] == ["panel.npz"]


def test_array_of_another_length_is_refused(samples, tmp_path):
    with pytest.raises(ValueError, match="3 rows for 2 samples"):
        panel.save(tmp_path / "panel.npz", samples, np.array([0, 1]), {"prediction": np.zeros(3)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["text", "cut", "foreign", "pickled", "missing"])
def test_what_is_no_panel_is_refused(samples, tmp_path, content):
    path = tmp_path / "panel.npz"
    panel.save(path, samples, np.array([0, 1]), {})
    if content == "text":
        path.write_text("hello")
    elif content == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif content == "foreign":
        np.savez(path, schema=np.array("other/1"))
    elif content == "pickled":
        np.savez(path, schema=np.array([{"a": 1}], dtype=object))
    else:
        path.unlink()
    with pytest.raises(InputError, match="no panel file"):
        panel.load(path)
