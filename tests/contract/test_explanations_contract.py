"""What every explanation must do, on every family of networks; against libraries that others wrote."""

import warnings

import captum.attr
import numpy as np
import pytest
import shap
import torch

from stm_models.errors import InputError
from stm_models.explain import integrated_gradients
from stm_models.explain.methods import METHODS, Steps, available, compute
from stm_models.explain.references import references
from stm_models.networks.bundle import Bundle
from stm_models.networks.model import Model
from support import network_cases as cases

FAMILIES, images = cases.FAMILIES, cases.images

RELU = ["conv", "fc", "fieldnet", "resnet18", "voltage_attention"]
SPATIAL = [name for name in FAMILIES if name.startswith("timm:")] + ["conv", "resnet18"]
LINES = [name for name in FAMILIES if name != "voltage_attention"]
STEPS = Steps(8, 5, 3, seed=11)

_MADE = {}


def _bundle(name, dtype=torch.float64, side=32):
    """A network that training could have left, its images, and the pixel statistics of these."""
    if (name, side) not in _MADE:
        seen = images(12, 0, (2, side, side))
        outputs = 1 if cases.answers_with_map(name) else 2
        network = cases.nudge(cases.create(name, (2, side, side), outputs, seed=1))
        model = Model.for_data(network, seen, np.random.default_rng(1).normal(2.0, 1.5, (12, outputs)))
        kept = {key: torch.from_numpy(value) for key, value in references(seen, seen[:4], 0).items()}
        _MADE[name, side] = Bundle(model.eval().requires_grad_(False), None, {}, **kept)
    found = _MADE[name, side]
    found.model.to(dtype)
    return found


