import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.training.novelty import Novelty


def _images(count, seed, spread=1.0):
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(42).normal(size=(4, 1, 14, 15))
    images = np.einsum("sp,pcyx->scyx", rng.normal(size=(count, 4)), patterns)
    images += rng.normal(0, 0.2, (count, 1, 14, 15))
    return (0.5 + 1e-3 * spread * images).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return Novelty.fit(_images(300, 0), _images(100, 1), seed=0)


def _distance(novelty, images):
    return novelty(torch.from_numpy(images)).numpy()


def test_in_distribution_is_about_one(fitted):
    novelty, quantiles = fitted
    held_out, fresh = _distance(novelty, _images(100, 1)), _distance(novelty, _images(200, 2))
    assert np.median(held_out) == pytest.approx(1, abs=1e-5)
    assert np.median(fresh) == pytest.approx(1, abs=0.1)
    assert list(quantiles) == ["0.5", "0.95", "0.99", "1.0"]
    for name, value in quantiles.items():
        assert value == pytest.approx(np.quantile(held_out, float(name)), rel=1e-5)


def test_against_its_formula(fitted):
    novelty, _ = fitted
    train, held, new = (_images(n, s).astype(np.float64) for n, s in ((300, 0), (100, 1), (20, 3)))
    mean, scale = train.mean(axis=0), train.std(axis=0)

    def flat(images):
        return ((images - mean) / scale).reshape(len(images), -1)

    _, s, v = np.linalg.svd(flat(train), full_matrices=False)
    v, variance = v[:4], s[:4] ** 2 / 299

    def parts(z, vectors):
        t = z @ vectors.T
        return t, np.square(z - t @ vectors).sum(axis=1)

    # Only the four true patterns are well defined one by one; the rest enters through what the object keeps.
    t, _ = parts(flat(new), v)
    kept = novelty.components.numpy().astype(np.float64).T
    own, outside = parts(flat(new), kept)
    _, held_outside = parts(flat(held), kept)
    np.testing.assert_allclose(np.square(own[:, :4]) / novelty.variances.numpy()[:4], t**2 / variance, rtol=0.02)
    inside = (own**2 / novelty.variances.numpy()).mean(axis=1)
    expected = np.sqrt(inside + outside / held_outside.mean()) / novelty.unit.item()
    np.testing.assert_allclose(_distance(novelty, _images(20, 3)), expected, rtol=1e-3)


@pytest.mark.parametrize(
    "far",
    [np.zeros((1, 1, 14, 15)), np.full((1, 1, 14, 15), 1.0), np.random.default_rng(5).random((1, 1, 14, 15))],
)
def test_far_images_are_far(fitted, far):
    novelty, quantiles = fitted
    assert _distance(novelty, far.astype(np.float32)) > 20 * quantiles["1.0"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grows_with_displacement(fitted, seed):
    novelty, _ = fitted
    direction = np.random.default_rng(seed).normal(size=(1, 14, 15))
    steps = 1e-3 * np.array([0, 0.3, 1, 3, 10, 100, 1e4, 1e6])
    images = (novelty.pixel_mean.numpy() + steps[:, None, None, None] * direction).astype(np.float32)
    distance = _distance(novelty, images)
    assert np.isfinite(distance).all()
    assert (np.diff(distance) > 0).all()
    assert distance[-1] / distance[-3] == pytest.approx(1e4, rel=0.01)


def test_a_pixel_that_never_varied_cannot_overflow():
    train, held = _images(50, 0), _images(20, 1)
    train[:, 0, 3, 3] = held[:, 0, 3, 3] = 1.0
    novelty, _ = Novelty.fit(train, held)
    far = held[:1] + np.float32(1e6 * 1e-3)
    assert np.isfinite(_distance(novelty, far)).all()


def test_unit_of_the_images_does_not_matter():
    first, _ = Novelty.fit(_images(100, 0), _images(40, 1))
    second, _ = Novelty.fit(1e-4 * _images(100, 0), 1e-4 * _images(40, 1))
    np.testing.assert_allclose(_distance(first, _images(10, 2)), _distance(second, 1e-4 * _images(10, 2)), rtol=0.02)


def test_exports_with_a_dynamic_batch(fitted):
    novelty, _ = fitted
    example = torch.from_numpy(_images(3, 0))
    program = torch.export.export(novelty, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.from_numpy(_images(6, 4))
    torch.testing.assert_close(program.module()(x), novelty(x))
    assert not list(novelty.parameters())


def test_mistakes_are_named():
    with pytest.raises(InputError, match="expected at least one"):
        Novelty.fit(_images(10, 0), _images(10, 1)[..., :4])
    with pytest.raises(InputError, match="expected at least one"):
        Novelty.fit(_images(10, 0), _images(10, 1)[:0])
    with pytest.raises(InputError, match="NaN"):
        Novelty.fit(_images(10, 0), _images(10, 1) * np.nan)
    with pytest.raises(InputError, match="too few"):
        Novelty.fit(_images(1, 0), _images(10, 1))
