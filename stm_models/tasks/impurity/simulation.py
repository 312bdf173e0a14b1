"""From a config to fields, and from a field to its arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.signal.bias_windows import average
from stm_models.signal.preprocessing import Preparation, prepare_stack
from stm_models.tasks.impurity.config import ImpuritySimulation
from stm_models.tasks.impurity.labels import heat_map, padded, pixel_map
from stm_models.tasks.plan import ArraySpec, Group, GroupResult, Plan, Simulator, Variable

__all__ = ["VERSION", "WAVES", "input_spec", "plan", "simulator"]

VERSION = "1"
"""Part of a data set's recipe: raised whenever the same config would give other numbers."""
WAVES = ("friedel", "scattering", "paper", "experiment")
"""What the parameter ``waves`` counts."""
_CHAIN = 16  # fields a worker takes at once; they do not depend on each other
# Streams of random numbers: no seed makes a training field and a pseudo-experiment from the same ones.
_LAYOUT, _TRAINING, _EXPERIMENT = 1, 2, 3
_FRAME = 80  # px, to which the numbers of the presets belong

PARAMETERS = (
    Variable("count", "1", "impurities inside the frame"),
    Variable("waves", "1", f"how the field was made: place in {', '.join(WAVES)}"),
    Variable("preset", "1", "pseudo-experiment: place in the config's presets; 0 for other fields"),
    Variable("field", "1", "number of the field"),
)
SCALARS = (
    Variable("converged", "1", "always 1"),
    Variable("decoys", "1", "spots that are no impurities"),
    Variable("oscillation", "mean dI/dV", "rms of the waves away from the impurities, the unit of the noise"),
    Variable("white", "rms of the waves", "white noise"),
    Variable("one_over_f", "rms of the waves", "noise correlated along the lines"),
    Variable("line", "rms of the waves", "offsets of lines"),
)

Arrays = Mapping[str, NDArray[Any]]


def input_spec(config: ImpuritySimulation) -> dict[str, Any]:
    """Describe the network's input: prepared maps, one channel per bias window (V)."""
    windows = config.windows
    return {
        "kind": "didv_maps", "channels": len(config.biases), "height": config.size, "width": config.size,
        "dims": ["channel", "y", "x"], "unit": "prepared dI/dV", "biases": list(config.biases),
        "half_width": windows.half_width, "reach": windows.reach, "material": config.material,
        "band_bottom": config.surface.band_bottom, "pixel_nm": config.pixel_size / 10,
        "preparation": Preparation().record(),
    }  # fmt: skip


def plan(config: ImpuritySimulation) -> Plan:
    """Lay the data set out: a group for each field, in short chains without a state."""
    groups = [_group(config, index) for index in range(config.fields)]
    size = (config.size, config.size)
    arrays = {
        "image": ArraySpec(
            ("channel", "y", "x"), (len(config.biases), *size), "float32", "prepared dI/dV",
            "maps averaged over the bias windows and prepared for a network", 4,
        ),
        "heat": ArraySpec(("y", "x"), size, "float32", "1", "largest of the Gaussian peaks at the impurities"),
        "pixel": ArraySpec(("y", "x"), size, "float32", "1", "1 at the nearest pixel of each impurity"),
        "positions": ArraySpec(
            ("impurity", "axis"), (_most(config), 2), "float32", "px", "y, x of the impurities, then rows of -1", 4
        ),
    }  # fmt: skip
    if config.keep_maps:
        arrays["maps"] = ArraySpec(
            ("bias", "y", "x"), (len(config.simulated_biases), *size), "float32", "mean dI/dV", "raw maps", 4
        )
    if config.generator == "experiment":
        arrays["bound_state"] = ArraySpec(("y", "x"), size, "float32", "1", "map at the band bottom", 4)
    return Plan(
        chains=tuple(tuple(groups[first : first + _CHAIN]) for first in range(0, len(groups), _CHAIN)),
        samples_per_group=1,
        arrays=arrays,
        state={},
        parameters=PARAMETERS,
        samples=(),
        scalars=SCALARS,
        attributes={
            "simulator_version": VERSION, "input": input_spec(config), "presets": list(config.preset),
            "map_biases": config.simulated_biases.tolist(),
        },
    )  # fmt: skip


def simulator(config: ImpuritySimulation) -> Simulator:
    """Return the function that makes one field."""
    most = _most(config)

    def simulate(group: Group, start: Arrays | None) -> GroupResult:
        name = WAVES[int(group.parameters["waves"])]
        make = {"experiment": _experiment, "paper": _paper}.get(name, _training)
        maps, positions, scalars, bound_state = make(config, group)
        windowed = maps
        if config.dense_biases is not None:
            windowed, _ = average(maps, config.simulated_biases, config.windows)
        size = (config.size, config.size)
        arrays: dict[str, NDArray[Any]] = {
            "image": prepare_stack(windowed),
            "heat": heat_map(positions, size),
            "pixel": pixel_map(positions, size),
            "positions": padded(positions, most),
        }
        if config.keep_maps:
            arrays["maps"] = np.asarray(maps, np.float32)
        if config.generator == "experiment":
            arrays["bound_state"] = bound_state
        return GroupResult(
            arrays={key: values[None] for key, values in arrays.items()},
            state={},
            scalars={"converged": 1.0, **scalars},
        )

    return simulate