class _Strongest(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        found = self.model(x)
        return found.amax(dim=(2, 3)) if found.ndim == 4 else found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_gives_a_map_or_a_reason(name):
    bundle = _bundle(name)
    found = available(bundle)
    assert list(found) == list(METHODS)
    assert {key for key in ("gradient", "grad_x_input") if found[key]} == set()
    assert bool(found["guided"]) == (name not in RELU)
    assert bool(found["grad_cam"]) == (name not in SPATIAL)
    assert bool(found["integrated_gradients"]) == bool(found["expected_gradients"]) == (name not in LINES)
    x = torch.from_numpy(images(3, 4)).double()
    before = x.clone()
    for method, reason in found.items():
        if reason:
            assert len(reason) > 20
            continue
        explain = compute(bundle, method, steps=STEPS)
        maps = explain(x)
        assert maps.shape == ((3, 1, 32, 32) if method == "grad_cam" else x.shape), method
        assert torch.isfinite(maps).all()
        assert not maps.requires_grad
        assert (maps[0] - maps[1]).abs().max() > (0 if name == "linear" else 1e-3 * maps.abs().max()) or (
            name == "linear" and method == "gradient"
        ), method
        torch.testing.assert_close(explain(x[1:2]), maps[1:2], rtol=1e-6, atol=1e-9)  # rows do not touch each other
    assert torch.equal(x, before)
    assert not any(module._forward_hooks for module in bundle.model.modules())


def test_guided_backpropagation_of_other_activations_names_them():
    assert "silu" in available(_bundle("timm:test_efficientnet"))["guided"]
    assert "gelu" in available(_bundle("timm:test_vit"))["guided"]
    assert "no ReLU" in available(_bundle("linear"))["guided"]


def test_runs_without_images_to_compare_with_lack_two_methods():
    bundle = Bundle(_bundle("mlp").model, None, {})
    lacking = {name for name, reason in available(bundle).items() if "train it again" in reason}
    assert lacking == {"integrated_gradients", "expected_gradients"}
    with pytest.raises(InputError, match="lime"):
        compute(bundle, "lime")


@pytest.mark.parametrize("name", ["conv", "resnet18", "timm:test_vit", "timm:test_convnext", "fieldnet"])
def test_gradients_are_those_of_captum(name):
    bundle = _bundle(name)
    x, model = torch.from_numpy(images(2, 5)).double(), _Strongest(bundle.model)
    want = captum.attr.Saliency(model).attribute(x.clone().requires_grad_(True), target=0, abs=False)
    torch.testing.assert_close(compute(bundle, "gradient")(x), want)
    want = captum.attr.InputXGradient(model).attribute(x.clone().requires_grad_(True), target=0)
    torch.testing.assert_close(compute(bundle, "grad_x_input")(x), want.detach())


@pytest.mark.parametrize("name", SPATIAL)
def test_grad_cam_is_that_of_captum_with_its_signs(name):
    side = 96  # 3 x 3 pixels are left of it in the end
    bundle = _bundle(name, side=side)
    x, network = torch.from_numpy(images(2, 6, (2, side, side))).double(), bundle.model.network
    found = compute(bundle, "grad_cam", target=1)(x)
    assert (found < 0).any() or (compute(bundle, "grad_cam", target=0)(x) < 0).any()
    assert found[0].std() > 1e-3 * found[0].abs().max()
    if name == "timm:test_vit":  # captum knows no tokens: the formula on the patches of the last block's input
        kept = []
        layer = network.body.blocks[-1].norm1
        handle = layer.register_forward_hook(lambda _module, _inputs, out: kept.append(out))
        y = bundle.model(x.clone().requires_grad_(True))[:, 1].sum()
        handle.remove()
        (slope,) = torch.autograd.grad(y, kept[0])
        tokens, slopes = (part[:, 1:].reshape(2, side // 16, side // 16, -1) for part in (kept[0].detach(), slope))
        cam = (slopes.mean(dim=(1, 2))[:, None, None] * tokens).sum(dim=3)[:, None]
    else:
        layer = captum.attr.LayerGradCam(bundle.model, network.cam_layer())
        cam = layer.attribute(x.clone().requires_grad_(True), target=1, relu_attributions=False).detach()
    want = torch.nn.functional.interpolate(cam, size=(side, side), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-8 * float(want.abs().max()))


@pytest.mark.parametrize("name", ["conv", "fc"])
def test_guided_backpropagation_is_that_of_captum(name):
    bundle = _bundle(name)
    x = torch.from_numpy(images(2, 7)).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum tells that it sets hooks
        want = captum.attr.GuidedBackprop(bundle.model).attribute(x.clone().requires_grad_(True), target=1)
    found = compute(bundle, "guided", target=1)(x)
    torch.testing.assert_close(found, want.detach())
    assert (found - compute(bundle, "gradient", target=1)(x)).abs().max() > 0.01 * found.abs().max()


def test_guided_backpropagation_reaches_a_relu_that_is_called_as_a_function():
    bundle = _bundle("fieldnet")
    network, x = bundle.model.network, torch.from_numpy(images(1, 8)).double()
    # By hand, layer by layer: x + relu(conv(x)), what is positive comes back.
    gates = []
    h = network.first(x)
    gates.append(h > 0)
    h = h.relu()
    for layer in network.layers:
        z = layer(h)
        gates.append(z > 0)
        h = h + z.relu()
    score = torch.sigmoid(network.head(h))
    pixel = int(score.argmax())
    weight = torch.zeros_like(score).flatten(1)
    weight[0, pixel] = (score * (1 - score)).flatten()[pixel]
    back = network.head.weight.mT.reshape(1, -1, 1, 1) * weight.reshape(score.shape)
    for layer, gate in zip(reversed(network.layers), reversed(gates[1:]), strict=True):
        through = back.relu() * gate
        back = back + torch.nn.functional.conv_transpose2d(
            through, layer.weight, padding=layer.padding, dilation=layer.dilation
        )
    first = network.first
    want = torch.nn.functional.conv_transpose2d(back.relu() * gates[0], first.weight, padding=first.padding)
    torch.testing.assert_close(compute(bundle, "guided")(x), want)


@pytest.mark.parametrize("name", ["conv", "mlp", "lattice"])
def test_integrated_gradients_are_those_of_captum_and_add_up(name):
    bundle = _bundle(name)
    x, baseline = torch.from_numpy(images(2, 9)).double(), bundle.baseline[None].double()
    found = compute(bundle, "integrated_gradients", target=1, steps=STEPS)(x)
    want = captum.attr.IntegratedGradients(bundle.model).attribute(
        x, baseline, target=1, n_steps=STEPS.integrated, method="gausslegendre"
    )
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-6 * float(want.abs().max()))  # alphas are float32 here
    fine = compute(bundle, "integrated_gradients", target=1, steps=Steps(128))(x)
    error = integrated_gradients.completeness(bundle.model, x, fine, bundle.baseline.numpy(), target=1)
    assert error < 0.01
    difference = (bundle.model(x) - bundle.model(baseline))[:, 1]
    assert float((fine.sum(dim=(1, 2, 3)) - difference).abs().max()) < 0.01 * float(difference.abs().max())
    half = integrated_gradients.completeness(bundle.model, x, 0.5 * fine, bundle.baseline.numpy(), target=1)
    assert half > 0.3


def test_integrated_gradients_of_a_map_explain_one_pixel_all_along():
    bundle = _bundle("fieldnet")
    x = torch.from_numpy(images(2, 10)).double()
    for focus in (None, torch.tensor([40, 700])):
        maps = compute(bundle, "integrated_gradients", steps=Steps(64))(x, focus=focus)
        scores = bundle.model(x).flatten(1)
        pixel = scores.argmax(dim=1) if focus is None else focus
        start = bundle.model(bundle.baseline[None].double()).flatten(1).expand(2, -1)
        want = (scores - start).gather(1, pixel[:, None])[:, 0]
        torch.testing.assert_close(maps.sum(dim=(1, 2, 3)), want, rtol=0.02, atol=1e-3 * float(want.abs().max()))


@pytest.mark.parametrize("name", ["conv", "mlp"])
def test_expected_gradients_are_those_of_shap_with_the_same_draws(name):
    bundle = _bundle(name, torch.float32)
    x = torch.from_numpy(images(1, 12))
    explainer = shap.GradientExplainer(bundle.model, bundle.background[:3])
    want = explainer.shap_values(x, nsamples=5, rseed=STEPS.seed)[..., 1]
    found = compute(bundle, "expected_gradients", target=1, steps=STEPS)(x).numpy()
    np.testing.assert_allclose(found, want, atol=1e-4 * np.abs(want).max())
    other = compute(bundle, "expected_gradients", target=1, steps=Steps(8, 5, 3, seed=12))(x).numpy()
    assert np.abs(other - want).max() > 0.05 * np.abs(want).max()


def test_expected_gradients_of_many_draws_add_up_to_the_difference_from_the_mean_answer():
    bundle = _bundle("mlp")
    x = torch.from_numpy(images(1, 13)).double()
    maps = compute(bundle, "expected_gradients", steps=Steps(2, 3000, 12))(x)
    want = float(bundle.model(x)[0, 0] - bundle.model(bundle.background.double())[:, 0].mean())
    assert float(maps.sum()) == pytest.approx(want, rel=0.1)
