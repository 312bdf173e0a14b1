"""Data that a small network learns in a moment."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(1, 5, 4))
    strength = rng.uniform(0, 6, 60)
    images = (strength[:, None, None, None] * pattern + rng.normal(0, 0.3, (60, 1, 5, 4))).astype(np.float32)
    return images[:44], strength[:44, None], images[44:], strength[44:, None]


@pytest.fixture(scope="module")
def linear():
    """Images whose target is a linear function of them, in units far from 1."""
    rng = np.random.default_rng(0)
    pattern = rng.normal(size=(1, 10, 9))
    strength = rng.uniform(0, 6, 300)
    noise = rng.normal(0, 0.3, (300, 1, 10, 9))
    images = (1e-3 * (50 + strength[:, None, None, None] * pattern + noise)).astype(np.float32)
    return images[:200], strength[:200, None], images[200:], strength[200:, None]
