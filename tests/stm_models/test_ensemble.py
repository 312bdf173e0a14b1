"""Several models as one: their mean, their spread, and what does not fit together."""

import copy
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stm_models.errors import InputError
from stm_models.explain.cam import grad_cam
from stm_models.explain.gradient import slope
from stm_models.explain.randomisation import cascade
from stm_models.networks import bundle, registry
from stm_models.networks.base import Network, NetworkOptions
from stm_models.networks.ensemble import members_of, together
from stm_models.networks.model import Model
from stm_models.training.intervals import Interval
from stm_models.training.novelty import Novelty
from support import network_cases as cases

SHAPE = (2, 28, 30)
INFO = {"options": {}, "input": {}, "targets": [{}, {}], "task": "hubbard", "data": {}, "explained": 0}


def _member(seed, name="conv", outputs=2, targets=None):
    """A model that saw images of its own: members standardise differently."""
    seen = cases.images(12, seed, SHAPE)
    network = cases.nudge(cases.create(name, SHAPE, outputs, seed=seed))
    truth = np.random.default_rng(1).normal(2.0, 1.5, (12, outputs)) if targets is None else targets
    return Model.for_data(network, seen, truth).eval().requires_grad_(False).double()


def _images(count=4):
    return torch.from_numpy(cases.images(count, 9, SHAPE)).double()


def test_the_answer_is_the_mean_and_the_spread_a_standard_deviation():
    members = [_member(seed) for seed in range(3)]
    whole, x = together(members), _images()
    each = np.stack([one(x).numpy() for one in members])
    np.testing.assert_allclose(whole(x).numpy(), each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(whole.in_units(whole.apart(x)).numpy(), each.std(axis=0, ddof=1), rtol=1e-9)
    assert members[0].apart(x).shape == (4, 0)
    torch.testing.assert_close(whole.features(x), members[0].features(x))
    assert members_of(whole.network) == members
    assert members_of(members[0].network) == []


def test_maps_are_averaged_as_scores():
    members = [_member(seed, "fieldnet", 1) for seed in range(2)]
    whole, x = together(members), _images()
    each = np.stack([one(x).numpy() for one in members])
    assert whole(x).shape == (4, 1, *SHAPE[1:])
    np.testing.assert_allclose(whole(x).numpy(), each.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(whole.apart(x).numpy(), each.std(axis=0, ddof=1), rtol=1e-9)
    logits = torch.stack([one.network(x) for one in members]).mean(dim=0)
    torch.testing.assert_close(whole.network(x), logits)
    torch.testing.assert_close(whole.in_units(whole.apart(x)), whole.apart(x))
    smaller = x[:, :, :17, :21]
    np.testing.assert_allclose(whole(smaller).numpy(), sum(one(smaller) for one in members).numpy() / 2, rtol=1e-12)


@pytest.mark.parametrize("explain", [slope, grad_cam])
def test_a_map_of_the_mean_is_the_mean_of_the_maps(explain):
    members = [_member(seed) for seed in range(3)]
    whole, x = together(members), _images()
    each = torch.stack([explain(one, x, target=1) for one in members])
    torch.testing.assert_close(explain(whole, x, target=1), each.mean(dim=0))
    assert each.std(dim=0).abs().max() > 1e-3 * each.abs().max()


def test_networks_without_a_map_of_features_say_so_together_too():
    whole = together([_member(seed, "mlp") for seed in range(2)])
    assert whole.network.no_cam() == whole.network.members[0].network.no_cam() != ""


def test_what_is_below_zero_is_cut_off_once():
    members, x = [_member(seed) for seed in range(2)], _images(16)
    raw = torch.stack([one(x) for one in members]).mean(dim=0)
    middle = raw.median(dim=0).values
    raw = raw - middle
    for one in members:
        one.network.options = one.network.options.model_copy(update={"clamp": True})
        one.target_mean -= middle
    whole = together(members)
    assert (raw < 0).any()
    assert (raw > 0).any()
    torch.testing.assert_close(whole(x), raw.clamp_min(0))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: _member(1, "mlp"), "member 2 of the ensemble has network MLP, the first one Conv"),
        (lambda: _member(1, outputs=1), "number of targets 1, the first one 2"),
        (lambda: _member(1, targets=np.arange(24.0).reshape(12, 2)), "mean of the targets"),
    ],
)  # fmt: skip
def test_what_differs_by_more_than_the_seed_does_not_fit_together(other, words):
    with pytest.raises(InputError, match=words):
        together([_member(0), other()])


def test_one_is_no_ensemble():
    with pytest.raises(InputError, match="ensemble of 1 model: expected at least 2"):
        together([_member(0)])


