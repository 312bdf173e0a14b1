"""The package shap on our models: against its own formula by hand, and refused where it is not exact."""

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.explain.shap_values import shap_values
from stm_models.networks import registry
from stm_models.networks.model import Model

SHAPE = (1, 16, 17)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:shap", "ignore::PendingDeprecationWarning:shap")
RNG = np.random.default_rng(1)
IMAGES = RNG.normal(size=(2, *SHAPE)).astype(np.float32)
BACKGROUND = RNG.normal(size=(5, *SHAPE)).astype(np.float32)


def _model(name="conv", outputs=1):
    rng = np.random.default_rng(0)
    network = registry.create(name, SHAPE, outputs, seed=3)
    images, targets = rng.normal(size=(9, *SHAPE)).astype(np.float32), rng.normal(size=(9, outputs))
    return Model.for_data(network, images, targets).eval()


def _by_hand(model, images, draws, seed, target=0):
    """Expected gradients, one point at a time: the mean of (x - b) df/dx at a random place between b and x."""
    found = np.zeros(images.shape)
    for row, image in enumerate(images):
        drawn = np.random.RandomState(seed)
        for _ in range(draws):
            other, way = BACKGROUND[drawn.choice(len(BACKGROUND))], drawn.uniform()
            x = torch.tensor(way * image + (1 - way) * other, dtype=torch.float32)[None].requires_grad_(True)
            (slope,) = torch.autograd.grad(model(x)[0, target], x)
            found[row] += (image - other) * slope[0].numpy() / draws
    return found


@pytest.mark.parametrize(("name", "target"), [("conv", 0), ("mlp", 1)])
def test_gradient_explainer_is_the_plain_estimator_with_the_same_draws(name, target):
    model = _model(name, outputs=2)
    found = shap_values(model, IMAGES, BACKGROUND, target=target, draws=25, seed=7)
    expected = _by_hand(model, IMAGES, 25, 7, target)
    assert found.shape == IMAGES.shape
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_an_image_is_explained_alike_alone_and_among_others():
    model = _model()
    both = shap_values(model, IMAGES, BACKGROUND, draws=10)
    np.testing.assert_array_equal(both[1:], shap_values(model, IMAGES[1:], BACKGROUND, draws=10))


def test_seeds_decide_and_nothing_else_is_touched():
    model = _model()
    hooks = sum(len(layer._forward_hooks) + len(layer._backward_hooks) for layer in model.modules())
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one = shap_values(model, IMAGES, BACKGROUND, draws=10, seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(one, shap_values(model, IMAGES, BACKGROUND, draws=10, seed=3))
    assert not np.array_equal(one, shap_values(model, IMAGES, BACKGROUND, draws=10, seed=4))
    assert sum(len(layer._forward_hooks) + len(layer._backward_hooks) for layer in model.modules()) == hooks
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradient_values_add_up_on_average():
    model = _model("mlp")
    with torch.no_grad():
        value, mean = (float(model(torch.from_numpy(part)).mean()) for part in (IMAGES[:1], BACKGROUND))
    found = shap_values(model, IMAGES[:1], BACKGROUND, draws=3000, seed=0).sum()
    assert found == pytest.approx(value - mean, abs=0.1 * abs(value - mean) + 0.02)


@pytest.mark.parametrize("name", ["linear", "mlp", "fc"])
def test_deep_explainer_adds_up_where_it_is_exact(name):
    model = _model(name)
    found = shap_values(model, IMAGES, BACKGROUND, kind="deep")
    with torch.no_grad():
        difference = model(torch.from_numpy(IMAGES))[:, 0] - model(torch.from_numpy(BACKGROUND)).mean()
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), difference, rtol=0.02, atol=1e-4)


def test_deep_explainer_of_a_linear_model_is_slope_times_difference():
    model = _model("linear")
    found = shap_values(model, IMAGES, BACKGROUND, kind="deep")
    x = torch.from_numpy(IMAGES).requires_grad_(True)
    (slope,) = torch.autograd.grad(model(x).sum(), x)
    expected = slope.numpy() * (IMAGES - BACKGROUND.mean(axis=0))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["conv", "resnet18"])
def test_deep_explainer_is_refused_where_it_is_not_exact_and_leaves_no_trace(name):
    model = _model(name)
    with torch.no_grad():
        before = model(torch.from_numpy(IMAGES))
    with pytest.raises(InputError, match=r"not exact for this network.*--method shap"):
        shap_values(model, IMAGES, BACKGROUND, kind="deep")
    x = torch.from_numpy(IMAGES).requires_grad_(True)
    torch.testing.assert_close(model(x), before)
    assert torch.isfinite(torch.autograd.grad(model(x).sum(), x)[0]).all()


def test_of_a_map_the_chosen_pixel_is_explained():
    model = Model.blank(registry.create("fieldnet", (2, 12, 12), 1, {"width": 4, "dilations": [1]}, seed=3)).eval()
    images = RNG.normal(size=(2, 2, 12, 12)).astype(np.float32)
    background = np.zeros((1, 2, 12, 12), np.float32)
    places = np.array([[2, 3], [9, 8]])
    found = shap_values(model, images, background, places=places, draws=40)
    y, x = np.mgrid[:12, :12]
    for own, place in zip(found, places, strict=True):
        far = np.hypot(y - place[0], x - place[1]) > 9
        assert np.abs(own[:, far]).max() == 0
        assert np.abs(own).max() > 0


@pytest.mark.parametrize("kind", ["gradient", "deep"])
@pytest.mark.parametrize("name", ["voltage_attention", "fieldnet"])
def test_a_map_that_is_divided_by_its_own_maximum_has_none(name, kind):
    model = Model.blank(registry.create(name, (2, 12, 12), 1, {"answer": "softmax"}, seed=3)).eval()
    images = RNG.normal(size=(2, 2, 12, 12)).astype(np.float32)
    with pytest.raises(InputError, match=r"no SHAP values: its answer is divided .* --method gradient"):
        shap_values(model, images, images, kind=kind, draws=5)


def test_mistakes_are_named():
    model = _model("mlp")
    for change, word in (
        ({"kind": "tree"}, "unknown kind"), ({"target": 1}, "target 1 does not exist"), ({"draws": 0}, "draws is 0"),
        ({"background": BACKGROUND[:0]}, "background have shape"), ({"images": IMAGES[..., :5]}, "images have shape"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=word):
            shap_values(**{"model": model, "images": IMAGES, "background": BACKGROUND, **change})
