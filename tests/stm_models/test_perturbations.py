"""Perturbation sets: each draw within its range and as often as stated, and the same for everyone who asks again."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from stm_models.errors import InputError
from stm_models.tasks import registry
from stm_models.tasks.hubbard.perturbations import SETS
from stm_models.tasks.perturbation import CLEAN, KINDS, Perturbation, Step, find, scaled
from stm_models.training.perturbations import perturb

BY_NAME = {one.name: one for one in SETS}
PAPER = {
    "mild": {
        "gain_shift": (0.3, {"gain": (0.98, 1.02), "shift": (-0.01, 0.01)}),
        "gaussian": (0.3, {"sigma": (0.001, 0.005)}),
        "scan_line": (0.2, {"sigma": (0.005, 0.01)}),
    },
    "symb": {"strain": (0.8, {"strain": (0.01, 0.03)}), "gaussian": (0.3, {"sigma": (0.001, 0.005)})},
    "noisy": {
        "gaussian": (0.3, {"sigma": (0.004, 0.012)}),
        "scan_line": (0.3, {"sigma": (0.006, 0.015)}),
        "tip_blur": (0.25, {"sigma": (0.5, 0.9), "ratio": (1.0, 1.15)}),
        "gain_shift": (0.3, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}),
    },
}  # arXiv 2602.18890


def _draw(step, images, seed=0):
    return perturb(images, [step], torch.Generator().manual_seed(seed))


def _uniform(values, limits):
    """Values spread evenly over the range, up to what the estimate of each adds."""
    scaled = (np.asarray(values) - limits[0]) / (limits[1] - limits[0])
    assert stats.kstest(scaled, "uniform").pvalue > 1e-3
    assert -0.1 < scaled.min() < 0.1 < 0.9 < scaled.max() < 1.1


def test_the_sets_are_the_papers():
    assert [one.name for one in SETS if one.judged] == ["clean", "mild", "symb", "noisy", "instrument"]
    assert [one.name for one in SETS if not one.judged] == ["mixed", "mixed_width", "atom_width"]
    for name, steps in PAPER.items():
        assert {s.kind: (s.probability, dict(s.ranges)) for s in BY_NAME[name].steps} == steps
    assert BY_NAME["clean"] == CLEAN == Perturbation("clean", CLEAN.description)
    assert registry.get("hubbard").perturbations() == SETS


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, steps in PAPER.items() for kind in steps])
def test_each_step_meets_its_share_of_the_images(name, kind):
    step = next(step for step in BY_NAME[name].steps if step.kind == kind)
    images = torch.zeros(4000, 1, 5, 4)
    images[:, :, 2, 2] = 1
    met = (_draw(step, images) != images).any(dim=(1, 2, 3)).double().mean().item()
    assert met == pytest.approx(step.probability, abs=4 * math.sqrt(0.25 / 4000))


def test_the_mixture_reaches_as_far_as_the_sets():
    among = {one.name: one for _, one in BY_NAME["mixed"].among}
    assert {"clean", *PAPER} < set(among)
    mixed = {step.kind: step for step in among["together"].steps}
    for name in PAPER:
        for step in BY_NAME[name].steps:
            for quantity, (low, high) in step.ranges.items():
                widest = mixed[step.kind].ranges[quantity]
                assert widest[0] <= low
                assert widest[1] >= high
            assert 0 < mixed[step.kind].probability < 1


def test_shares_of_other_sets_leave_nothing_over_and_nothing_beside():
    step = Step("gaussian", 1.0, {"sigma": (0.1, 0.2)})
    for wrong in ({"among": ((0.4, CLEAN), (0.5, CLEAN))}, {"among": ((1.0, CLEAN),), "steps": (step,)}):
        with pytest.raises(ValueError, match="shares of other sets that sum to 1, and nothing of its own"):
            Perturbation("wrong", "", **wrong)
    with pytest.raises(ValueError, match="not drawn among others themselves"):
        Perturbation("wrong", "", among=((1.0, BY_NAME["mixed"]),), needs=("ldos",))
    with pytest.raises(ValueError, match=r"wrong needs \(\): expected what the sets need"):
        Perturbation("wrong", "", among=((1.0, BY_NAME["instrument"]),))
    for name in ("mixed", "mixed_width"):
        assert BY_NAME[name].remakes
        assert [entry["share"] for entry in BY_NAME[name].record()["among"]] == [s for s, _ in BY_NAME[name].among]
    assert not BY_NAME["noisy"].remakes


def test_gain_and_shift_fill_their_ranges():
    x = torch.linspace(0, 1, 16).reshape(1, 1, 4, 4).expand(3000, 1, 4, 4).double()
    y = _draw(Step("gain_shift", 1.0, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}), x).reshape(3000, -1).numpy()
    _uniform(y[:, -1] - y[:, 0], (0.95, 1.05))
    _uniform(y[:, 0], (-0.01, 0.01))
    assert abs(np.corrcoef(y[:, 0], y[:, -1] - y[:, 0])[0, 1]) < 0.08


def test_gaussian_noise_is_white_and_of_the_stated_strength():
    x = torch.full((800, 1, 40, 40), 0.3, dtype=torch.float64)
    noise = (_draw(Step("gaussian", 1.0, {"sigma": (0.004, 0.012)}), x) - x)[:, 0].numpy()
    strength = noise.std(axis=(1, 2))
    _uniform(strength, (0.004, 0.012))
    scaled = noise / strength[:, None, None]
    assert abs(scaled.mean()) < 0.005
    assert stats.kurtosis(scaled, axis=None) == pytest.approx(0, abs=0.05)
    for neighbours in ((scaled[:, 1:], scaled[:, :-1]), (scaled[..., 1:], scaled[..., :-1])):
        assert abs((neighbours[0] * neighbours[1]).mean()) < 0.005


def test_scan_lines_shift_whole_rows():
    x = torch.rand(400, 2, 600, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    offsets = (_draw(Step("scan_line", 1.0, {"sigma": (0.006, 0.015)}), x) - x).numpy()
    assert np.abs(np.ptp(offsets, axis=3)).max() < 1e-12
    rows = offsets[..., 0]
    # Both channels of a sample share the strength, not the offsets.
    _uniform(rows.reshape(400, -1).std(axis=1), (0.006, 0.015))
    assert abs(np.corrcoef(rows[:, 0].ravel(), rows[:, 1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(rows[:, 0, 1:].ravel(), rows[:, 0, :-1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("shape", [(61, 61), (49, 81)])
def test_strain_moves_peaks_as_stretching_the_plane_does(shape):
    """Second moments of a Gaussian blob: lambda^T M lambda has eigenvalues (1 +- strain)^2, whatever the pixels."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    blob = np.exp(-(y[:, None] ** 2 + x**2) / (2 * 5**2))
    images = torch.from_numpy(blob).expand(300, 1, *shape)
    result = _draw(Step("strain", 1.0, {"strain": (0.01, 0.03)}), images)[:, 0].numpy()
    weight = result / result.sum(axis=(1, 2), keepdims=True)
    assert np.abs((weight * x).sum(axis=(1, 2))).max() < 1e-6  # the middle stays
    xx, yy = ((weight * values).sum(axis=(1, 2)) for values in (x**2, y[:, None] ** 2))
    xy = (weight * y[:, None] * x).sum(axis=(1, 2))
    moments = np.linalg.eigvalsh(np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2))
    ratio = np.sqrt(moments[:, 1] / moments[:, 0])
    _uniform((ratio - 1) / (ratio + 1), (0.01, 0.03))
    _uniform(np.arctan2(2 * xy, xx - yy) / 2, (-math.pi / 2, math.pi / 2))


