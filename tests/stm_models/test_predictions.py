"""Files of predictions: what is written is read, what is damaged or hostile is refused; tiles against their numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stm_models.data import predictions
from stm_models.data.predictions import Predictions
from stm_models.errors import InputError
from stm_models.figures import tiles

TRUE, FOUND = np.array([0.0, 1.0, 2.5]), np.array([0.1, 0.9, 2.0])


def test_what_is_written_is_read(tmp_path):
    places = {"confidence": FOUND, "right": np.array([True, False, True]), "impurities": np.array([7])}
    given = {"validation": {"true:U": TRUE, "predicted:U": FOUND}, "a: b/c": places}
    path = tmp_path / predictions.FILE
    predictions.save(path, Predictions(given, {"units": {"U": "eV"}, "digest": "0"}))
    found = predictions.load(path)
    assert list(found.sets) == list(given)
    for name, columns in given.items():
        assert list(found.sets[name]) == list(columns)
        for key, values in columns.items():
            np.testing.assert_array_equal(found.sets[name][key], values)
    assert found.about == {"units": {"U": "eV"}, "digest": "0"}
    assert found.targets == ["U"]


@pytest.mark.parametrize(
    "changed",
    [
        {"schema": np.array("stm-panel/1")},
        {"about": np.array("[]")},
        {"about": np.array("no JSON")},
        {"0:true:U": np.zeros((3, 3))},
        {"0:true:U": np.zeros(2)},
        {"0:true:U": np.array(["a", "b", "c"])},
        {"7:true:U": np.zeros(3)},
        {"x:true:U": np.zeros(3)},
        {"0:lower:V": np.zeros(3)},
        {"0:right": np.zeros(3)},
        {"0:reported": np.zeros(3)},
    ],
)
def test_another_file_is_refused(tmp_path, changed):
    path = tmp_path / "predictions.npz"
    content = {
        "schema": np.array(predictions.SCHEMA), "sets": np.array(["validation"]), "about": np.array("{}"),
        "0:true:U": TRUE, "0:predicted:U": FOUND,
    }  # fmt: skip
    np.savez(path, **content)
    predictions.load(path)
    np.savez(path, **{**content, **changed})
    with pytest.raises(InputError, match="no predictions file"):
        predictions.load(path)


@settings(max_examples=60)
@given(st.binary(max_size=400), st.integers(0, 400))
def test_damage_is_no_traceback(tmp_path_factory, noise, place):
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    predictions.save(path, Predictions({"v": {"true:U": TRUE, "predicted:U": FOUND}}))
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    try:
        found = predictions.load(path)
    except InputError:
        return
    assert isinstance(found, Predictions)


def test_a_tile_shows_its_numbers():
    values = np.array([[0.0, 0.5], [1.0, np.nan], [-3.0, 9.0]])
    picture = Image.open(io.BytesIO(tiles.tile(values, 0.0, 1.0, "grey")))
    assert picture.size == (2, 3)
    grey = np.asarray(picture.convert("L"))[::-1].astype(int)  # the first row is below
    np.testing.assert_allclose(grey, [[0, 128], [255, 128], [0, 255]], atol=1)
    scale = np.asarray(Image.open(io.BytesIO(tiles.bar("grey"))).convert("L")).astype(int)
    assert (np.diff(scale[0]) >= 0).all()
    assert (scale[0, 0], scale[0, -1]) == (0, 255)
