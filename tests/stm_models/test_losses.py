"""Losses on maps against slow sums and limits."""

import math

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.training.losses import LOSSES, confidence, focal_heat, loss_function, pixel_entropy

MAPS = (focal_heat, pixel_entropy)


def _case(batch=3, height=6, width=7, seed=0):
    rng = np.random.default_rng(seed)
    heat = rng.uniform(0, 0.9, (batch, height, width))
    pixel = np.zeros_like(heat)
    for b in range(batch):
        for y, x in [(1, 2), (4, 5), (3, 0)][: b + 1]:
            pixel[b, y, x] = 1
            heat[b, y, x] = 0.97
    logits = rng.normal(0, 2, (batch, 1, height, width))
    return torch.from_numpy(logits), torch.from_numpy(np.stack([heat, pixel], axis=1))


def test_focal_loss_is_the_slow_sum():
    logits, targets = _case()
    total = 0.0
    for b, y, x in np.ndindex(3, 6, 7):
        p, heat = 1 / (1 + math.exp(-float(logits[b, 0, y, x]))), float(targets[b, 0, y, x])
        total -= (heat - p) ** 2 * (heat * math.log(p) + (1 - heat) * math.log(1 - p))
    assert float(focal_heat(logits, targets)) == pytest.approx(total / 6, rel=1e-12)


def test_cross_entropy_is_the_slow_sum():
    logits, targets = _case()
    total = 0.0
    for b in range(3):
        chance = np.exp(logits[b, 0].numpy())
        chance /= chance.sum()
        total -= sum(math.log(chance[y, x]) / (b + 1) for y, x in [(1, 2), (4, 5), (3, 0)][: b + 1])
    assert float(pixel_entropy(logits, targets)) == pytest.approx(total / 3, rel=1e-12)


def test_confidence_is_the_entropy():
    logits, _ = _case()
    chance = np.exp(logits.numpy().reshape(3, -1))
    chance /= chance.sum(axis=1, keepdims=True)
    assert float(confidence(logits)) == pytest.approx(-(chance * np.log(chance)).sum(axis=1).mean(), rel=1e-12)


def test_a_map_that_equals_the_heat_costs_nothing_and_is_the_minimum():
    _, targets = _case()
    targets = targets.clamp(1e-3, 1 - 1e-3)
    right = torch.logit(targets[:, :1]).requires_grad_(True)
    loss = focal_heat(right, targets)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert float(right.grad.abs().max()) < 1e-12
    for shift in (-0.5, 0.5):
        assert focal_heat(right.detach() + shift, targets) > 0.01


def test_limits_of_uniform_and_certain_maps():
    _, targets = _case(height=8, width=8)
    uniform = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    assert float(pixel_entropy(uniform, targets)) == pytest.approx(math.log(64))
    assert float(confidence(uniform)) == pytest.approx(math.log(64))
    certain = 80 * targets[:, 1:]
    # N equal peaks share the probability: both entropies are ln N.
    expected = np.mean(np.log([1, 2, 3]))
    assert float(pixel_entropy(certain, targets)) == pytest.approx(expected)
    assert float(confidence(certain)) == pytest.approx(expected)
    assert float(confidence(certain[:1])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", MAPS)
def test_values_do_not_depend_on_an_added_field_of_the_same_kind(loss):
    logits, targets = _case()
    assert float(loss(logits.repeat(2, 1, 1, 1), targets.repeat(2, 1, 1, 1))) == pytest.approx(
        float(loss(logits, targets))
    )


@pytest.mark.parametrize("loss", MAPS)
@pytest.mark.parametrize("size", [1.0, 1e3, 1e4])
def test_gradients_stay_finite(loss, size):
    logits, targets = _case()
    leaf = (size * logits.float()).requires_grad_(True)
    (loss(leaf, targets.float()) + confidence(leaf)).backward()
    assert torch.isfinite(leaf.grad).all()
    empty = torch.zeros(2, 2, 6, 7)
    leaf = torch.randn(2, 1, 6, 7, requires_grad=True, generator=torch.Generator().manual_seed(0))
    value = loss(leaf, empty)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("loss", MAPS)
def test_descent_finds_the_impurities(loss):
    _, targets = _case()
    heat = torch.zeros(3, 1, 6, 7, dtype=torch.float64)
    heat[targets[:, 1:] > 0] = 1
    targets = torch.cat([heat, targets[:, 1:]], dim=1)
    logits = torch.zeros(3, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    for _ in range(150):
        (slope,) = torch.autograd.grad(loss(logits, targets), logits)
        logits.data -= slope
    for b in range(3):
        best = logits[b].flatten().topk(b + 1).indices
        assert targets[b, 1].flatten()[best].tolist() == [1.0] * (b + 1)


def test_names_and_shapes():
    assert loss_function("focal_heat") is focal_heat
    assert loss_function("pixel_entropy") is pixel_entropy
    assert {"mse", "huber", "l1"} < set(LOSSES)
    for loss in MAPS:
        with pytest.raises(InputError, match=r"logits have shape \(2, 3\) and targets \(2, 3\)"):
            loss(torch.zeros(2, 3), torch.zeros(2, 3))
