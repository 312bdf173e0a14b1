"""What data sets cost: measures a few states of every preset and writes the table docs/cost.md.

``python benchmarks/cost.py [--out FILE] [--preset NAME ...] [--json]``, or ``make cost``. Every preset is measured in
a fresh process with one numerical thread, as a worker has it, on the first chain with few values of U spread over
the whole range. Seconds are CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _chain import Measured, measure
from _timing import machine

from pipelines import settings
from stm_models.files import atomic_path
from stm_models.physics.moire.branches import create
from stm_models.tasks.hubbard.structure import structure

TASK = "hubbard"
ORDER = ("test", "quick", "paper", "fillings", "magnetic", "energies")
STATES = 5  # measured of each preset
GOAL = 100_000  # samples
TABLE = Path(__file__).parents[1] / "docs" / "cost.md"


@dataclass(frozen=True)
class Cost:
    """One preset: how large it is and what was measured of it."""

    preset: str
    branch: str
    atoms: int
    k_points: int
    matrices: int
    states: int
    chain: int
    draws: int
    pixels: str
    measured: Measured

    @property
    def state_s(self) -> float:
        """CPU seconds per state of a whole chain."""
        return self.measured.state_s(self.chain)

    @property
    def bytes_per_sample(self) -> float:
        """On disk, the sample's share of its state included."""
        return self.measured.bytes_per_group / self.draws

    def core_hours(self, samples: int) -> float:
        """CPU time of so many samples in h."""
        return samples / self.draws * self.state_s / 3600

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        own = {"state_s": self.state_s, "bytes_per_sample": self.bytes_per_sample}
        return asdict(self) | own | {"core_hours": self.core_hours(self.states * self.draws)}


def cost(preset: str) -> Cost:
    """Measure a few states of a preset."""
    loaded = settings.load(TASK, preset)
    config, plan = loaded.simulate, loaded.task.plan(loaded.simulate)
    branch = create(
        config.branch, structure(plan.chains[0][0].parameters), k_count=config.k_mesh,
        temperature=config.temperature, dielectric=config.dielectric, gate_distance=config.gate_distance,
        fock_range=config.fock_range, interlayer_scale=config.interlayer_scale,
    )  # fmt: skip
    count = min(STATES, len(plan.chains[0]))
    measured = measure(config.model_copy(update={"interaction_count": count}), count)
    return Cost(
        preset, config.branch, branch.lattice.size, len(branch.mesh.weights), len(branch.weights),
        len(plan.groups), len(plan.chains[0]), config.draws, f"{len(config.energies)} x {config.image_size}²", measured,
    )  # fmt: skip


def document(costs: list[Cost]) -> str:
    """Write the tables as Markdown."""
    here = machine()
    lines = [
        "# What data sets cost",
        "",
        "Made by `make cost` (`benchmarks/cost.py`); do not edit. Seconds are CPU seconds of one core, the one that a",
        f"worker uses. Machine: {here['cpu']}, {here['cores']} cores, Python {here['python']}.",
        "",
        "## Measured",
        "",
        f"Of each preset {STATES} states of one chain, with U spread over its whole range. The first state makes the",
        "structure and starts cold, the others start from the one before.",
        "",
        "| preset | branch | atoms | k points (matrices) | iterations per state | converged | first state, s "
        "| next states, s | peak memory, GiB | image | kB per sample |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in costs:
        seen = each.measured
        later = seen.iterations[1:] or seen.iterations
        lines.append(
            f"| {each.preset} | {each.branch} | {each.atoms} | {each.k_points} ({each.matrices}) "
            f"| {min(later):.0f} to {max(later):.0f} | {sum(seen.converged):.0f} of {len(seen.converged)} "
            f"| {seen.cpu_s[0]:.3g} | {seen.warm_s:.3g} | {seen.peak_gib:.2f} | {each.pixels} "
            f"| {each.bytes_per_sample / 1e3:.0f} |"
        )
    lines += [
        "",
        "## Extrapolated",
        "",
        "From the seconds above and the preset's own chain length, draws and replicates. Its steps in U are smaller",
        "than those measured, which saves iterations if anything. Workers share the core-hours.",
        "",
        "| preset | states | samples | samples per core-hour | core-hours | on disk, GB |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_row(each, each.preset, each.states * each.draws) for each in costs]
    lines += [_row(each, f"{each.preset}, {GOAL:,} samples", GOAL) for each in costs if each.preset == "paper"]
    return "\n".join(lines) + "\n"


def _row(each: Cost, name: str, samples: int) -> str:
    hours = each.core_hours(samples)
    return (
        f"| {name} | {samples // each.draws:,} | {samples:,} | {samples / hours:,.0f} | {hours:.3g} "
        f"| {samples * each.bytes_per_sample / 1e9:.3g} |"
    )


def main() -> None:
    """Measure, write the table, print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE, help="where the table goes (default: docs/cost.md)")
    parser.add_argument("--preset", action="append", choices=ORDER, help="only these (repeat; default: all)")
    parser.add_argument("--json", action="store_true", help="print all that was measured too")
    options = parser.parse_args()
    costs = []
    for preset in options.preset or ORDER:
        costs.append(cost(preset))
        print(f"{preset}: {costs[-1].state_s:.3g} s per state", file=sys.stderr, flush=True)
    with atomic_path(options.out) as part:
        part.write_text(document(costs), encoding="utf-8")
    if options.json:
        result = {"name": "cost", "machine": machine(), "presets": [each.as_dict() for each in costs]}
        print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
