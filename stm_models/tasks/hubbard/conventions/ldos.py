"""LDOS as text: columns x y value, positions in lattice constants, the label in the file's name."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stm_models.config import Config
from stm_models.errors import InputError, one_line
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.tasks.conventions import Convention, Exporter, Survey, Watch
from stm_models.tasks.hubbard.conventions import names, sources
from stm_models.tasks.hubbard.conventions.samples import channel_of, facts_of, known_of
from stm_models.tasks.hubbard.structure import GEOMETRY, ImagedAtoms, imaged_atoms
from stm_models.tasks.inputs import Prepared, RawMap
from stm_models.tasks.plan import ArraySpec, Group, GroupResult, Variable

__all__ = ["LdosExport", "LdosImport", "LdosText", "ft_image", "prepared"]

LARGEST = 64 * 1024**2
"""Bytes that one text file may have: about a million points."""

_SMALLEST = 64  # points that make an image worth looking at
_FARTHEST, _HIGHEST = 1e5, 1e12
_FORMAT = ("%.10f", "%.10f", "%.9g")  # positions to 1e-10 a; nine digits give a float32 back to the last bit

Array = NDArray[np.float64]


class LdosImport(Config):
    """How text becomes FT-LDOS images."""

    manifest: str | None = Field(None, description="CSV with columns file,U,group (default: DIR/manifest.csv)")
    image_size: int = Field(128, ge=8, le=2048, description="pixels along kx and ky")
    patch: Literal["disc", "all"] = Field("disc", description="sum over a disc about the middle, or over all points")
    radius: float | None = Field(None, gt=1, le=10_000, description="radius of the disc, a (default: what fits)")
    envelope: float = Field(0.4, ge=0, le=10, description="Gaussian envelope, fraction of the radius; 0: none")


class LdosExport(Config):
    """How a data set becomes text."""

    channel: int = Field(0, ge=0, description="which of the data set's energies")


class LdosText(Convention):
    """Text files ``x y value``, one per image, label in the name."""

    title: ClassVar[str] = "text files x y value, label U in the name"
    import_options: ClassVar[type[Config]] = LdosImport
    export_options: ClassVar[type[Config]] = LdosExport

    def survey(self, folder: Path, options: LdosImport, watch: Watch) -> Survey:
        """Check every file; the images come from the simulator's own transform.

        Raises
        ------
        InputError
            See `sources.collect`; also for a table that has not three columns of finite numbers.
        """
        files, notes = sources.collect(folder, (".dat", ".txt"), options.manifest, _look, watch)
        radius = [_radius(source, options) for source in files]
        points = [source.look.shape[0] for source in files]
        most, grid = max(points), KGrid(options.image_size)
        extra: dict[str, tuple[Variable, Sequence[float]]] = {
            "radius": (Variable("radius", "a", "disc that the image is made of"), radius),
            "points": (Variable("points", "1", "points in the file; further ones are padding of zero LDOS"), points),
        }
        spec = {
            "kind": "ft_ldos", "channels": 1, "height": grid.n, "width": grid.n, "dims": ["channel", "y", "x"],
            "unit": "|F|/|F(0)|", "kx_max": grid.kx_max, "ky_max": grid.ky_max,
            "lattice_constant_nm": LATTICE_CONSTANT / 10, "envelope": options.envelope or _NO_ENVELOPE,
            "radius": max(radius),
        }  # fmt: skip
        if options.patch == "all":
            spec |= {"patch": "all", "radius_of_file": bool(np.ptp(radius) > 1e-6)}
        origin = {"folder": folder.resolve().name, "convention": "ldos"}
        plan = sources.lay_out(files, _arrays(grid.n, most), spec, origin, extra)
        if options.patch == "all":
            notes.append("all points count, whatever their outline: edges other than a disc's print onto the image")

        def read(group: Group) -> GroupResult:
            source = files[group.index]
            table = _table(sources.unchanged(source), source.name)
            picture = ft_image(table, grid, radius[group.index], options, source.name)
            padded = np.zeros((most, 3))
            padded[: len(table)] = table
            arrays: dict[str, NDArray[Any]] = {"image": picture[None, None], "ldos": padded[None, :, 2]}
            arrays |= {"point_x": padded[None, :, 0], "point_y": padded[None, :, 1]}
            return GroupResult(arrays, {}, {"converged": 1.0})

        chosen = options.model_dump(mode="json", exclude={"manifest"})
        return Survey(plan, read, sources.identity(files, "ldos", chosen), tuple(notes))

    def exporter(
        self, attributes: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], options: LdosExport
    ) -> Exporter:
        """Write the LDOS of every atom in the imaged disc, weighted as the tip sees its layer.

        Raises
        ------
        InputError
            For a data set without LDOS or without the energy asked for.
        """
        if "ldos" not in arrays:
            raise InputError(
                "the data set holds images alone, no LDOS that could be written as text: convert it --to images, or "
                "simulate it, or import it from text"
            )
        imported = "point_x" in arrays
        channel = channel_of(arrays["ldos"], options.channel, scalar_axes=1, what="energies")
        atoms = _Atoms(attributes)

        def file(sample: Mapping[str, Any]) -> tuple[str, bytes]:
            values = sample["ldos"] if channel is None else sample["ldos"][channel]
            if imported:
                count = round(sample["points"])
                columns = [sample["point_x"][:count], sample["point_y"][:count], values[:count]]
            else:
                at = atoms.of(sample)
                columns = [*at.positions.T, (values[at.copies] * at.layer_weight).astype(np.float32)]
            known = known_of(attributes, sample)
            stem = names.file_stem(sample["U"], known, round(sample["group"]), sample["draw"])
            text = io.BytesIO()
            np.savetxt(text, np.column_stack(columns), _FORMAT)
            return f"{stem}.dat", text.getvalue()

        def facts(sample: Mapping[str, Any]) -> dict[str, Any]:
            return facts_of(sample) | {"radius": sample["radius"] if imported else atoms.of(sample).radius}

        needed = ("ldos", "point_x", "point_y") if imported else ("ldos",)
        return Exporter(needed, file, facts)


_NO_ENVELOPE = 1e6  # a fraction of the radius so large that the Gaussian is 1


class _Atoms:
    """The imaged atoms of one structure after the other; neighbouring samples share theirs."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self._find = lru_cache(maxsize=2)(
            lambda *geometry: imaged_atoms(attributes, dict(zip(GEOMETRY, geometry, strict=True)))
        )

    def of(self, sample: Mapping[str, Any]) -> ImagedAtoms:
        """Return the atoms of a sample's structure."""
        missing = [name for name in GEOMETRY if name not in sample]
        if missing:
            raise InputError(
                f"the data set does not say where its atoms are ({', '.join(missing)} missing): simulate it anew"
            )
        return self._find(*(float(sample[name]) for name in GEOMETRY))


