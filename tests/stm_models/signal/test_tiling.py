"""A field of any size, in tiles, answers as a whole one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import uniform_filter

from stm_models.errors import InputError
from stm_models.signal.tiling import whole_field


def local(radius):
    """A filter that sees ``radius`` px around and nothing else, with zeros outside its input; not linear."""

    def model(tiles):
        assert tiles.dtype == np.float32
        mean = uniform_filter(tiles.astype(np.float64), (0, 0, 2 * radius + 1, 2 * radius + 1), mode="constant")
        return np.tanh(mean).sum(axis=1)

    return model


@settings(max_examples=60, deadline=None)
@given(*[st.integers(1, 130)] * 2, *[st.integers(16, 48)] * 2, st.integers(0, 4), st.integers(1, 9))
def test_tiled_is_whole_away_from_the_border(height, width, tile_y, tile_x, radius, batch):
    stack = np.random.default_rng(height).standard_normal((2, height, width)).astype(np.float32)
    tiled = whole_field(stack, local(radius), (tile_y, tile_x), margin=radius, batch=batch)
    whole = local(radius)(stack[None])[0]
    assert tiled.shape == (height, width)
    assert np.all(np.isfinite(tiled))
    inner = np.s_[radius : max(radius, height - radius), radius : max(radius, width - radius)]
    np.testing.assert_allclose(tiled[inner], whole[inner], atol=1e-5)


def test_without_a_margin_the_cuts_would_show():
    stack = np.random.default_rng(0).standard_normal((1, 90, 90)).astype(np.float32)
    whole = local(4)(stack[None])[0]
    inner = np.s_[4:-4, 4:-4]
    assert np.abs(whole_field(stack, local(4), (40, 40), margin=0)[inner] - whole[inner]).max() > 0.01
    assert np.abs(whole_field(stack, local(4), (40, 40), margin=4)[inner] - whole[inner]).max() < 1e-5


def test_a_field_of_the_models_size_is_asked_once_and_unchanged():
    seen = []

    def model(tiles):
        seen.append(tiles)
        return tiles[:, 0]

    stack = np.random.default_rng(0).standard_normal((3, 24, 32)).astype(np.float32)
    np.testing.assert_array_equal(whole_field(stack, model, (24, 32)), stack[0])
    assert [t.shape for t in seen] == [(1, 3, 24, 32)]
    np.testing.assert_array_equal(seen[0][0], stack)


def test_a_small_field_is_reflected_and_mapped_back():
    stack = np.arange(5 * 7, dtype=np.float32).reshape(1, 5, 7)
    seen = []

    def model(tiles):
        seen.append(tiles)
        return tiles[:, 0]

    np.testing.assert_array_equal(whole_field(stack, model, (20, 7)), stack[0])
    tile = seen[0][0, 0]
    assert tile.shape == (20, 7)
    np.testing.assert_array_equal(np.unique(tile), np.unique(stack))
    np.testing.assert_array_equal(tile[7:12], stack[0])
    np.testing.assert_array_equal(tile[6], stack[0, 1])
    np.testing.assert_array_equal(tile[12], stack[0, 3])


def test_no_pixel_is_asked_far_more_often_than_needed():
    asked = 0

    def model(tiles):
        nonlocal asked
        asked += tiles[:, 0].size
        return tiles[:, 0]

    whole_field(np.zeros((1, 500, 500), np.float32), model, (80, 80), margin=8)
    assert asked < 2.2 * 500 * 500


def test_wrong_use_is_refused():
    stack = np.zeros((2, 30, 30))
    with pytest.raises(InputError, match=r"the model answers \(1, 4, 4\)"):
        whole_field(stack, lambda tiles: np.zeros((1, 4, 4)), (40, 40))
    with pytest.raises(InputError, match=r"expected \(bias, y, x\)"):
        whole_field(stack[0], local(1), (40, 40))
    with pytest.raises(InputError, match="positive"):
        whole_field(stack, local(1), (40, 0))
