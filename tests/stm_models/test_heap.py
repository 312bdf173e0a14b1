"""Memory that large arrays leave to the next ones."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from stm_models import heap
from stm_models.networks import registry
from stm_models.networks.model import Model
from stm_models.training.predict import predict

ALONE = """
import json, resource
import torch
from psutil import Process
from stm_models import heap

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.empty(2**24).fill_(1.0)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return Process().memory_info().rss / 2**20

found = {"afresh": faults(4), "before": resident()}
with heap.kept():
    faults(16)  # an array and its alignment must fit between what else lies there
    found["kept"] = faults(4)
    with heap.kept():
        pass
    found["after_an_inner_one"] = faults(4)
    found["held"] = resident()
print(json.dumps({**found, "given_back": resident(), "after": faults(4)}))
"""


@pytest.mark.skipif(heap._glibc() is None, reason="no glibc, whose allocator is told")
def test_large_arrays_take_the_place_of_those_before_until_the_end():
    """In a process of its own, whose memory nothing else has used."""
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["afresh"] > 60_000
    assert found["kept"] < 600
    assert found["after_an_inner_one"] < 600
    assert found["after"] > 16_000  # the first of them at least
    assert found["held"] > found["before"] + 48
    assert found["given_back"] < found["before"] + 16


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    with heap.kept():
        assert np.ones(2**23).all()


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