def prepared(raw: RawMap, grid: KGrid, spec: Mapping[str, Any]) -> Prepared:
    """Prepare a file for a model of images that all points of a file count in (``--patch all``), as its own were made.

    Raises
    ------
    InputError
        For a raster, which has no such outline, several channels, values that are not finite, or as `ft_image`.
    """
    if raw.points is None:
        raise InputError(
            f"{raw.source} is a map on a raster, and the model was trained on sums over all points of files x y value "
            "(stm import ldos --patch all), whose outline counts: give such a file, or train on images of discs"
        )
    if len(raw.values) != 1:
        raise InputError(f"{raw.source} has {len(raw.values)} channels; choose one with --bias or --channel")
    if not np.isfinite(raw.values).all():
        raise InputError(f"{raw.source} holds NaN or infinity, expected finite values: remove these points")
    table = np.column_stack([raw.points * (10 / LATTICE_CONSTANT), raw.values.ravel()])
    radius = _widest(table) if spec["radius_of_file"] else float(spec["radius"])
    options = LdosImport.model_construct(patch="all", envelope=spec["envelope"])
    picture = ft_image(table, grid, radius, options, raw.source, raw.rotate)
    note = f"All {len(table)} points count, as in the training."
    return Prepared(picture[None], np.ones(picture.shape, bool), (note,))


