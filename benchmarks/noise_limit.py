"""How well U can be told from an FT-LDOS image with pixel noise at all: a bound, whatever the network.

The images of a data set are a smooth function of U, filling, bias and broadening: a polynomial of third degree in
each pixel. Its derivatives J and white noise of standard deviation s give the Fisher information J'J / s^2; with
that of what is known beforehand (each parameter is uniform over the data set's range) the inverse bounds the mean
square error (Bayesian Cramér-Rao bound, H. L. van Trees 1968, taken locally at every image and averaged).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data.dataset import load
from stm_models.tasks.hubbard.perturbations import SETS
from stm_models.tasks.perturbation import find

SIGMAS = (0.004, 0.008, 0.012)
NAMES = ("U", "filling", "bias", "broadening")
DEGREE, STEP = 3, 1e-3
Array = NDArray[np.float64]


def polynomial(parameters: Array) -> Array:
    """Return every monomial up to the third degree of parameters (S, P): (S, monomials)."""
    columns = [
        c for degree in range(DEGREE + 1) for c in combinations_with_replacement(range(parameters.shape[1]), degree)
    ]
    return np.stack([np.prod(parameters[:, list(c)], axis=1) for c in columns], axis=1)


def squared_errors(parameters: Array, images: Array, sigma: float, at: NDArray[np.int64]) -> Array:
    """Bound the mean square error of the first of the parameters (S, P) at some of the images (S, pixels).

    Parameters lie in [-1, 1], where they are uniform; ``sigma`` is the noise of a pixel.
    """
    coefficients = np.linalg.lstsq(polynomial(parameters), images, rcond=None)[0]
    places, steps = parameters[at], STEP * np.eye(parameters.shape[1])
    changes = [polynomial(places + step) - polynomial(places - step) for step in steps]
    derivatives = np.stack([change @ coefficients / (2 * STEP) for change in changes], axis=2)
    information = derivatives.transpose(0, 2, 1) @ derivatives / sigma**2 + 3 * np.eye(len(steps))
    found: Array = np.linalg.inv(information)[:, 0, 0]
    return found


def main() -> dict[str, Any]:
    """Print the bounds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", required=True, metavar="DATA.zarr", help="a data set of task hubbard, e.g. preset quick"
    )
    parser.add_argument("--images", type=int, default=60, help="images at which the bound is taken")
    args = parser.parse_args()
    samples = load(args.data)
    values = np.stack([samples.coordinates[name] for name in NAMES], axis=1).astype(np.float64)
    middle, half = (values.max(0) + values.min(0)) / 2, np.ptp(values, axis=0) / 2
    varied = half > 0
    parameters = (values - middle)[:, varied] / half[varied]
    images = samples.images.reshape(len(samples), -1).astype(np.float64)
    coarse = np.linspace(0, len(images) - 1, args.images).astype(int)

    def bound(sigma: float) -> float:
        return float(np.mean(squared_errors(parameters, images, sigma, coarse))) * float(half[0]) ** 2

    noise = next(step for step in find(SETS, "noisy").steps if step.kind == "gaussian")
    mean = noise.probability * np.mean([bound(sigma) for sigma in np.linspace(*noise.ranges["sigma"], 5)])
    result = {
        "rmse_ev": {str(sigma): round(bound(sigma) ** 0.5, 3) for sigma in SIGMAS},
        "r2_of_noisy_at_most": round(1 - float(mean) / (float(half[0]) ** 2 / 3), 4),
        "images": len(coarse), "digest": samples.attributes["digest"],
    }  # fmt: skip
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
