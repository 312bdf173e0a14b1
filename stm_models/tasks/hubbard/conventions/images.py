"""FT-LDOS as 8-bit pictures: PNG files in turbo colours, each scaled to its own range, the label in the name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stm_models.config import Config
from stm_models.data.pictures import LARGEST_SIDE, from_turbo, grey, read_png, to_turbo
from stm_models.errors import InputError
from stm_models.physics.moire.constants import LATTICE_CONSTANT
from stm_models.physics.moire.fourier import KGrid
from stm_models.tasks.conventions import Convention, Exporter, Survey, Watch
from stm_models.tasks.hubbard.conventions import names, sources
from stm_models.tasks.hubbard.conventions.samples import channel_of, facts_of, known_of
from stm_models.tasks.plan import ArraySpec, Group, GroupResult

__all__ = ["ImageExport", "ImageImport", "PngPictures"]

UNITS = {
    "turbo": ("place on the turbo map", "8-bit picture, colours turned back into the scalar that turbo painted"),
    "grey": ("grey value", "8-bit picture, colours read as luma"),
}
LOSS = {
    "turbo": "pictures have 8 bits and each its own scale: |F|/|F(0)| is lost, and with it every absolute height",
    "grey": "pictures have 8 bits and each its own scale, and grey is not monotonic in turbo (dark at both ends, "
    "bright between): weak and strong |F| can have one grey value; --colours turbo undoes the map",
}


class ImageImport(Config):
    """How pictures become images."""

    manifest: str | None = Field(None, description="CSV with columns file,U,group (default: DIR/manifest.csv)")
    colours: Literal["turbo", "grey"] = Field(
        "turbo", description="turbo: undo the colour map; grey: read luma, as the public code does"
    )


class ImageExport(Config):
    """How images become pictures."""

    size: int | None = Field(None, ge=8, le=LARGEST_SIDE, description="pixels along each side (default: the data's)")
    channel: int = Field(0, ge=0, description="which of the data set's energies")


class PngPictures(Convention):
    """PNG files in turbo colours, one per image, label in the name."""

    title: ClassVar[str] = "PNG files in turbo colours, label U in the name"
    import_options: ClassVar[type[Config]] = ImageImport
    export_options: ClassVar[type[Config]] = ImageExport

    def survey(self, folder: Path, options: ImageImport, watch: Watch) -> Survey:
        """Decode every picture once.

        Raises
        ------
        InputError
            See `sources.collect`; also for pictures of different sizes or colours that are not turbo's.
        """

        def look(path: Path) -> sources.Look:
            colours = read_png(path)
            if options.colours == "turbo":
                from_turbo(colours, path.name)
            content = hashlib.sha256(str(colours.shape).encode() + colours.tobytes()).hexdigest()
            return sources.Look(content, hashlib.sha256(path.read_bytes()).hexdigest(), colours.shape[:2])

        files, notes = sources.collect(folder, (".png",), options.manifest, look, watch)
        rows, columns = files[0].look.shape
        for source in files:
            if source.look.shape != (rows, columns):
                raise InputError(
                    f"{files[0].name} has {columns}x{rows} pixels, {source.name} "
                    f"{source.look.shape[1]}x{source.look.shape[0]}: a data set has one size, so scale or sort them"
                )
        if min(rows, columns) < 8:
            raise InputError(
                f"{files[0].name} has {columns}x{rows} pixels, expected at least 8x8: give larger pictures"
            )
        unit, description = UNITS[options.colours]
        window = KGrid(8)
        spec = {
            "kind": "ft_ldos_picture", "channels": 1, "height": rows, "width": columns, "dims": ["channel", "y", "x"],
            "unit": unit, "kx_max": window.kx_max, "ky_max": window.ky_max, "colours": options.colours,
            "lattice_constant_nm": LATTICE_CONSTANT / 10,
        }  # fmt: skip
        array = ArraySpec(("channel", "y", "x"), (1, rows, columns), "float32", unit, description)
        origin = {"folder": folder.resolve().name, "convention": "images", "colours": options.colours}
        plan = sources.lay_out(files, {"image": array}, spec, origin, {})

        def read(group: Group) -> GroupResult:
            source = files[group.index]
            sources.unchanged(source)
            colours = read_png(source.path)
            scalar = from_turbo(colours, source.name) if options.colours == "turbo" else grey(colours)
            return GroupResult({"image": scalar[None, None]}, {}, {"converged": 1.0})

        chosen = options.model_dump(mode="json", exclude={"manifest"})
        identity = sources.identity(files, "images", chosen)
        return Survey(plan, read, identity, (LOSS[options.colours], *notes))

    def exporter(
        self, attributes: Mapping[str, Any], arrays: Mapping[str, tuple[int, ...]], options: ImageExport
    ) -> Exporter:
        """Write each image scaled to its own range, first row on top.

        Raises
        ------
        InputError
            For a channel that does not exist.
        """
        channel = channel_of(arrays["image"], options.channel, scalar_axes=2, what="channels")

        def file(sample: Mapping[str, Any]) -> tuple[str, bytes]:
            values = _resized(sample["image"][channel], options.size)
            known = known_of(attributes, sample)
            stem = names.file_stem(sample["U"], known, round(sample["group"]), sample["draw"])
            try:
                return f"{stem}.png", to_turbo(values)
            except InputError as error:
                raise InputError(f"sample {sample['sample']}: {error}") from error

        return Exporter(("image",), file, facts_of)


def _resized(values: NDArray[np.float32], size: int | None) -> NDArray[np.float32]:
    if size is None or values.shape == (size, size):
        return values
    from PIL import Image

    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))
