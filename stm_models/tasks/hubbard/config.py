"""What a hubbard data set is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from stm_models.config import Config
from stm_models.physics.moire.fourier import KGrid

__all__ = ["STARTS", "HubbardSimulation", "field_radius"]

STARTS: dict[str, tuple[str, ...]] = {
    "sym": ("bands",),
    "broken": ("random",),
    "collinear": ("pm", "fm", "af", "sublattice", "stripe", "random"),
}
"""Where the self-consistent cycle of each branch can begin."""
_COARSEST = 5.0  # standard deviations of a peak between pixels: midway between four of them 1/2 % of its height is left
DEFAULT_STARTS = {"sym": ("bands",), "broken": ("random",), "collinear": ("pm", "fm", "af")}


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"expected a range [low, high], {pair[0]} is above {pair[1]}")
    return pair


def _not_negative(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] < 0:
        raise ValueError("the Hubbard U is a repulsion, expected values of at least 0 eV")
    return _ordered(pair)


def _positive(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] <= 0:
        raise ValueError("expected factors above 0")
    return _ordered(pair)


def _within_bands(pair: tuple[float, float]) -> tuple[float, float]:
    if max(abs(pair[0]), abs(pair[1])) > 1:
        raise ValueError("expected eV within 1 of the chemical potential, e.g. [-0.004, 0.004] for 4 mV")
    return _ordered(pair)


def _layers_apart(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] <= 1.5 or pair[1] >= 5:
        raise ValueError("expected Å above 1.5 and below 5; without pressure it is 3.35")
    return _ordered(pair)


def _small_strain(pair: tuple[float, float]) -> tuple[float, float]:
    if max(abs(pair[0]), abs(pair[1])) > 0.05:
        raise ValueError("expected fractions within 0.05, e.g. [0, 0.01] for up to 1 %")
    return _ordered(pair)


def _ascending(energies: tuple[float, ...]) -> tuple[float, ...]:
    if not energies or any(after <= before for before, after in pairwise(energies)):
        raise ValueError("expected ascending values, each once: they are the image's channels in this order")
    if max(abs(energies[0]), abs(energies[-1])) > 1:
        raise ValueError("expected eV within 1 of the chemical potential, e.g. [-0.05, 0, 0.05]")
    return energies


def _each_once(indices: tuple[int, ...]) -> tuple[int, ...]:
    if not indices or len(set(indices)) < len(indices):
        raise ValueError("expected at least one index and each once: replicates take them in turn")
    return indices


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, int | float | str) else value


def _range(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float | str) else value


def field_radius(index: Sequence[int], patch_radius: float) -> float:
    """Radius (a) of the imaged disc: ``patch_radius`` moiré lengths of the largest of these unstrained cells."""
    return patch_radius * math.sqrt(3 * max(index) ** 2 + 3 * max(index) + 1)


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class HubbardSimulation(Config):
    """Self-consistent mean-field states of twisted bilayer graphene and the FT-LDOS images made from them.

    One replicate is one chain along U in one structure: what is 'drawn per replicate' stays the same along it.
    """

    branch: Literal["sym", "broken", "collinear"] = Field(
        "sym",
        description="sym: full symmetry, no magnetism; broken: complex bond orders; collinear: spins up and down",
    )
    starts: tuple[str, ...] = Field(
        min_length=1, max_length=32,
        description="where the cycle begins; several are candidates for each state (default: by branch)",
    )  # fmt: skip
    keep: Literal["lowest", "cycle"] = Field(
        "lowest",
        description="lowest: of a state's candidates that with the lowest free energy, converged ones first; "
        "cycle: replicates take the starts in turn, so that metastable states are in the data too",
    )
    warm: bool = Field(
        True,
        description="begin at the chain's previous state: beside several starts as one more candidate, else instead",
    )
    index: Annotated[
        tuple[Annotated[int, Field(ge=1, le=12)], ...], BeforeValidator(_several), AfterValidator(_each_once)
    ] = Field((5,), description="commensurate index I of (I, I+1), or several that replicates take in turn")
    layer_distance: Annotated[tuple[float, float], BeforeValidator(_range), AfterValidator(_layers_apart)] = Field(
        (2.74, 2.74), description="distance of the layers, Å; a range is drawn from per replicate"
    )
    strain: Annotated[tuple[float, float], BeforeValidator(_range), AfterValidator(_small_strain)] = Field(
        (0.0, 0.0),
        description="uniaxial strain, a fraction, of both layers alike, drawn per replicate; different strain in the "
        "two layers is not offered because it leaves no commensurate cell",
    )
    strain_angle: Annotated[tuple[float, float], BeforeValidator(_range), AfterValidator(_ordered)] = Field(
        (0.0, 0.0), description="direction of the strain, degrees from x, drawn per replicate"
    )
    interlayer_scale: float = Field(1.0, ge=0, le=10, description="factor on interlayer hopping")
    interaction: Annotated[tuple[float, float], AfterValidator(_not_negative)] = Field(
        (0.0, 6.0), description="range of the Hubbard U, eV"
    )
    interaction_count: int = Field(25, ge=1, le=10_000, description="values of U per replicate")
    interaction_sampling: Literal["grid", "uniform"] = Field(
        "grid", validate_default=True, description="an even grid that holds both ends, or continuous random values"
    )
    replicates: int = Field(
        10, ge=1, le=100_000, validate_default=True, description="chains along U, each with its own fillings"
    )
    draws: int = Field(4, ge=1, le=1000, description="images per self-consistent state")
    filling: Range = Field((-0.2, 0.2), description="electrons per moiré cell beyond neutrality, drawn per state")
    bias: Annotated[tuple[float, float], AfterValidator(_within_bands)] = Field(
        (-0.004, 0.004), description="bias about the chemical potential, eV, drawn per image"
    )
    energies: Annotated[tuple[float, ...], BeforeValidator(_several), AfterValidator(_ascending)] = Field(
        (0.0,), max_length=64, description="energies of the image's channels, eV from the drawn bias"
    )
    broadening: float = Field(0.03, gt=0, le=1, description="standard deviation of the LDOS Gaussian, eV")
    broadening_spread: Annotated[tuple[float, float], AfterValidator(_positive)] = Field(
        (0.9, 1.1), description="factor on the broadening, drawn per image"
    )
    dielectric: float | None = Field(10.0, gt=0, description="dielectric constant; null: Hubbard U alone")
    gate_distance: float = Field(10.0, gt=0, le=100, description="distance of the metallic gates, nm")
    fock_range: float = Field(2.5, gt=0, le=20, description="in-plane reach of the exchange, lattice constants")
    temperature: float = Field(0.01, gt=0, le=1, description="kT, eV")
    k_mesh: int = Field(3, ge=1, le=48, description="k points along each reciprocal vector")
    tolerance: float = Field(1e-6, gt=0, le=1e-2, description="largest change of a density at convergence")
    max_iterations: int = Field(60, ge=1, le=10_000, description="of a cycle; what needs more is flagged")
    leave_saddles: bool = Field(
        True, description="leave a converged state that plain iteration would leave, for the lower free energy"
    )
    patch_radius: float = Field(
        2.0, gt=0.3, le=10, description="imaged disc, moiré lengths (of the largest cell: all have one field)"
    )
    envelope: float = Field(0.4, gt=0, le=10, description="Gaussian envelope, fraction of the disc radius")
    bottom_layer: float = Field(1.0, ge=0, le=1, description="weight of the layer away from the tip; the other has 1")
    image_size: int = Field(128, ge=8, le=2048, validate_default=True, description="pixels along kx and ky")
    seed: int = Field(0, ge=0, description="of all that is drawn")

    @property
    def one_structure(self) -> bool:
        """Whether all replicates have the same structure."""
        ranges = (self.layer_distance, self.strain, self.strain_angle)
        return len(self.index) == 1 and all(low == high for low, high in ranges)

    @property
    def kinds(self) -> int:
        """How many replicates it takes until each index, and each start where they take turns, was there."""
        return len(self.index) * (len(self.starts) if self.keep == "cycle" else 1)

    @property
    def breaks_symmetry(self) -> bool:
        """Whether states need not have the symmetry of the lattice."""
        return not {"stripe", "random"}.isdisjoint(self.starts)

    @model_validator(mode="before")
    @classmethod
    def _starts_of_the_branch(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "starts" not in values:
            branch = values.get("branch", "sym")
            return {**values, "starts": DEFAULT_STARTS.get(branch if isinstance(branch, str) else "", ("bands",))}
        return values

    @field_validator("starts", mode="before")
    @classmethod
    def _one_start(cls, value: Any) -> Any:
        return _several(value)

    @field_validator("starts")
    @classmethod
    def _exist(cls, starts: tuple[str, ...], known: ValidationInfo) -> tuple[str, ...]:
        branch = known.data.get("branch")
        if branch is None:  # the branch itself is wrong, which is said already
            return starts
        for start in starts:
            if start not in STARTS[branch]:
                of = ", ".join(name for name, theirs in STARTS.items() if start in theirs)
                hint = f"; {start!r} is one of branch {of}" if of else ""
                raise ValueError(f"branch {branch} starts from {', '.join(STARTS[branch])}{hint}")
            if start != "random" and starts.count(start) > 1:
                raise ValueError(f"{start!r} is there twice and gives the same twice; only 'random' may repeat")
        return starts

    @field_validator("strain_angle")
    @classmethod
    def _needs_strain(cls, pair: tuple[float, float], known: ValidationInfo) -> tuple[float, float]:
        if pair != (0, 0) and known.data.get("strain") == (0, 0):
            raise ValueError("without strain it has no direction: give simulate.strain too, e.g. [0, 0.01]")
        return pair

    @field_validator("gate_distance", "fock_range")
    @classmethod
    def _needs_coulomb(cls, value: float, info: ValidationInfo) -> float:
        usual = cls.model_fields[str(info.field_name)].default
        if value != usual and info.data.get("dielectric", usual) is None:
            raise ValueError(
                f"with simulate.dielectric=null (Hubbard U alone) it has no effect: leave it at {usual:g}, or give "
                "simulate.dielectric, e.g. 10"
            )
        return value

    @field_validator("k_mesh")
    @classmethod
    def _holds_the_exchange(cls, mesh: int, known: ValidationInfo) -> int:
        reach, index = known.data.get("fock_range", 0.0), min(known.data.get("index", (1,)))
        length = math.sqrt(3 * index**2 + 3 * index + 1)
        if known.data.get("dielectric") is not None and reach > mesh * length / 2:
            raise ValueError(
                f"bond orders repeat after {mesh} moiré lengths of {length:.3g} a (I={index}), so that an exchange of "
                f"reach {reach:g} a acts on copies: expected at least {math.ceil(2 * reach / length)}, or a "
                f"simulate.fock_range of at most {mesh * length / 2:.3g}"
            )
        return mesh

    @field_validator("interaction_sampling")
    @classmethod
    def _covers_the_range(cls, sampling: str, known: ValidationInfo) -> str:
        low, high = known.data.get("interaction", (0, 0))
        if sampling == "grid" and known.data.get("interaction_count") == 1 and low < high:
            raise ValueError(
                f"a grid of one value (simulate.interaction_count=1) is {low:g} eV alone, not {low:g} to {high:g}: "
                f"expected uniform, or simulate.interaction=[{low:g},{low:g}]"
            )
        return sampling

    @field_validator("replicates")
    @classmethod
    def _enough_for_each(cls, count: int, known: ValidationInfo) -> int:
        indices, starts = len(known.data.get("index", (1,))), len(known.data.get("starts", (1,)))
        if known.data.get("keep") != "cycle":
            starts = 1
        if count < indices * starts:
            what = " x ".join(f"{n} {name}" for n, name in ((indices, "indices"), (starts, "starts")) if n > 1)
            raise ValueError(f"expected at least {indices * starts}: replicates take {what} in turn")
        return count

    @field_validator("filling")
    @classmethod
    def _fits_the_cell(cls, pair: tuple[float, float], known: ValidationInfo) -> tuple[float, float]:
        index = min(known.data.get("index", (1,)))
        sites = 4 * (3 * index**2 + 3 * index + 1)
        if max(abs(pair[0]), abs(pair[1])) >= sites:
            raise ValueError(f"expected less than the {sites} electrons of the neutral cell I={index}, either way")
        return pair

    @field_validator("image_size")
    @classmethod
    def _shows_peaks(cls, size: int, known: ValidationInfo) -> int:
        if not {"index", "patch_radius", "envelope"} <= known.data.keys():
            return size  # one of them is wrong, which is said already
        grid = KGrid(size)
        peak = 1 / (known.data["envelope"] * field_radius(known.data["index"], known.data["patch_radius"]))
        least, good = (math.ceil(2 * grid.ky_max / (times * peak)) + 1 for times in (_COARSEST, 1))
        if max(grid.step) > _COARSEST * peak:
            raise ValueError(
                f"pixels would lie {max(grid.step):.2g} 1/a apart, the standard deviation of peaks is {peak:.2g} 1/a, "
                f"so that these fall between pixels: expected at least {least}, better {good}, or a smaller "
                "simulate.patch_radius or simulate.envelope"
            )
        return size

    @field_validator("broadening_spread")
    @classmethod
    def _no_image_again(cls, pair: tuple[float, float], known: ValidationInfo) -> tuple[float, float]:
        got = known.data
        ranges = [got.get(name, (0, 1)) for name in ("filling", "bias", "layer_distance", "strain", "strain_angle")]
        if got.get("interaction_sampling") == "uniform":
            ranges.append(got.get("interaction", (0, 1)))
        if "random" in got.get("starts", ("random",)) or any(low < high for low, high in (pair, *ranges)):
            return pair
        kinds = len(got.get("index", ())) * (len(got["starts"]) if got.get("keep") == "cycle" else 1)
        if got.get("replicates", 0) > kinds:
            raise ValueError(
                f"with one filling, bias and broadening only {kinds} of {got['replicates']} replicates have images "
                f"of their own: expected simulate.replicates={kinds}, a range of simulate.filling, e.g. [-0.2, 0.2], "
                "or one of simulate.bias, from which simulate.draws takes several images of a state"
            )
        return pair
