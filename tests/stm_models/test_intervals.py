import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stm_models.errors import InputError
from stm_models.networks import bundle
from stm_models.networks.model import Model
from stm_models.networks.registry import create
from stm_models.training.intervals import Interval, Residuals, least_groups


def _residuals(groups, seed, name="c", per_group=3):
    """Noise of an image decides the error's size, of which two of three hints tell; a group has an error in common."""
    rng = np.random.default_rng(seed)
    count = groups * per_group
    of = np.repeat(np.arange(groups), per_group)
    noise = rng.uniform(-1, 1, count)
    error = np.exp(1.5 * noise) * (rng.normal(size=count) + rng.normal(size=groups)[of])
    hints = np.stack([noise, noise**2, rng.normal(size=count)], axis=1).astype(np.float32)
    return Residuals(hints, 0.1 * error[:, None], np.array([f"{name}{seed}-{group}" for group in of]))


def _covered(interval, found):
    lower, upper = interval(torch.from_numpy(found.hints), torch.zeros(len(found.error), 1))
    return (lower.numpy() <= found.error) & (found.error <= upper.numpy()), (upper - lower).numpy()


@pytest.fixture(scope="module")
def interval():
    return Interval.fit(_residuals(200, 0, "s"), _residuals(200, 1), level=0.8)


def test_new_groups_are_covered_as_stated_over_many_calibrations(interval):
    shares = [
        _covered(interval.calibrated(_residuals(15, 100 + seed), 0.8), _residuals(60, 900 + seed))[0].mean()
        for seed in range(60)
    ]
    error = np.std(shares) / np.sqrt(len(shares))
    assert 0.8 - 3 * error <= np.mean(shares) <= 0.8 + 1 / 16 + 3 * error


def test_width_follows_the_noise_so_that_both_kinds_are_covered(interval):
    new = _residuals(600, 7)
    inside, width = _covered(interval, new)
    quiet, loud = new.hints[:, 0] < -0.3, new.hints[:, 0] > 0.3
    assert width[loud].mean() > 3 * width[quiet].mean()
    assert inside[quiet].mean() == pytest.approx(0.8, abs=0.07)
    assert inside[loud].mean() == pytest.approx(0.8, abs=0.07)


def _two_kinds(groups, seed, name="c"):
    """Quiet samples have errors of one size, loud ones mostly none and a few huge: no one factor fits both."""
    rng = np.random.default_rng(seed)
    loud = np.arange(3 * groups) % 2 == 1
    error = np.where(loud, 3.0 * rng.standard_t(2, len(loud)) ** 3, rng.choice([-1.0, 1.0], len(loud)))
    error *= rng.uniform(0.9, 1.1, len(loud))
    hints = np.stack([loud, rng.normal(size=len(loud))], axis=1).astype(np.float32)
    return Residuals(
        hints, error[:, None], np.array([f"{name}{seed}-{group}" for group in np.repeat(np.arange(groups), 3)])
    )


def test_a_factor_for_each_range_of_the_spread_covers_kinds_whose_errors_are_shaped_differently():
    interval = Interval.fit(_two_kinds(300, 0, "s"), _two_kinds(300, 1), level=0.8)
    new = _two_kinds(3000, 7)
    inside, _ = _covered(interval, new)
    loud = new.hints[:, 0] > 0.5
    assert interval.factor.shape == (1, 1, 8)
    assert inside[loud].mean() == pytest.approx(0.8, abs=0.06)
    assert inside[~loud].mean() >= 0.75
    one = Interval(2, 1).requires_grad_(False)
    one.load_state_dict({**interval.state_dict(), "edges": torch.zeros(1, 1, 0), "factor": interval.factor[..., -1:]})
    assert abs(_covered(one, new)[0][~loud].mean() - inside[~loud].mean()) > 0.1  # the loud ones' factor is another


