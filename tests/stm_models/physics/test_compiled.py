"""Kernels compile where no cache can be written, as in a container."""

import numba.core.caching as caching
import pytest

from stm_models.physics.compiled import compiled


def double(x):
    return 2 * x


def test_a_cache_where_there_is_room_for_it():
    assert compiled(double)(3) == 6
    assert compiled(fastmath=True)(double).targetoptions["fastmath"] is True


def test_none_where_nothing_can_be_written(monkeypatch):
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        caching.FunctionCache(double)
    assert compiled(double)(3) == 6
    assert compiled(fastmath=True)(double).targetoptions["fastmath"] is True


def test_another_error_is_not_swallowed(monkeypatch):
    def broken(self, function):
        raise RuntimeError("out of order")

    monkeypatch.setattr(caching.FunctionCache, "__init__", broken)
    with pytest.raises(RuntimeError, match="out of order"):
        compiled(double)
