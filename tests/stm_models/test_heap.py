"""Memory that large arrays leave to the next ones."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch
from psutil import Process

from stm_models import heap
from stm_models.networks import registry
from stm_models.networks.model import Model
from stm_models.training.predict import predict

MIB = 2**20
needs_glibc = pytest.mark.skipif(heap._glibc() is None, reason="no glibc, whose allocator is told")


def faults(times: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(16 * MIB).fill_(1.0)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_a_large_array_takes_the_place_of_the_one_before():
    afresh = faults(4)
    with heap.kept():
        faults(1)
        assert faults(4) < afresh / 100
        with heap.kept():
            pass
        assert faults(4) < afresh / 100  # the inner one ended nothing
    assert faults(4) > afresh / 2


@needs_glibc
def test_memory_is_given_back_at_the_end():
    before = Process().memory_info().rss
    with heap.kept():
        faults(1)
        assert Process().memory_info().rss > before + 48 * MIB
    assert Process().memory_info().rss < before + 16 * MIB


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    with heap.kept():
        assert faults(1) >= 0


def test_large_images_are_not_all_predicted_at_once():
    seen: list[int] = []
    images = np.zeros((40, 1, 256, 256), np.float32)
    network = registry.create("linear", images.shape[1:], 1, {}, seed=0)
    model = Model.for_data(network, images, np.arange(40.0)[:, None])
    model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    assert predict(model, images).shape == (40, 1)
    assert seen == [16, 16, 8]
    seen.clear()
    predict(model, images, batch_size=30)
    assert seen == [30, 10]
