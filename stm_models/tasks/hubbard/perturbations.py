"""The perturbation sets of the hubbard task: the paper's four on the image, and an instrument's on the map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.physics.instrument import Instrument, measure
from stm_models.tasks.hubbard.imaging import ATOM_WIDTH, PIXEL, Imaging
from stm_models.tasks.hubbard.quick_instrument import QuickInstrument, Spectrum, Transform
from stm_models.tasks.hubbard.structure import GEOMETRY, ImagedAtoms, imaged_atoms
from stm_models.tasks.perturbation import CLEAN, Perturbation, Remake, Step

__all__ = ["SETS", "Imaging", "instrument", "observed"]

Array = NDArray[Any]


def observed(attributes: Mapping[str, Any], noise: Instrument | None) -> Remake:
    """Return what makes a sample's image anew from its ``ldos``, by way of a real-space map.

    Parameters
    ----------
    attributes : mapping
        Of the data set: ``input`` and ``config``.
    noise : Instrument or None
        What happens to the map; ``None``: nothing, for comparison.
    """
    imaging = Imaging.of(attributes["input"])
    scanned = imaging.scanned
    field = _fields(attributes)

    def remake(
        coordinates: Mapping[str, Any], arrays: Mapping[str, Array], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        maps = imaging.maps(field(*_place(coordinates)), arrays["ldos"])
        if noise is not None:
            maps = measure(maps, imaging.pixel_nm, noise, rng, where=scanned)
        return imaging.images(maps)

    return remake


def instrument(attributes: Mapping[str, Any]) -> Remake:
    """See `observed`: with the noise that was measured on real files."""
    return observed(attributes, Instrument())


_LIFE = 4  # copies of the data set that share the stored noises: few enough that no network learns these by heart
_KEPT = 2**30  # bytes of transforms, which a training asks for again and again: 180 MB of them for preset quick


def quick_instrument(attributes: Mapping[str, Any]) -> Remake:
    """Return what draws images by `QuickInstrument`, the example being any other sample."""
    imaging, example = Imaging.of(attributes["input"]), _everywhere(attributes["example"]["ldos"])
    transform = Transform(imaging)
    field = _fields(attributes)

    @lru_cache(maxsize=4)
    def noises(place: tuple[float, ...], life: int) -> QuickInstrument:
        rng = np.random.default_rng(life)
        return QuickInstrument(transform, imaging.maps(field(*place), example)[0], Instrument(), rng)

    known: dict[tuple[tuple[float, ...], bytes], list[Spectrum]] = {}

    def spectra(place: tuple[float, ...], ldos: Array) -> list[Spectrum]:
        key = (place, ldos.tobytes())
        if key in known:
            return known[key]
        found = [transform.spectrum(one) for one in imaging.maps(field(*place), ldos)]
        # Every copy asks for all in the same order: what made room for another would be gone before it is asked for.
        if (len(known) + 1) * sum(one.upper.nbytes for one in found) <= _KEPT:
            known[key] = found
        return found

    def remake(
        coordinates: Mapping[str, Any], arrays: Mapping[str, Array], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        place, ldos = _place(coordinates), np.atleast_2d(np.asarray(arrays["ldos"], np.float64))
        stored = noises(place, int(coordinates["copy"]) // _LIFE)
        return stored.draw(spectra(place, ldos), rng)

    return remake


_MISTAKEN = 0.7  # of the images in `mixed_width`
_TAKEN = (0.0, 1.5)  # for how wide atoms are taken, of how wide they are


def another_width(attributes: Mapping[str, Any]) -> Remake:
    """Images of maps whose atoms are taken for narrower or wider ones than they are.

    Such an image was divided by another form factor than its atoms have (`stm_models.signal.finite_atoms`), 0 standing
    for a map that was not divided at all.
    """
    grid = Imaging.of(attributes["input"]).grid
    across, along = ((ATOM_WIDTH * k) ** 2 / 2 for k in (grid.kx, grid.ky))

    def remake(
        coordinates: Mapping[str, Any], arrays: Mapping[str, Array], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        raised = rng.uniform(*_TAKEN) ** 2 - 1
        factor = np.exp(raised * along)[:, None] * np.exp(raised * across)
        return np.asarray(arrays["image"] * factor.astype(np.float32), np.float32)

    return remake


def _sometimes_another_width(one: Perturbation) -> Perturbation:
    """Return a set most of whose images are then as `another_width` has them, before the steps."""

    def made(attributes: Mapping[str, Any]) -> Remake:
        remade = None if one.remake is None else one.remake(attributes)
        widened = another_width(attributes)

        def remake(
            coordinates: Mapping[str, Any], arrays: Mapping[str, Array], rng: np.random.Generator
        ) -> NDArray[np.float32]:
            image = np.asarray(arrays["image"], np.float32) if remade is None else remade(coordinates, arrays, rng)
            return widened(coordinates, {"image": image}, rng) if rng.random() < _MISTAKEN else image

        return remake

    return replace(one, remake=made)


def _everywhere(ldos: Array) -> NDArray[np.float64]:
    """Return the LDOS (1, sites) at the first energy; its mean at the sites that larger structures have."""
    first = np.atleast_2d(np.asarray(ldos, np.float64))[:1]
    known = first > 0
    return np.where(known, first, first[known].mean() if known.any() else 1.0)


_SEEN = tuple(name for name in GEOMETRY if name != "layer_distance")  # from above: where atoms lie in the plane
_ANY_DISTANCE = {"layer_distance": 3.35}


def _fields(attributes: Mapping[str, Any]) -> Callable[..., ImagedAtoms]:
    def atoms(*place: float) -> ImagedAtoms:
        return imaged_atoms(attributes, {**dict(zip(_SEEN, place, strict=True)), **_ANY_DISTANCE})

    return lru_cache(maxsize=4)(atoms)


def _place(coordinates: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(float(coordinates[name]) for name in _SEEN)


_WIDTHS = {"atom_width_a": ATOM_WIDTH, "taken_width": _TAKEN}
_MILD = Perturbation(
    "mild",
    "small changes of scale, noise and scan lines (arXiv 2602.18890, on |F|/|F(0)| instead of its grey values)",
    (
        Step("gain_shift", 0.3, {"gain": (0.98, 1.02), "shift": (-0.01, 0.01)}),
        Step("gaussian", 0.3, {"sigma": (0.001, 0.005)}),
        Step("scan_line", 0.2, {"sigma": (0.005, 0.01)}),
    ),
)
_SYMB = Perturbation(
    "symb",
    "strain that breaks the symmetry, and noise (arXiv 2602.18890, on |F|/|F(0)| instead of its grey values)",
    (
        Step("strain", 0.8, {"strain": (0.01, 0.03)}),
        Step("gaussian", 0.3, {"sigma": (0.001, 0.005)}),
    ),
)
_NOISY = Perturbation(
    "noisy",
    "stronger noise, scan lines and a blunt tip (arXiv 2602.18890, on |F|/|F(0)| instead of its grey values)",
    (
        Step("gaussian", 0.3, {"sigma": (0.004, 0.012)}),
        Step("scan_line", 0.3, {"sigma": (0.006, 0.015)}),
        Step("tip_blur", 0.25, {"sigma": (0.5, 0.9), "ratio": (1.0, 1.15)}),
        Step("gain_shift", 0.3, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}),
    ),
)
_INSTRUMENT = Perturbation(
    "instrument",
    "a real-space map with an instrument's correlated, multiplicative noise, transformed as a real one is",
    remake=instrument,
    needs=("ldos",),
    about={"instrument": asdict(Instrument()), "atom_width_a": ATOM_WIDTH, "pixel_nm": PIXEL},
)

_TOGETHER = Perturbation(
    "together",
    "what the other sets do to an image, together",
    (
        Step("strain", 0.3, {"strain": (0.0, 0.03)}),
        Step("tip_blur", 0.15, {"sigma": (0.5, 0.9), "ratio": (1.0, 1.15)}),
        Step("gain_shift", 0.3, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}),
        Step("gaussian", 0.35, {"sigma": (0.0005, 0.012)}),
        Step("scan_line", 0.25, {"sigma": (0.002, 0.015)}),
    ),
)
_QUICK_INSTRUMENT = Perturbation(
    "quick_instrument",
    "an instrument's noise, drawn from stored spectra; a third as often as in `together`, what that does too",
    tuple(replace(step, probability=step.probability / 3) for step in _TOGETHER.steps),
    remake=quick_instrument,
    needs=("ldos",),
    about={"instrument": asdict(Instrument())},
)
_MIXED = Perturbation(
    "mixed",
    "to train on: images of the other sets, and what these do together",
    among=(
        (0.05, CLEAN),
        (0.10, _MILD),
        (0.15, _SYMB),
        (0.30, _NOISY),
        (0.30, _QUICK_INSTRUMENT),
        (0.10, _TOGETHER),
    ),
    needs=_QUICK_INSTRUMENT.needs,
    judged=False,
)

SETS = (
    CLEAN,
    _MILD,
    _SYMB,
    _NOISY,
    _INSTRUMENT,
    _MIXED,
    replace(
        _MIXED,
        name="mixed_width",
        description="to train on for maps whose atoms are of unknown width: `mixed`, the width taken for another",
        among=tuple((share, _sometimes_another_width(one)) for share, one in _MIXED.among),
        about={**_WIDTHS, "mistaken_share": _MISTAKEN},
        claims=("atom_width",),
    ),
    Perturbation(
        "atom_width",
        "the image of a map whose atoms were taken for narrower or wider ones than they are",
        remake=another_width,
        about=_WIDTHS,
        judged=False,
    ),
)
