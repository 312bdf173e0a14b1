"""Parts of an FT-LDOS image: the peaks about k = 0, and those about the Bragg vectors of graphene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.tasks.hubbard.pictures import marks

__all__ = ["BRAGG", "CENTRE", "regions"]

CENTRE, BRAGG = "central moiré peaks", "Bragg peaks"


def regions(
    attributes: Mapping[str, Any], row: Mapping[str, float], shape: tuple[int, int]
) -> dict[str, NDArray[np.bool_]]:
    """Return discs about the peaks of one image, (H, W) bool by name; nothing where its structure is not known.

    A disc reaches half way to the next peak. `CENTRE` is k = 0 with the first moiré vectors, `BRAGG` the Bragg
    vectors of both layers with the first moiré vectors about each: the satellites. What is nearer to the centre
    counts as central.

    Parameters
    ----------
    attributes, row : mapping
        A data set's attributes, and the coordinates of the sample.
    shape : (height, width)
    """
    known = list(marks(attributes, row).values())
    spec = attributes.get("input", {})
    if not known or spec.get("kx_max") is None:
        return {}
    moire, graphene = known
    kx = np.linspace(-spec["kx_max"], spec["kx_max"], shape[1])
    ky = np.linspace(-spec["ky_max"], spec["ky_max"], shape[0])
    radius = np.linalg.norm(moire, axis=1).min() / 2
    step = np.concatenate([np.zeros((1, 2)), moire])
    centre = _near(kx, ky, step, radius)
    bragg = _near(kx, ky, (graphene[:, None] + step).reshape(-1, 2), radius)
    return {CENTRE: centre, BRAGG: bragg & ~centre}


def _near(
    kx: NDArray[np.float64], ky: NDArray[np.float64], points: NDArray[np.float64], radius: float
) -> NDArray[np.bool_]:
    found = np.zeros((len(ky), len(kx)), bool)
    for x, y in points:
        found |= (kx - x) ** 2 + (ky[:, None] - y) ** 2 < radius**2
    return found