def test_tip_blur_is_a_gaussian_of_two_widths():
    delta = torch.zeros(400, 1, 21, 21, dtype=torch.float64)
    delta[..., 10, 10] = 1
    kernels = _draw(Step("tip_blur", 1.0, {"sigma": (0.9, 1.4), "ratio": (1.0, 1.15)}), delta)[:, 0].numpy()
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1)
    offsets = np.arange(21) - 10
    xx, yy = ((kernels * values).sum(axis=(1, 2)) for values in (offsets**2, offsets[:, None] ** 2))
    xy = (kernels * offsets[:, None] * offsets).sum(axis=(1, 2))
    half, middle = np.hypot((xx - yy) / 2, xy), (xx + yy) / 2
    narrow, wide = np.sqrt(middle - half), np.sqrt(middle + half)
    _uniform(narrow, (0.9, 1.4))
    _uniform(wide / narrow, (1.0, 1.15))


def test_tip_blur_against_scipy():
    x = np.random.default_rng(0).random((1, 3, 14, 11))
    step = Step("tip_blur", 1.0, {"sigma": (0.8, 0.8), "ratio": (1.0, 1.0)})
    expected = [ndimage.gaussian_filter(channel, 0.8, mode="nearest", radius=3) for channel in x[0]]
    np.testing.assert_allclose(_draw(step, torch.from_numpy(x))[0].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*PAPER, "clean"])
