import numpy as np
import pytest
import torch
from PIL import Image

from stm_models.errors import InputError
from stm_models.explain.gradient import slope
from stm_models.explain.render import overlay_png
from stm_models.networks import registry
from stm_models.networks.model import Model
from support import network_cases as cases

create = cases.create

SHAPE = (1, 16, 17)


def _model(name="mlp", outputs=2):
    rng = np.random.default_rng(0)
    network = create(name, SHAPE, outputs, seed=3)
    return Model.for_data(network, rng.normal(size=(9, *SHAPE)).astype(np.float32), rng.normal(size=(9, outputs)))


def gradient(model, images, target=0):
    return slope(model, torch.from_numpy(images), target=target).numpy()


@pytest.mark.parametrize("name", [name for name in registry.names() if not cases.answers_with_map(name)])
@pytest.mark.parametrize("target", [0, 1])
def test_against_finite_differences(name, target):
    model = _model(name).double().eval()
    images = np.random.default_rng(1).normal(size=(2, *SHAPE))
    slopes = gradient(model, images, target)
    assert slopes.shape == images.shape
    step = 1e-5
    for y, x in [(0, 0), (5, 7), (11, 3), (15, 16)]:
        moved = np.stack([images, images])
        moved[0, :, 0, y, x] += step
        moved[1, :, 0, y, x] -= step
        with torch.no_grad():
            up, down = (model(torch.from_numpy(part))[:, target].numpy() for part in moved)
        expected = (up - down) / (2 * step)
        np.testing.assert_allclose(slopes[:, 0, y, x], expected, rtol=1e-4, atol=1e-6 * np.abs(slopes).max())


@pytest.mark.parametrize("name", [name for name in registry.names() if cases.answers_with_map(name)])
@pytest.mark.parametrize("answer", ["sigmoid", "softmax"])
def test_of_a_map_the_strongest_pixel_is_explained(name, answer):
    model = Model.blank(registry.create(name, (3, 16, 17), 1, {"answer": answer}, seed=3)).double().eval()
    images = np.random.default_rng(1).normal(size=(1, 3, 16, 17))
    slopes = gradient(model, images)

    def score(image):
        with torch.no_grad():
            logits = model.network(torch.from_numpy(image)).flatten(1)
        chance = torch.sigmoid(logits) if answer == "sigmoid" else torch.log_softmax(logits, dim=1)
        return float(chance.max())

    step = 1e-5
    pixel = np.unravel_index(np.abs(slopes).argmax(), slopes.shape)
    moved = np.zeros_like(images)
    moved[pixel] = step
    expected = (score(images + moved) - score(images - moved)) / (2 * step)
    assert slopes[pixel] == pytest.approx(expected, rel=1e-4)


def test_each_image_has_its_own_and_the_weights_keep_none():
    model = _model().eval()
    images = np.random.default_rng(2).normal(size=(7, *SHAPE)).astype(np.float32)
    whole = gradient(model, images)
    assert all(parameter.grad is None for parameter in model.parameters())
    np.testing.assert_allclose(whole[5:6], gradient(model, images[5:6]), rtol=1e-4, atol=1e-6)
    assert not np.allclose(whole[0], whole[1])


def test_works_inside_no_grad_and_with_frozen_weights():
    model = _model().eval().requires_grad_(False)
    images = np.random.default_rng(2).normal(size=(2, *SHAPE)).astype(np.float32)
    with torch.no_grad():
        assert np.abs(gradient(model, images)).max() > 0


def _draw(path, image, values):
    overlay_png(path, image, values, extent=(-7, 7, -8, 8), labels=("kx (1/a)", "ky (1/a)"), title="t", unit="eV")
    return np.asarray(Image.open(path).convert("RGB"), dtype=float)


def _inside(picture):
    """Red minus blue in the middle of the axes' left and right half."""
    height, width = picture.shape[:2]
    rows = slice(height // 3, 2 * height // 3)
    tint = picture[rows, :, 0] - picture[rows, :, 2]
    return tint[:, int(0.15 * width) : int(0.3 * width)].mean(), tint[:, int(0.45 * width) : int(0.6 * width)].mean()


def test_overlay_shows_the_sign_symmetrically(tmp_path):
    image = np.full((20, 30), 0.5)
    image[0, 0] = 0.4
    values = np.ones((20, 30))
    values[:, :15] = -0.5
    left, right = _inside(_draw(tmp_path / "a.png", image, values))
    assert right > 50
    assert left < -50
    left, right = _inside(_draw(tmp_path / "b.png", image, -values))
    assert left > 50
    assert right < -50
    assert not any(name.name.startswith(".") for name in tmp_path.iterdir())


@pytest.mark.parametrize(
    "image",
    [np.ones((8, 9)), np.zeros((8, 9)), np.full((8, 9), np.nan), np.logspace(-5, 0, 72).reshape(8, 9)],
)
def test_overlay_of_difficult_images(tmp_path, image, recwarn):
    values = np.zeros((8, 9))
    values[0, 0] = np.nan
    picture = _draw(tmp_path / "a.png", image, values)
    assert picture.std() > 0
    assert not [w for w in recwarn if "stm_models" in str(w.filename)]


def test_overlay_is_the_same_each_time_and_without_pyplot(tmp_path):
    image, values = np.random.default_rng(0).random((2, 8, 9))
    _draw(tmp_path / "a.png", image, values)
    _draw(tmp_path / "b.png", image, values)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_overlay_refuses_other_shapes(tmp_path):
    with pytest.raises(InputError, match="differ"):
        _draw(tmp_path / "a.png", np.zeros((8, 9)), np.zeros((9, 8)))
    assert not list(tmp_path.iterdir())
