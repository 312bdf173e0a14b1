"""From what a data set records back to its atoms: which structure a row is of, and where its LDOS values lie.

A stored row of ``ldos`` (energy, site) has one value per site of the moiré cell, zero beyond ``sites``::

    atoms = imaged_atoms(attributes, parameters)
    density = ldos[energy, atoms.copies]
    picture = image(*atoms.positions.T, density * atoms.weights, grid)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.physics.moire.lattice import Lattice, build, patch
from stm_models.tasks.hubbard.config import HubbardSimulation, field_radius

__all__ = [
    "GEOMETRY",
    "ImagedAtoms",
    "disc_radius",
    "imaged_atoms",
    "lattice_peaks",
    "moire_vectors",
    "same_field",
    "structure",
]

GEOMETRY = ("index", "layer_distance", "strain", "strain_angle")
"""The parameters that say which structure a state is of."""

About = HubbardSimulation | Mapping[str, Any]


@dataclass(frozen=True)
class ImagedAtoms:
    """The atoms of the imaged disc, copies of the cell's sites.

    Attributes
    ----------
    positions : (M, 2) float64, a
        About the middle of an AA region.
    copies : (M,) int64
        Which of the cell's sites (of a row of ``ldos``) each atom is a copy of.
    envelope : (M,) float64
        Gaussian envelope of the transform.
    layer_weight : (M,) float64
        What the tip sees of each atom: 1 above, ``bottom_layer`` below.
    radius : float, a
        Of the disc.
    """

    positions: NDArray[np.float64]
    copies: NDArray[np.int64]
    envelope: NDArray[np.float64]
    layer_weight: NDArray[np.float64]
    radius: float

    @property
    def weights(self) -> NDArray[np.float64]:
        """Factor on each atom's LDOS in the image's Fourier sum, (M,) float64."""
        return self.envelope * self.layer_weight


def structure(parameters: Mapping[str, Any]) -> Lattice:
    """Build the structure of a state.

    Parameters
    ----------
    parameters : mapping
        With ``index``, ``layer_distance`` (Å), ``strain`` and ``strain_angle`` (degrees), e.g. one row of a data
        set's coordinates; whatever else it holds does not matter.

    Raises
    ------
    InputError
        When one of them is missing.
    """
    missing = [name for name in GEOMETRY if name not in parameters]
    if missing:
        raise InputError(
            f"the structure is not known: {', '.join(missing)} missing; simulate the data set with this version"
        )
    index, distance, strain, angle = (float(parameters[name]) for name in GEOMETRY)
    return _build(round(index), distance, strain, angle)


def disc_radius(about: About) -> float:
    """Radius (a) of the imaged disc: one field of view for the whole data set, set by its largest unstrained cell.

    Parameters
    ----------
    about : HubbardSimulation or mapping
        The config, or a data set's attributes.
    """
    config = _config(about)
    return field_radius(config.index, config.patch_radius)


def same_field(config: HubbardSimulation, **changes: Any) -> HubbardSimulation:
    """Return the config of another structure that is seen in the field of view of ``config``.

    Raises
    ------
    InputError
        For values that no structure has.
    """
    index = np.atleast_1d(changes.get("index", config.index)).tolist()
    radius = config.patch_radius * disc_radius(config) / field_radius(index, config.patch_radius)
    values = {**config.model_dump(), **changes, "patch_radius": radius}
    return validate(HubbardSimulation, values, "the other structure")


def imaged_atoms(about: About, parameters: Mapping[str, Any]) -> ImagedAtoms:
    """List the atoms of the imaged disc of a state, with their weights in the image.

    Parameters
    ----------
    about : HubbardSimulation or mapping
        The config, or a data set's attributes.
    parameters : mapping
        See `structure`.

    Raises
    ------
    InputError
        As `structure`.
    """
    config, lattice = _config(about), structure(parameters)
    radius = disc_radius(config)
    positions, copies = patch(lattice, radius)
    return ImagedAtoms(
        positions,
        copies,
        np.exp(-(positions**2).sum(axis=1) / (2 * (config.envelope * radius) ** 2)),
        np.where(lattice.layer[copies] == 0, config.bottom_layer, 1.0),
        radius,
    )


def moire_vectors(config: HubbardSimulation) -> list[list[float]] | None:
    """Return the moiré lattice's reciprocal vectors (x and y, 1/a) where all structures have the same, else None."""
    ranges = (config.strain, config.strain_angle)
    if len(config.index) > 1 or any(low != high for low, high in ranges):
        return None
    lattice = _build(config.index[0], config.layer_distance[0], config.strain[0], config.strain_angle[0])
    return [[float(part) for part in vector] for vector in lattice.reciprocal]


def lattice_peaks(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Say where the peaks of a data set's images lie and how wide they are, all in 1/a; nothing where they differ.

    Returns
    -------
    dict
        ``vectors`` (the moiré lattice's reciprocal vectors, x and y), ``pixel`` (x, y), ``peak`` (standard
        deviation: one over that of the envelope in real space) and ``symmetric`` (the lattice, every start and the two
        layers' weights have D6).
    """
    spec = attributes["input"]
    if "config" not in attributes or any(spec.get(name) is None for name in ("kx_max", "ky_max", "envelope", "radius")):
        return {}
    config = _config(attributes)
    vectors = moire_vectors(config)
    if vectors is None:
        return {}
    pixels = ((spec["kx_max"], spec["width"]), (spec["ky_max"], spec["height"]))
    return {
        "vectors": vectors,
        "pixel": [2 * limit / (count - 1) for limit, count in pixels],
        "peak": 1 / (spec["envelope"] * spec["radius"]),
        "symmetric": config.strain[0] == 0 and config.bottom_layer == 1 and not config.breaks_symmetry,
    }


@lru_cache(maxsize=4)
def _build(index: int, distance: float, strain: float, angle: float) -> Lattice:
    return build(index, distance, strain, angle)


def _config(about: About) -> HubbardSimulation:
    if isinstance(about, HubbardSimulation):
        return about
    if "config" not in about:
        raise InputError("the data set does not say how it was simulated: expected its attribute 'config'")
    return validate(HubbardSimulation, about["config"], "the data set's config")