def _alike_in_spread(groups, seed, name="c"):
    """Two kinds of images whose errors have one mean size and other tails; a hint tells which."""
    rng = np.random.default_rng(seed)
    kind = np.arange(3 * groups) % 2
    error = np.where(kind, rng.exponential(1.0, len(kind)) * rng.choice([-1.0, 1.0], len(kind)), 1.0)
    hints = np.stack([kind, rng.normal(size=len(kind))], axis=1).astype(np.float32)
    of = np.array([f"{name}{seed}-{group}" for group in np.repeat(np.arange(groups), 3)])
    return Residuals(hints, error[:, None] * rng.uniform(0.9, 1.1, (len(kind), 1)), of, kind)


def test_each_kind_that_an_image_can_look_like_is_covered_by_itself():
    interval = Interval.fit(_alike_in_spread(300, 0, "s"), _alike_in_spread(300, 1), level=0.9)
    assert interval.factor.shape == (1, 2, 3)
    new = _alike_in_spread(3000, 7)
    inside, width = _covered(interval, new)
    for kind in (0, 1):
        assert inside[new.kind == kind].mean() == pytest.approx(0.9, abs=0.04)
    assert width[new.kind == 1].mean() > 1.5 * width[new.kind == 0].mean()
    looks = interval.looks(torch.from_numpy(new.hints)).argmax(dim=1).numpy()
    assert (looks == new.kind).all()


def test_a_kind_that_nothing_looks_like_has_the_factor_of_all():
    spread, calibration = _alike_in_spread(100, 0, "s"), _alike_in_spread(100, 1)
    only = calibration.subset(calibration.kind == 0)
    interval = Interval.fit(spread, only, level=0.8)
    assert interval.factor.isfinite().all()
    assert interval.factor[0, 1].unique().numel() == 1


def test_a_bundle_from_before_the_ranges_is_refused_in_words(tmp_path):
    model = Model.blank(create("linear", (1, 8, 8), 1, {})).eval()
    info = {"network": "linear", "options": {}, "input": {}, "targets": [], "task": "t", "data": {}, "explained": 0}
    saved = bundle.save(tmp_path / "b", model, None, info, interval=Interval(3, 1))
    tensors = load_file(saved / "weights.safetensors")
    save_file({**tensors, "interval.factor": torch.ones(1)}, saved / "weights.safetensors")
    with pytest.raises(InputError, match="its tensors do not fit network 'linear'"):
        bundle.load(saved)


def test_few_groups_have_one_range():
    assert Interval.fit(_residuals(30, 0, "s"), _residuals(20, 1), level=0.9).factor.shape == (1, 1, 1)


def _alike(groups, seed, name="c"):
    """Errors that no hint tells anything of."""
    rng = np.random.default_rng(seed)
    names = np.array([f"{name}{seed}-{group}" for group in range(groups)])
    return Residuals(rng.normal(size=(groups, 12)).astype(np.float32), rng.laplace(size=(groups, 1)), names)


@pytest.mark.parametrize("groups", [1, 13, 50, 200])
def test_hints_that_tell_nothing_widen_no_bounds(groups):
    made = Interval.fit(_alike(groups, 0, "s"), _alike(300, 1), level=0.9)
    assert not made.learnt
    inside, width = _covered(made, _alike(2000, 2))
    plain = 2 * np.quantile(np.abs(_alike(300, 1).error), 0.9)
    # Ranges of one spread for all are one range.
    assert width == pytest.approx(plain, rel=0.1)
    assert inside.mean() == pytest.approx(0.9, abs=0.05)


def test_what_hints_tell_is_learnt(interval):
    assert interval.learnt
    assert Interval.fit(_residuals(30, 0, "s"), _residuals(60, 1), level=0.8).learnt


def test_groups_on_both_sides_are_refused():
    same = _residuals(30, 0)
    with pytest.raises(InputError, match=r"30 groups .* are both in what the spread"):
        Interval.fit(same, same, level=0.8)


def test_too_few_groups_are_refused():
    assert least_groups(0.95) == 19
    with pytest.raises(InputError, match=r"8 held-out states are too few for an interval of level 0\.9"):
        Interval.fit(_residuals(30, 0), _residuals(8, 1), level=0.9)


def test_again_it_is_the_same():
    first, second = (Interval.fit(_residuals(20, 0), _residuals(20, 1), level=0.8, seed=3) for _ in range(2))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
