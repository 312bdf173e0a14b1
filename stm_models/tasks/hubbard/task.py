"""The task hubbard: regress the Hubbard U from FT-LDOS images of twisted bilayer graphene."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, field_validator

from stm_models.config import Config
from stm_models.errors import InputError
from stm_models.physics.moire.fourier import KGrid
from stm_models.search import Range, Space
from stm_models.signal.real_map import to_ft_images
from stm_models.tasks.conventions import Convention
from stm_models.tasks.hubbard import simulation
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.inputs import Axes, Prepared, RawMap, SpecPart, read_spec
from stm_models.tasks.outputs import Pictures
from stm_models.tasks.perturbation import Perturbation
from stm_models.tasks.plan import Plan, Simulator, Variable
from stm_models.tasks.regression import RegressionTask

if TYPE_CHECKING:
    from stm_models.data.opened import OpenDataSet
    from stm_models.tasks.reproduction import Reproduction

__all__ = ["HubbardTask"]

_LIES = (
    "The lattice must lie as in the simulation, a Bragg vector of the moiré lattice along kx and those of the two "
    "layers half the twist angle to either side of ky: turned by 1 degree it is another image, more so than of another "
    "U; --rotate DEGREES turns the map counter-clockwise."
)
_MIDDLE = "In the simulation an AA region lies in the disc's middle; where this map's lies was not looked for."


class _Window(SpecPart):
    kx_max: PositiveFloat
    ky_max: PositiveFloat


class _Field(SpecPart):
    envelope: PositiveFloat
    radius: PositiveFloat
    moire: tuple[tuple[float, float], tuple[float, float]] | None = None

    @field_validator("moire")
    @classmethod
    def _span_a_plane(cls, vectors: Any) -> Any:
        if vectors is not None and not abs(np.linalg.det(vectors)) > 1e-9:
            raise ValueError("expected two vectors that are not parallel")
        return vectors


class HubbardTask(RegressionTask):
    """FT-LDOS image in, Hubbard U (eV) out. After arXiv 2602.18890."""

    name: ClassVar[str] = "hubbard"
    title: ClassVar[str] = "Hubbard U of twisted bilayer graphene from FT-LDOS images"
    targets: ClassVar[tuple[Variable, ...]] = (Variable("U", "eV", "Hubbard interaction"),)
    stratify: ClassVar[str] = "U"
    limits: ClassVar[str] = (
        "U is inferred within one simulated model (Hartree-Fock) of the structures of its data set. An image of "
        "another material, twist angle, pressure or noise is answered too, with a distance that says how far outside "
        "it lies: such a value is not to be trusted."
    )
    default_network: ClassVar[str] = "lattice"
    simulation: ClassVar[type[Config]] = HubbardSimulation
    map_options: ClassVar[frozenset[str]] = frozenset({"rotate", "atom_width"})
    compared: ClassVar[tuple[str, str] | None] = ("central moiré peaks", "Bragg peaks")

    def plan(self, config: HubbardSimulation) -> Plan:
        """Lay out chains of self-consistent states along U, one structure each."""
        return simulation.plan(config)

    def simulator(self, config: HubbardSimulation, *, device: str = "cpu") -> Simulator:
        """Build the mean-field solver and the transform; return the function that makes one state."""
        return simulation.simulator(config, device=device)

    def fresh(self, config: HubbardSimulation, seed: int, states: int, *, unseen: bool) -> HubbardSimulation:
        """Return a config for new states alike, at continuous random U or at the same U.

        At least one chain of each kind of structure and start, so there may be more than ``states``; chains of one
        state stay so. Where the same U would give the states of ``config`` again, U is random too.
        """
        count = config.interaction_count
        if unseen:
            # Short chains: U values close to their neighbours warm-start best, and two cores share them.
            replicates = max(config.kinds, round(states / (12 if count > 1 else 1)))
            sampling, count = "uniform", -(-states // replicates)
        else:
            replicates, sampling = max(config.kinds, round(states / count)), config.interaction_sampling
        made = config.model_copy(
            update={
                "seed": seed, "draws": 1, "replicates": replicates,
                "interaction_count": count, "interaction_sampling": sampling,
            }
        )  # fmt: skip
        if not unseen and simulation.states(made) & simulation.states(config):
            return self.fresh(config, seed, states, unseen=True)
        return made

    def states(self, config: HubbardSimulation) -> frozenset[Hashable]:
        """Return equations, U, filling and structure of each state."""
        return simulation.states(config)

    def held_out(self, config: HubbardSimulation, seed: int, states: int) -> HubbardSimulation:
        """Return a config for new states at continuous random U, two images of each.

        Where structures are drawn each state has one of its own: states of a chain would have that in common.
        """
        alone = config if config.one_structure else config.model_copy(update={"interaction_count": 1})
        return self.fresh(alone, seed, states, unseen=True).model_copy(update={"draws": 2})

    def prepare(self, raw: RawMap, input_spec: Mapping[str, Any]) -> Prepared:
        """Fourier-transform a real-space map, or one per energy, onto the model's k grid.

        A raster shows atoms of a width, by default that of the simulated maps of the set ``instrument``; a simulated
        image is a sum over points, so their form factor is divided out.

        Raises
        ------
        InputError
            For a map without a size or without the model's energies, or that cannot be transformed; for points that
            are said to have a width; for a raster, where the model's images are of all points of a file.
        """
        if input_spec["kind"] != "ft_ldos":
            raise InputError(
                f"the model was trained on 8-bit pictures ({input_spec['unit']}), whose scale no map of an instrument "
                "has: ask a model trained on FT-LDOS images"
            )
        window = read_spec(_Window, input_spec)
        grid = KGrid(input_spec["width"], window.kx_max, window.ky_max)
        width = _atom_width(raw)
        if input_spec.get("patch") == "all":
            from stm_models.tasks.hubbard.conventions import ldos

            return ldos.prepared(raw, grid, input_spec)
        field = read_spec(_Field, input_spec)
        # Images from elsewhere do not say at which energy they were made.
        image, known, notes = to_ft_images(
            raw, grid, energies=input_spec.get("energies", [0.0]),
            tolerance=input_spec.get("energy_tolerance", math.inf),
            envelope=field.envelope, radius=field.radius, atom_width=width, moire=field.moire,
        )  # fmt: skip
        if raw.points is None:
            notes = (*notes, _LIES)
        if field.moire is None:
            notes = (*notes, _MIDDLE)
        return Prepared(image, known, notes)

    def perturbations(self) -> tuple[Perturbation, ...]:
        """Return the paper's sets and an instrument's; see `stm_models.tasks.hubbard.perturbations`."""
        from stm_models.tasks.hubbard.perturbations import SETS

        return SETS

    def axes(self, input_spec: Mapping[str, Any]) -> Axes:
        """Wave vectors in 1/a; kx and ky have different scales, whose limits are centres of pixels."""
        window, shape = read_spec(_Window, input_spec), (input_spec["height"], input_spec["width"])
        return Axes.of_centres(window.kx_max, window.ky_max, shape, ("kx (1/a)", "ky (1/a)"))

    def known(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the moiré lattice, where all images have the same, and the pixels; see `structure.lattice_peaks`."""
        from stm_models.tasks.hubbard.structure import lattice_peaks

        return lattice_peaks(attributes)

    def conventions(self) -> Mapping[str, Convention]:
        """Files of the public code to the paper, see `stm_models.tasks.hubbard.conventions`."""
        from stm_models.tasks.hubbard.conventions import CONVENTIONS

        return CONVENTIONS

    def channel_names(self, input_spec: Mapping[str, Any]) -> list[str]:
        """Name the channels by their energy from the bias."""
        energies = input_spec.get("energies")
        if energies is None:
            return super().channel_names(input_spec)
        return [f"{1000 * energy:+.4g} meV" for energy in energies]

    def marks(self, attributes: Mapping[str, Any], row: Mapping[str, float]) -> dict[str, NDArray[Any]]:
        """Return moiré and graphene Bragg vectors, see `stm_models.tasks.hubbard.pictures`."""
        from stm_models.tasks.hubbard.pictures import marks

        return marks(attributes, row)

    def regions(
        self,
        attributes: Mapping[str, Any],
        row: Mapping[str, float],
        shape: tuple[int, int],
        place: NDArray[Any] | None,
    ) -> dict[str, NDArray[Any]]:
        """Return central moiré peaks and Bragg peaks, see `stm_models.tasks.hubbard.regions`."""
        from stm_models.tasks.hubbard.regions import regions

        return regions(attributes, row, shape)

    def pictures(self, data: OpenDataSet) -> Pictures:
        """Draw bands, density of states and LDOS, see `stm_models.tasks.hubbard.pictures`."""
        from stm_models.tasks.hubbard.pictures import pictures

        return pictures(data)

    def search_space(self) -> Space:
        """Learning rate and weight decay, whatever the network."""
        return {
            "learning_rate": Range(5e-4, 1e-2, log=True),
            "weight_decay": Range(1e-6, 0.3, log=True),
        }

    def reproduction(self) -> Reproduction:
        """Return arXiv 2602.18890 made again, see `stm_models.tasks.hubbard.reproduction`."""
        from stm_models.tasks.hubbard.reproduction import HubbardReproduction

        return HubbardReproduction()


def _atom_width(raw: RawMap) -> float:
    """Return the standard deviation in a of one atom in a map."""
    from stm_models.tasks.hubbard.imaging import ATOM_WIDTH, NM

    if raw.points is None:
        return ATOM_WIDTH if raw.atom_width is None else raw.atom_width / NM
    if raw.atom_width:
        raise InputError(f"--atom-width is {raw.atom_width:g}, but {raw.source} has values at points: leave it out")
    return 0.0
