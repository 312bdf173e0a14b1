"""What a hubbard data set is made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from stm_models.config import Config

__all__ = ["HubbardSimulation"]


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


Range = Annotated[tuple[float, float], AfterValidator(_ordered)]


class HubbardSimulation(Config):
    """Self-consistent Hartree-Fock of twisted bilayer graphene and the FT-LDOS images made from it."""

    index: int = Field(5, ge=1, le=12, description="commensurate index I of (I, I+1)")
    layer_distance: float = Field(2.74, gt=1.5, lt=5, description="distance of the layers, Å")
    interlayer_scale: float = Field(1.0, ge=0, le=10, description="factor on interlayer hopping")
    interaction: Annotated[tuple[float, float], AfterValidator(_not_negative)] = Field(
        (0.0, 6.0), description="range of the Hubbard U, eV"
    )
    interaction_count: int = Field(25, ge=1, le=10_000, description="values of U per replicate")
    interaction_sampling: Literal["grid", "uniform"] = Field(
        "grid", description="an even grid that holds both ends, or continuous random values"
    )
    replicates: int = Field(10, ge=1, le=100_000, description="chains along U, each with its own fillings")
    draws: int = Field(4, ge=1, le=1000, description="images per self-consistent state")
    filling: Range = Field((-0.2, 0.2), description="electrons per moiré cell beyond neutrality, drawn per state")
    bias: Annotated[tuple[float, float], AfterValidator(_within_bands)] = Field(
        (-0.004, 0.004), description="bias about the chemical potential, eV, drawn per image"
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
    max_iterations: int = Field(60, ge=1, le=10_000)
    patch_radius: float = Field(2.0, gt=0.3, le=10, description="imaged disc, moiré lengths")
    envelope: float = Field(0.4, gt=0, le=10, description="Gaussian envelope, fraction of the disc radius")
    bottom_layer: float = Field(1.0, ge=0, le=1, description="weight of the layer away from the tip")
    image_size: int = Field(128, ge=8, le=2048, description="pixels along kx and ky")
    seed: int = Field(0, ge=0)

    @field_validator("filling")
    @classmethod
    def _fits_the_cell(cls, pair: tuple[float, float], known: ValidationInfo) -> tuple[float, float]:
        index = known.data.get("index", 1)
        sites = 4 * (3 * index**2 + 3 * index + 1)
        if max(abs(pair[0]), abs(pair[1])) >= sites:
            raise ValueError(f"expected less than the {sites} electrons of the neutral cell I={index}, either way")
        return pair
