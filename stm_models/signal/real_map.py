"""From a real-space map to the FT-LDOS image that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from stm_models.errors import InputError
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid, image, raster_image
from stm_models.signal.field import NM, Field, turn
from stm_models.signal.finite_atoms import FiniteAtoms
from stm_models.signal.moire_middle import about_aa
from stm_models.signal.spikes import despike
from stm_models.tasks.inputs import RawMap

__all__ = ["at_energies", "to_ft_image", "to_ft_images"]

Array = NDArray[Any]

_SMALLEST = 8
_ACROSS = 4  # pixels
_MOST = 1e4  # times that an image may be magnified at its corners
_BOND = 1.0
_NO_MOIRE = (
    "The map does not show the model's moiré lattice, so its disc is about the field's middle; in the simulation that "
    "is an AA region."
)
_TAIL = 4.0  # standard deviations, beyond which nothing of an atom is left


def to_ft_images(
    raw: RawMap,
    grid: KGrid,
    *,
    energies: Sequence[float],
    tolerance: float,
    envelope: float = 0.4,
    radius: float | None = None,
    atom_width: float = 0.0,
    moire: Sequence[Sequence[float]] | None = None,
) -> tuple[Array, Array, tuple[str, ...]]:
    """Transform a stack of maps to one image per energy that the model looks at.

    Parameters
    ----------
    raw : RawMap
        See `at_energies` and `to_ft_image`.
    grid, envelope, radius, atom_width
        See `to_ft_image`.
    energies, tolerance
        See `at_energies`.
    moire : (2, 2), 1/a, optional
        Reciprocal vectors of the moiré lattice, in an AA region of which the model's discs have their middle: so has
        the map's, where it shows one, see `about_aa`.

    Returns
    -------
    images : (energies, n, n) float32
    known : (n, n) bool
    notes : tuple of str

    Raises
    ------
    InputError
        As `at_energies` and `to_ft_image`.
    """
    raw, notes = at_energies(raw, energies, tolerance)
    middle, more = _middle(raw, moire, envelope, radius)
    images, known, found = [], np.ones((grid.n, grid.n), bool), [*notes, *more]
    for number in range(len(raw.values)):
        one = raw
        if len(energies) > 1:
            of = slice(number, number + 1)
            bias = None if raw.bias is None else raw.bias[of]
            where = "" if bias is None else f" at {bias[0]:g} V"
            one = replace(raw, values=raw.values[of], bias=bias, source=f"{raw.source}{where}")
        image_, known, more = to_ft_image(
            one, grid, envelope=envelope, radius=radius, atom_width=atom_width, middle=middle
        )
        images.append(image_)
        found += more
    return np.stack(images), known, tuple(dict.fromkeys(found))


def at_energies(raw: RawMap, energies: Sequence[float], tolerance: float) -> tuple[RawMap, tuple[str, ...]]:
    """Pick the channel nearest to each energy: a sample bias of V volts looks at V electron volts.

    A model of a single energy takes a single map as it is; where its bias is known and is not the model's
    energy, a note says so.

    Parameters
    ----------
    raw : RawMap
    energies : sequence of float, eV
        From the Fermi level, ascending: the model's channels.
    tolerance : float, eV
        How far a map's bias may be from the energy.

    Returns
    -------
    raw : RawMap
        One channel per energy, in their order.
    notes : tuple of str

    Raises
    ------
    InputError
        When several energies are wanted and the map does not state its biases, or has none near enough.
    """
    wanted = np.asarray(energies, np.float64)
    if len(wanted) == 1:
        if len(raw.values) == 1 and raw.bias is not None and not abs(raw.bias[0] - wanted[0]) <= tolerance:
            note = f"The map was taken at {raw.bias[0]:g} V, the model looks at {wanted[0]:g} ± {tolerance:g} eV."
            return raw, (note,)
        return raw, ()
    needs = f"the model looks at {len(wanted)} energies, {', '.join(f'{energy:g}' for energy in wanted)} eV"
    if raw.bias is None:
        raise InputError(
            f"{raw.source} does not state its biases, and {needs}: give the whole stack with its bias values, "
            "e.g. an .npz file with data (bias, y, x) and bias (V)"
        )
    nearest = np.abs(raw.bias[:, None] - wanted).argmin(axis=0)
    off = np.abs(raw.bias[nearest] - wanted)
    if off.max() > tolerance * (1 + 1e-9):
        missing = ", ".join(f"{energy:g}" for energy in wanted[off > tolerance * (1 + 1e-9)])
        raise InputError(
            f"{raw.source} has no map within {tolerance:g} V of {missing} V among its {len(raw.bias)} from "
            f"{raw.bias.min():g} to {raw.bias.max():g} V, and {needs}: give a stack that holds them, "
            "without choosing one of its maps"
        )
    taken = ", ".join(f"{bias:g}" for bias in raw.bias[nearest])
    note = f"Maps at {taken} V stand for the model's {len(wanted)} energies (at most {off.max():.2g} eV apart)."
    return replace(raw, values=raw.values[nearest], bias=raw.bias[nearest]), (note,)


def to_ft_image(
    raw: RawMap,
    grid: KGrid,
    *,
    envelope: float = 0.4,
    radius: float | None = None,
    atom_width: float = 0.0,
    middle: tuple[float, float] = (0.0, 0.0),
) -> tuple[Array, Array, tuple[str, ...]]:
    """Transform one map to |F(k)| / F(0) on the model's grid of wave vectors.

    Parameters
    ----------
    raw : RawMap
        One channel: a raster (1, y, x) of known size, or scattered values with their points; turned by ``rotate``.
    grid : KGrid
        The model's window.
    envelope : float
        Standard deviation of the Gaussian envelope as a fraction of the disc's radius.
    radius : float, optional
        Radius in a of the disc that the model was trained on; a larger field is cropped to it.
    atom_width : float
        Standard deviation in a of one atom in a raster. A simulated image is a sum over points: what finite atoms
        take from it at high k is given back, see `FiniteAtoms`. 0, and points: nothing is.
    middle : (x, y), a
        Of the disc, from the field's middle, as scanned.

    Returns
    -------
    image : (n, n) float32
        |F|/|F(0)|, zero where unknown.
    known : (n, n) bool
        False beyond the raster's Nyquist vectors, pi / pixel along each of its axes; all True for points.
    notes : tuple of str
        Short sentences for the reader of a prediction.

    Raises
    ------
    InputError
        For several channels, an unknown size, one below two lattice constants, fewer than 8 x 8 values or a disc of
        fewer than 4 pixels across, values that are not finite, all equal or of no positive sum, an envelope that is
        not positive, or atoms so wide that nothing is left of them at high k.

    Notes
    -----
    As in the simulation, only a disc counts (the largest that fits about its middle, or the model's): a parallelogram
    or square would print its own edges onto the image. Pixel centres become positions in units of a, the first array
    axis running along y.

    The mean stays in. A simulated image is a sum over all LDOS, so it has the envelope's own peak of height
    1 at k = 0. Measured on a fine raster of a triangular lattice of Gaussians: with the mean left in, the
    image of the points is reproduced to 1e-4 (no Gaussian cut by the disc); with it removed that
    peak is lost (error 1) and the rest stays the same. Of a lattice that goes on beyond the disc the atoms at its
    rim are faded out, not counted whole or not at all, which changes an image by at most .001 (I = 5) or .003 (I = 2).
    """
    if len(raw.values) != 1:
        raise InputError(f"{raw.source} has {len(raw.values)} channels; choose one with --bias or --channel")
    if not 0 < envelope < math.inf:
        raise InputError(f"envelope is {envelope:g}; expected a positive fraction of the radius, e.g. 0.4")
    values = _checked(raw.values[0], raw)
    field = Field.of(raw).about(middle)
    pixel, distance, widest = field.pixel, field.distance, field.room
    _check_size(raw, field, radius)
    values, spikes = (values, 0) if pixel is None else despike(values)
    wanted, radius = radius, min(widest, radius or widest)
    if pixel is None and wanted is not None and widest > wanted - _BOND:
        # The farthest atom of the model's own disc lies up to a bond short of its edge.
        widest = radius = wanted
    width = 0.0 if pixel is None else atom_width
    share = _share(distance, radius, width if widest > radius else 0.0)
    inside = share > 0
    signal = values.ravel()[inside]
    atoms = FiniteAtoms.of(grid, envelope * radius, width)
    weights = values.ravel() * np.exp(-(distance**2) / (2 * atoms.envelope**2)) * share
    if not weights.sum() > 0:
        raise InputError(
            f"{raw.source}: the signal sums to {weights.sum():.3g} under the envelope; expected a positive "
            "LDOS, so remove its offset or turn its sign"
        )
    x, y = field.positions.T
    if pixel is None or raw.rotate:
        result = image(x[inside], y[inside], weights[inside], atoms.grid)
    else:
        rows, columns = values.shape
        result = raster_image(x[:columns], y[::columns], weights.reshape(rows, columns), atoms.grid)
    known = _known(atoms.grid, pixel, raw.rotate)
    most = 1 / atoms.divisor.min(where=known, initial=1.0)
    if most > _MOST:
        raise InputError(
            f"atoms of {width / NM:.3g} nm standard deviation leave {1 / most:.1g} of an image at its corners, so that "
            "noise is all there is: give narrower ones (--atom-width in nm, an atom has some 0.05)"
        )
    result = np.divide(result, atoms.divisor, where=known, out=np.zeros_like(result)).astype(np.float32)
    notes = _notes(signal, grid, pixel, known, 1 / (envelope * radius) if wanted is None else math.inf)
    if width:
        notes = (*notes, _atoms_note(width, atoms))
    if spikes:
        notes = (*notes, f"{spikes} single pixels stood out of their neighbours and were replaced by their median.")
    return result, known, (*notes, *_disc_notes(widest, wanted))


def _middle(
    raw: RawMap, moire: Sequence[Sequence[float]] | None, envelope: float, radius: float | None
) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Find the AA region that the disc is to lie about, as scanned; say what was found."""
    if moire is None:
        return (0.0, 0.0), ()
    stack = np.stack([_checked(one, raw) for one in raw.values])
    field = Field.of(raw)
    if field.pixel is not None:
        stack = np.stack([despike(one)[0] for one in stack])
    about = about_aa(field, stack.reshape(len(stack), -1), moire, envelope, radius or field.room)
    if about is None:
        return field.middle, (_NO_MOIRE,)
    if about.middle == field.middle:
        return field.middle, ()
    x, y = (place / NM for place in about.middle)
    return about.middle, (
        f"An AA region lies {x:+.2f} nm along x and {y:+.2f} nm along y (towards the last row) from the field's "
        "middle: the disc is about it, as in the simulation.",
    )


def _checked(values: Array, raw: RawMap) -> Array:
    values = np.asarray(values, np.float64)
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise InputError(f"{raw.source}: {bad} of {values.size} values are NaN or infinite; fill or crop them first")
    small = min(values.shape) < _SMALLEST if raw.points is None else values.size < _SMALLEST**2
    if small:
        what = "x".join(map(str, values.shape)) + " pixels" if raw.points is None else f"{values.size} points"
        raise InputError(f"{raw.source} has {what}; expected at least 8x8, so give a larger map")
    if np.ptp(values) == 0:
        raise InputError(f"{raw.source}: all values equal {values.flat[0]:g}; expected a map with structure")
    return values


def _check_size(raw: RawMap, field: Field, wanted: float | None) -> None:
    """Refuse a field, or pixels, whose size is in another unit than nm."""
    if not min(field.half) > 1:
        height, width = (2 * half / NM for half in field.half)
        unit = "positions in lattice constants" if field.pixel is None else "its size in nm (--size-nm)"
        raise InputError(
            f"{raw.source}: the field is {height:.2g} x {width:.2g} nm, less than two lattice constants: give {unit}"
        )
    if field.pixel is not None and wanted is not None and 2 * wanted < _ACROSS * max(field.pixel):
        height, width = (step / NM for step in field.pixel)
        raise InputError(
            f"{raw.source}: its pixels are {height:.3g} x {width:.3g} nm and the model's disc has a radius of "
            f"{wanted / NM:.3g} nm; expected at least {_ACROSS} pixels across it, so give a finer map, or the "
            "field's true size (--size-nm)"
        )


def _share(distance: Array, radius: float, width: float) -> Array:
    """Weigh pixels by the disc: 1 within, 0 beyond, its edge as soft as atoms are wide, so that they keep shape."""
    if not width:
        return np.where(distance <= radius * (1 + 1e-9), 1.0, 0.0)
    beyond = (distance - radius) / width
    found: Array = np.where(beyond < _TAIL, ndtr(-beyond), 0.0)
    return found


def _known(grid: KGrid, pixel: tuple[float, float] | None, degrees: float) -> Array:
    if pixel is None:
        return np.ones((grid.n, grid.n), bool)
    # Wave vectors of the map as it was scanned.
    kx, ky = np.tensordot(turn(-degrees), np.stack(np.meshgrid(grid.kx, grid.ky)), 1)
    found: Array = (np.abs(kx) <= math.pi / pixel[1]) & (np.abs(ky) <= math.pi / pixel[0])
    return found


def _atoms_note(width: float, atoms: FiniteAtoms) -> str:
    most = 1 / atoms.divisor.min()
    return (
        f"Atoms are taken for Gaussians of {width / NM:.3g} nm standard deviation (--atom-width), so the image is "
        f"divided by their form factor: by up to {most:.3g} at its corners."
    )


def _disc_notes(widest: float, wanted: float | None) -> tuple[str, ...]:
    if wanted is None or abs(widest / wanted - 1) < 0.02:
        return ()
    scale = LATTICE_CONSTANT / 10
    sizes = f"disc of radius {wanted * scale:.3g} nm, the model's"
    if widest > wanted:
        return (f"The field is cropped to a {sizes}.",)
    return (f"The field (radius {widest * scale:.3g} nm) is smaller than the {sizes}: its peaks are broader.",)


def _notes(
    signal: Array,
    grid: KGrid,
    pixel: tuple[float, float] | None,
    known: Array,
    peak: float,
) -> tuple[str, ...]:
    notes = []
    if pixel is None:
        notes.append(f"{signal.size} scattered points, summed as they are: no Nyquist limit applied.")
    else:
        height, width = (step * LATTICE_CONSTANT for step in pixel)
        notes.append(
            f"Pixels are {width:.3g} Å x {height:.3g} Å (x, y); Nyquist vectors {math.pi / pixel[1]:.3g} and "
            f"{math.pi / pixel[0]:.3g} 1/a."
        )
        if not known.all():
            need_x, need_y = (math.pi / k * LATTICE_CONSTANT for k in (grid.kx_max, grid.ky_max))
            notes.append(
                f"{1 - known.mean():.1%} of the model's window is masked: the whole of it needs pixels <= "
                f"{need_x:.3g} Å along x and {need_y:.3g} Å along y."
            )
    if peak < max(grid.step) / 2:
        notes.append(
            f"The field is wide: its peaks ({peak:.2g} 1/a) fall between the model's pixels "
            f"({max(grid.step):.2g} 1/a); crop it for a fair comparison."
        )
    negative = np.mean(signal < 0)
    if negative > 0:
        notes.append(
            f"{negative:.1%} of the values are negative: an offset of the instrument changes the scale of |F|/|F(0)|."
        )
    return tuple(notes)
