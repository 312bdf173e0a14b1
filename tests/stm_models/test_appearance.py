import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from stm_models.errors import InputError
from stm_models.training.appearance import Appearance
from stm_models.training.novelty import Novelty

SHAPE = (2, 40, 50)


def _images(count, seed, noise=0.1):
    """Three patterns of random strength, and noise."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99).normal(size=(3, *SHAPE))
    mixed = 5 + np.einsum("sk,kchw->schw", rng.normal(size=(count, 3)), patterns)
    return (mixed + noise * rng.normal(size=mixed.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def appearance():
    return Appearance.fit(_images(300, 0))


def _blocks(images):
    """Means of 2 x 2 pixels, the slow way."""
    return images.reshape(len(images), 2, 20, 2, 25, 2).mean(axis=(3, 5), dtype=np.float64).reshape(len(images), -1)


def test_it_is_the_principal_components_of_block_means(appearance):
    known, new = _blocks(_images(300, 0)), _blocks(_images(7, 1))
    centre, scale = known.mean(axis=0), known.std(axis=0)
    pca = PCA(len(appearance.spread), svd_solver="full").fit((known - centre) / scale)
    z = (new - centre) / scale
    expected = pca.transform(z) / np.sqrt(pca.explained_variance_)
    rest = np.sqrt(np.square(z - pca.inverse_transform(pca.transform(z))).mean(axis=1))
    with torch.no_grad():
        found = appearance(torch.from_numpy(_images(7, 1))).numpy()
    np.testing.assert_allclose(np.abs(found[:, :3]), np.abs(expected[:, :3]), rtol=2e-3)  # a direction has no sign
    np.testing.assert_allclose(found[:, -1], rest, rtol=2e-2)  # the weak ones are found at random


def test_novelty_sees_what_features_do_not():
    """Features that are the same for all images: only the looks tell noise from the patterns."""
    appearance = Appearance.fit(_images(300, 0))
    blind = 1 + 1e-3 * torch.randn(300, 1, generator=torch.Generator().manual_seed(0))

    def seen(images):
        x = torch.from_numpy(images)
        return Novelty(1, appearance=appearance).seen(blind[: len(x)], x).detach().numpy()

    novelty, _ = Novelty.fit(seen(_images(300, 0)), appearance).calibrated(
        {"clean": (seen(_images(200, 1)), np.arange(200))}
    )
    strange = (5 + np.random.default_rng(3).normal(size=(50, *SHAPE))).astype(np.float32)

    def chance(images):
        return novelty.p_value(novelty(torch.from_numpy(seen(images)).float())).numpy()

    assert chance(strange).max() < 0.01
    assert np.mean(chance(_images(200, 4)) < 0.05) < 0.1


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 31, 33), (3, 16, 200)])
def test_any_size_has_a_look(shape):
    images = np.random.default_rng(0).random((12, *shape)).astype(np.float32)
    appearance = Appearance.fit(images)
    found = appearance(torch.from_numpy(images[:3]))
    assert found.shape == (3, len(appearance.spread) + 1)
    assert torch.isfinite(found).all()
    assert not list(appearance.parameters())


def test_images_without_differences_are_refused():
    with pytest.raises(InputError, match="all 4 images are equal"):
        Appearance.fit(np.ones((4, 1, 16, 16), np.float32))
    with pytest.raises(InputError, match="NaN"):
        Appearance.fit(np.full((4, 1, 16, 16), np.nan, np.float32))