def ft_image(
    table: Array, grid: KGrid, radius: float, options: LdosImport, name: str, rotate: float = 0.0
) -> NDArray[np.float32]:
    """Return |F(k)| / F(0) of one table, as the simulator makes it.

    Parameters
    ----------
    table : (points, 3) float64
        x and y in a, LDOS.
    grid : KGrid
    radius : float, a
        The disc, which the envelope is a fraction of; about the middle of the points' bounding box.
    options : LdosImport
        ``patch`` and ``envelope`` count.
    name : str
        For messages.
    rotate : float, degrees
        By which the points are turned counter-clockwise.

    Returns
    -------
    (n, n) float32

    Raises
    ------
    InputError
        When too few points lie in the disc, or their LDOS is not positive on the whole.
    """
    centred = _centred(table)
    distance = np.hypot(*centred.T)
    inside = distance < radius + 1e-6 if options.patch == "disc" else np.ones(len(table), bool)
    if np.count_nonzero(inside) < _SMALLEST:
        raise InputError(f"{name}: {inside.sum()} points within {radius:g} a, expected at least {_SMALLEST}")
    weights = table[inside, 2]
    if options.envelope:
        weights = weights * np.exp(-(distance[inside] ** 2) / (2 * (options.envelope * radius) ** 2))
    x, y = centred[inside].T
    if rotate:
        cos, sin = math.cos(math.radians(rotate)), math.sin(math.radians(rotate))
        x, y = cos * x - sin * y, sin * x + cos * y
    try:
        picture: NDArray[np.float32] = image(x, y, weights, grid)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    return picture


def _arrays(n: int, most: int) -> dict[str, ArraySpec]:
    where = "position of each point; (0, 0) for padding"
    return {
        "image": ArraySpec(
            ("channel", "y", "x"), (1, n, n), "float32", "|F|/|F(0)|",
            "magnitude of the Fourier-transformed LDOS over that at k = 0",
        ),
        "ldos": ArraySpec(("point",), (most,), "float64", "as in the files", "LDOS at each point; 0 for padding"),
        "point_x": ArraySpec(("point",), (most,), "float64", "a", f"x {where}", 9),
        "point_y": ArraySpec(("point",), (most,), "float64", "a", f"y {where}", 9),
    }  # fmt: skip


def _look(path: Path) -> sources.Look:
    size = path.stat().st_size
    if size > LARGEST:
        raise InputError(f"{path.name} holds {size / 2**20:.0f} MiB, expected at most {LARGEST // 2**20}: crop it")
    data = path.read_bytes()
    table = _table(data, path.name)
    content = hashlib.sha256(np.ascontiguousarray(table, "<f8").tobytes()).hexdigest()
    return sources.Look(content, hashlib.sha256(data).hexdigest(), table.shape, _widest(table))


def _table(data: bytes, name: str) -> Array:
    wanted = "expected three columns x y value, positions in lattice constants"
    if not data.strip():
        raise InputError(f"{name} is empty: {wanted}; copy it again or take it out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's about a file of comments only
            table: Array = np.loadtxt(io.BytesIO(data), np.float64, ndmin=2, encoding="utf-8")
    except (ValueError, UnicodeDecodeError) as error:
        reason = one_line(error, 100)
        raise InputError(f"{name} is no table of numbers ({reason}): {wanted}; copy it again or take it out") from error
    if table.ndim != 2 or table.shape[1] != 3:
        raise InputError(f"{name} has {table.shape[-1]} columns: {wanted}; mend it or take it out")
    bad = len(table) - int(np.isfinite(table).all(axis=1).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {len(table)} lines hold NaN or infinity: {wanted}; remove these points")
    farthest, highest = np.abs(table[:, :2]).max(initial=0), np.abs(table[:, 2]).max(initial=0)
    if farthest > _FARTHEST or highest > _HIGHEST:
        raise InputError(
            f"{name}: positions reach {farthest:.3g}, values {highest:.3g}; expected "
            f"at most {_FARTHEST:g} lattice constants and {_HIGHEST:g}: change the units"
        )
    if len(table) < _SMALLEST or not np.ptp(table[:, :2], axis=0).min() > 0:
        raise InputError(f"{name}: {len(table)} points, expected at least {_SMALLEST} that span a field; take it out")
    return table


def _centred(table: Array) -> Array:
    points: Array = table[:, :2]
    return points - (points.min(axis=0) + points.max(axis=0)) / 2


def _widest(table: Array) -> float:
    """Return the radius of a round field, or of the largest disc in a field with corners."""
    centred = _centred(table)
    half, farthest = float(np.ptp(centred, axis=0).min()) / 2, float(np.hypot(*centred.T).max())
    return farthest if farthest < 1.1 * half else half


def _radius(source: sources.Source, options: LdosImport) -> float:
    if options.radius is not None:
        return options.radius
    if source.listed_radius is not None:
        if not source.listed_radius > 1:
            raise InputError(f"{source.name}: the manifest's radius is {source.listed_radius:g} a, expected above 1")
        return source.listed_radius
    assert source.look.radius is not None  # noqa: S101
    return source.look.radius
