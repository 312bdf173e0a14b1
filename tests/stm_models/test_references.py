"""Which images a model keeps."""

import numpy as np
import pytest

from stm_models.explain.references import references


@pytest.mark.parametrize(
    ("side", "sets", "each"), [(8, 1, 16), (8, 5, 16), (256, 1, 16), (256, 5, 6), (1024, 1, 4), (1024, 5, 1)]
)
def test_images_of_every_set_are_kept_within_bounds(side, sets, each):
    pools = [np.full((20, 1, side, side), number, np.float32) for number in range(sets)]
    kept = references(pools[0][:4], pools, 0)["heldout"]
    assert kept[:, 0, 0, 0].tolist() == np.repeat(np.arange(sets), each).tolist()
    assert kept.nbytes <= max(8 * 2**20, max(4, sets) * 4 * side**2)


def test_one_set_need_not_be_a_list():
    pool = np.random.default_rng(0).random((20, 1, 8, 8), dtype=np.float32)
    found = references(pool, pool, 3)
    np.testing.assert_array_equal(found["heldout"], references(pool, [pool], 3)["heldout"])
    assert found["background"].shape == (16, 1, 8, 8)
    np.testing.assert_allclose(found["baseline"], pool.mean(axis=0), rtol=1e-6)