@pytest.mark.parametrize(("name", "outputs"), [("conv", 2), ("fieldnet", 1)])
def test_a_bundle_keeps_every_member(name, outputs, tmp_path):
    whole = together([_member(seed, name, outputs).float() for seed in range(3)])
    info = {**INFO, "network": name, "options": dict(whole.network.options), "targets": [{}] * outputs}
    x = _images().float()
    known = whole.features(x).numpy()
    novelty, _ = Novelty.fit(known, None).calibrated({"clean": (known, np.arange(4))})
    kept = bundle.load(bundle.save(tmp_path / "bundle", whole, novelty, info))
    assert len(members_of(kept.model.network)) == 3
    answers = kept.answers(x)
    torch.testing.assert_close(answers["prediction"], whole(x))
    torch.testing.assert_close(answers["spread"], whole.in_units(whole.apart(x)))
    assert list(answers)[:2] == ["prediction", "spread"]


def test_a_bundle_that_lost_a_tensor_of_a_member_is_damaged(tmp_path, monkeypatch):
    whole = together([_member(seed).float() for seed in range(2)])
    info = {**INFO, "network": "conv", "options": dict(whole.network.options)}
    folder = bundle.save(tmp_path / "bundle", whole, None, info)
    tensors = load_file(folder / "weights.safetensors")
    lost = {key: value for key, value in tensors.items() if not key.startswith("model.network.members.1.network.head")}
    shutil.copytree(folder, tmp_path / "lost")
    save_file(lost, tmp_path / "lost" / "weights.safetensors")
    with pytest.raises(InputError, match="its tensors do not fit network 'conv'"):
        bundle.load(tmp_path / "lost")
    alone = {key: value for key, value in tensors.items() if "members.1." not in key}
    save_file(alone, tmp_path / "lost" / "weights.safetensors")
    with pytest.raises(InputError, match="ensemble of 1 model"):
        bundle.load(tmp_path / "lost")
    monkeypatch.setattr(bundle, "together", lambda members: pytest.fail(f"{len(members)} networks were made"))
    many = {f"model.network.members.{number}.pixel_mean": torch.zeros(1) for number in range(2, 500)}
    save_file({**tensors, **many}, tmp_path / "lost" / "weights.safetensors")
    with pytest.raises(InputError, match="its tensors do not fit network 'conv'"):
        bundle.load(tmp_path / "lost")


class _Committee(Network):
    """A network of one's own whose parts happen to be called members."""

    Options = NetworkOptions

    def __init__(self, in_shape, outputs, options):
        super().__init__(in_shape, outputs, options)
        self.members = torch.nn.ModuleList(torch.nn.Linear(int(np.prod(in_shape)), 3) for _ in range(2))
        self.head = torch.nn.Linear(6, outputs)

    def features(self, x):
        return torch.cat([one(x.flatten(1)) for one in self.members], dim=1)


def test_parts_of_one_network_may_be_called_members(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._NETWORKS, "committee", _Committee)
    model = Model.blank(registry.create("committee", SHAPE, 2)).eval()
    info = {**INFO, "network": "committee"}
    kept = bundle.load(bundle.save(tmp_path / "bundle", model, None, info)).model
    torch.testing.assert_close(kept(_images().float()), model(_images().float()))


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_bounds_of_one_network_need_no_spread(outputs):
    model, x = _member(0, outputs=outputs).float(), _images(8).float()
    known = model.features(x).numpy()
    novelty, _ = Novelty.fit(known, None).calibrated({"clean": (known, np.arange(8))})
    hints = novelty.hints(model.features(x), model.noise(x), model.apart(x))
    found = bundle.Bundle(model, novelty, {}, interval=Interval(hints.shape[1], outputs)).answers(x)
    assert found["lower"].shape == (8, outputs)
    assert "spread" not in found


def test_members_are_drawn_anew_in_step_and_their_standardisation_shuffled():
    whole = together([_member(seed, "mlp").float() for seed in range(3)])
    before = [copy.deepcopy(one.state_dict()) for one in members_of(whole.network)]
    stages = []
    for name, changed in cascade(whole, 0, stages=3):
        stages.append(name)
        for one, old in zip(members_of(changed.network), before, strict=True):
            now = one.state_dict()
            assert any(not torch.equal(now[key], value) for key, value in old.items())
            shuffled = not torch.equal(now["pixel_mean"], old["pixel_mean"])
            assert shuffled == (name == "standardisation")
            if shuffled:
                torch.testing.assert_close(now["pixel_mean"].flatten().sort()[0], old["pixel_mean"].flatten().sort()[0])
    assert stages[-1] == "standardisation"
    assert not any("members" in name for name in stages)


def test_bounds_are_told_how_far_apart_the_members_are():
    whole = together([_member(seed).float() for seed in range(3)])
    x = _images(8).float()
    known = whole.features(x).numpy()
    novelty, _ = Novelty.fit(known, None).calibrated({"clean": (known, np.arange(8))})
    hints = novelty.hints(whole.features(x), whole.noise(x), whole.apart(x))
    each = torch.stack([one(x) for one in members_of(whole.network)])
    torch.testing.assert_close(hints[:, -2:], (each.std(dim=0) / whole.target_scale).log(), atol=1e-4, rtol=1e-4)
    interval = Interval(hints.shape[1], 2)
    found = bundle.Bundle(whole, novelty, {}, interval=interval).answers(x)
    lower, upper = interval(hints, whole(x))
    torch.testing.assert_close(found["lower"], lower)
    torch.testing.assert_close(found["upper"], upper)