def test_same_generator_same_images_and_the_input_is_left_alone(name):
    x = torch.rand(12, 2, 9, 7, generator=torch.Generator().manual_seed(0))
    before, state = x.clone(), torch.random.get_rng_state()
    first, second, other = (perturb(x, BY_NAME[name].steps, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first, other) == (name == "clean")
    assert first.dtype == x.dtype
    assert torch.isfinite(first).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(KINDS)), st.integers(1, 3), st.integers(3, 12), st.integers(3, 12))
def test_what_no_step_meets_is_bitwise_the_same_and_shapes_stay(seed, kind, channels, height, width):
    x = torch.rand(4, channels, height, width, generator=torch.Generator().manual_seed(seed))
    ranges = {"gain": (0.9, 1.1), "shift": (0.0, 0.1), "sigma": (0.5, 0.9), "ratio": (1.0, 1.2), "strain": (0.01, 0.1)}
    chosen = {name: ranges[name] for name in KINDS[kind]}
    never = perturb(x, [Step(kind, 0.0, chosen)], torch.Generator().manual_seed(seed))
    assert torch.equal(never, x)
    always = perturb(x, [Step(kind, 1.0, chosen)], torch.Generator().manual_seed(seed))
    assert always.shape == x.shape
    assert torch.isfinite(always).all()


def test_a_step_must_be_one_that_exists():
    for bad in (("blur", 0.5, {}), ("gaussian", 0.5, {"gain": (0, 1)}), ("gaussian", 1.5, {"sigma": (0, 1)})):
        with pytest.raises(ValueError, match="no such distortion"):
            Step(*bad)


def test_unknown_set_lists_the_choices():
    with pytest.raises(InputError, match=r"unknown perturbation 'milt': choose from clean, .*did you mean 'mild'"):
        find(SETS, "milt")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", PAPER)
def test_on_a_gpu(name):
    x = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    first, second = (perturb(x, BY_NAME[name].steps, torch.Generator("cuda").manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first != x).any()


def test_a_set_twice_as_strong_is_twice_as_far_from_doing_nothing():
    noisy = find(registry.get("hubbard").perturbations(), "noisy")
    same, twice = scaled(noisy, 1.0), scaled(noisy, 2.0)
    assert (same.name, twice.name) == ("noisy:1", "noisy:2")
    assert same.steps == noisy.steps
    by_kind = {step.kind: step.ranges for step in twice.steps}
    assert by_kind["gaussian"]["sigma"] == pytest.approx((0.008, 0.024))
    assert by_kind["gain_shift"]["gain"] == pytest.approx((0.9, 1.1))
    assert by_kind["tip_blur"]["ratio"] == pytest.approx((1.0, 1.3))
    assert twice.record()["strength"] == 2.0
    for name, strength, words in (("instrument", 2.0, "has no strength"), ("clean", 2.0, "has no strength"),
                                  ("noisy", 0.0, "above 0"), ("noisy", float("nan"), "above 0")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            scaled(find(registry.get("hubbard").perturbations(), name), strength)