Made = tuple[NDArray[Any], NDArray[np.float64], dict[str, float], NDArray[np.float32]]
_NO_MAP = np.zeros((0, 0), np.float32)


# Physics is imported where it is needed: it takes numba, which a server has not.
def _training(config: ImpuritySimulation, group: Group) -> Made:
    from stm_models.physics.surface.training_fields import training_field

    count = int(group.parameters["count"])
    field = training_field(
        WAVES[int(group.parameters["waves"])], replace(config.recipe(), impurities=(count, count)),
        np.random.default_rng([config.seed, group.index, _TRAINING]), config.surface, config.simulated_biases,
        config.pixel_size,
    )  # fmt: skip
    levels = {name: field.levels[name] for name in ("white", "one_over_f", "line")}
    scalars = {"decoys": float(len(field.decoys)), "oscillation": field.oscillation, **levels}
    return field.maps, field.positions, scalars, _NO_MAP


def _paper(config: ImpuritySimulation, group: Group) -> Made:
    from stm_models.physics.surface import friedel
    from stm_models.physics.surface.friedel_recipe import Recipe
    from stm_models.physics.surface.training_fields import strength

    count, volts = int(group.parameters["count"]), config.simulated_biases
    recipe = Recipe(size=config.size, impurities=(count, count), noise=config.eta)
    rng = np.random.default_rng([config.seed, group.index, _TRAINING])
    made = friedel.generate(recipe, volts, config.surface.wave_number(volts, config.pixel_size), 1, rng)
    positions, eta = made.draws.positions[0, :count], float(made.draws.noise[0])
    oscillation = strength(made.images[0] - eta * made.draws.normal[0].astype(np.float64), positions)
    white = eta / max(oscillation, 1e-12)
    scalars = {"decoys": 0.0, "oscillation": oscillation, "white": white, "one_over_f": 0.0, "line": 0.0}
    return made.images[0], positions, scalars, _NO_MAP


def _experiment(config: ImpuritySimulation, group: Group) -> Made:
    from stm_models.physics.surface import presets
    from stm_models.physics.surface.experiment import pseudo_experiment

    preset = presets.create(config.preset[int(group.parameters["preset"])])
    per_frame = group.parameters["count"] / _density(config)
    made = pseudo_experiment(
        replace(preset, impurities=(round(per_frame), round(per_frame))),
        np.random.default_rng([config.seed, group.index // len(config.preset), _EXPERIMENT]),
        material=config.surface, biases=config.simulated_biases, size=config.size, pixel_size=config.pixel_size,
    )  # fmt: skip
    levels = {name: getattr(preset, name) for name in ("white", "one_over_f", "line")}
    scalars = {"decoys": float(len(made.decoys)), "oscillation": made.oscillation, **levels}
    return made.maps, made.positions, scalars, made.bound_state


def _group(config: ImpuritySimulation, index: int) -> Group:
    rng = np.random.default_rng([config.seed, index, _LAYOUT])
    preset, waves, state = 0, config.generator, None
    count = int(rng.integers(*config.impurities, endpoint=True))
    if config.generator == "experiment":
        # As many fields of each preset have the same impurities, so that presets can be compared.
        rng = np.random.default_rng([config.seed, index // len(config.preset), _LAYOUT])
        preset = index % len(config.preset)
        state = index - preset
        low, high = _impurities(config.preset[preset])
        count = _of_frame(config, int(rng.integers(low, high, endpoint=True)))
    elif config.generator == "mixed":
        waves = "scattering" if rng.random() < config.scattering_share else "friedel"
    numbers = {"count": count, "waves": WAVES.index(waves), "preset": preset, "field": index}
    return Group(index, {name: float(value) for name, value in numbers.items()}, {}, state)


def _density(config: ImpuritySimulation) -> float:
    return (config.size / _FRAME) ** 2


def _of_frame(config: ImpuritySimulation, count: int) -> int:
    return max(1, round(count * _density(config)))


def _most(config: ImpuritySimulation) -> int:
    if config.generator != "experiment":
        return config.impurities[1]
    return _of_frame(config, max(_impurities(name)[1] for name in config.preset))


def _impurities(preset: str) -> tuple[int, int]:
    from stm_models.physics.surface import presets

    return presets.create(preset).impurities
