"""Which fresh states the plain metrics of a demo are of."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.judging import at_trained_values
from stm_models.data.dataset import Samples


@pytest.mark.parametrize(
    ("fresh", "kept"),
    [([0.0, 1.0, 2.0, 3.0], [0.0, 2.0]), ([0.3, 1.7], [0.3, 1.7])],
    ids=["a grid whose other values were held out", "drawn continuously"],
)
def test_states_at_trained_values_are_kept_and_all_where_no_value_comes_twice(fresh, kept):
    values = np.array(fresh)
    samples = Samples(np.zeros((len(values), 1, 2, 2), np.float32), values[:, None], {"U": values}, {}, Path("x.zarr"))
    chosen = at_trained_values(samples, np.array([0.0, 2.0 + 1e-12, 4.0]), "U")
    np.testing.assert_array_equal(chosen.coordinates["U"], kept)
