"""Compare two programs that shall answer alike, batch by batch, alone and in company."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from deploy.exporting.errors import ExportError
from deploy.exporting.excuses import TOLERANCE, Array, Evaluate, Excuses, above, relative

__all__ = ["compare"]

_STEPPED = ("lower", "upper", "novelty")
"""Answers that are looked up in tables: they may jump as maps do."""


def compare(
    run: Evaluate,
    reference: Evaluate,
    truth: Evaluate | None,
    batches: Sequence[tuple[Array, ...]],
    maps: Collection[str],
    scale: Array,
    rng: np.random.Generator,
    *,
    by_row: bool = False,
) -> dict[str, float]:
    """Compare on batches of arguments, the images first.

    Parameters
    ----------
    by_row : bool
        As `deploy.exporting.parity.check_answers` has it; else all is as in `deploy.exporting.parity.check`, where the
        others, the result and the errors are described.
    """
    wanted = [reference(*batch) for batch in batches]
    if not all(np.isfinite(value).all() for part in wanted for value in part.values()):
        raise ExportError("the model itself gives NaN or infinity: train it anew; nothing was written")
    found = [run(*batch) for batch in batches]
    sizes = {name: _sizes([part[name] for part in wanted], by_row=by_row) for name in wanted[0]}
    may_jump = [*maps, *(name for name in _STEPPED if by_row and name in sizes)]
    table: dict[str, list[float]] = {name: [] for name in (*sizes, "rows")}
    problems: list[str] = []
    kinks = rounding = 0
    for number, (batch, want, got) in enumerate(zip(batches, wanted, found, strict=True)):
        _same_shapes(want, got)
        alone = _alone(run, batch)
        excuses = Excuses(reference, truth, scale, rng, batch, want)
        rows = [0.0]
        for name, parts in sizes.items():
            own, size = got[name], parts[number]
            errors = relative(own, want[name], size)
            apart = {
                row: float(relative(one[name], own[row : row + 1], size[row : row + 1])[0])
                for row, one in alone.items()
            }
            errors, apart = excuses.excuse_rounding(name, own, size, errors, apart)
            if name in may_jump:
                errors, apart = excuses.excuse_kinks(name, size, errors, apart)
            table[name].append(float(errors.max()))
            rows += apart.values()
        table["rows"].append(max(rows))
        kinks, rounding = kinks + excuses.kinks, rounding + excuses.rounding
        problems += [
            f"{name} does not change with the image as the model's does"
            for name in maps
            if _stuck(got[name], want[name])
        ]
    total = sum(len(batch[0]) for batch in batches)
    if kinks > len(may_jump) * (total // 2):
        problems.append(f"{kinks} of {len(may_jump) * total} {'maps' if maps else 'answers'} differ at kinks")
    if any(above(errors).any() for errors in table.values()):
        problems.append("errors above the limit")
    if problems:
        raise ExportError(_explain(problems, table, [len(batch[0]) for batch in batches]))
    return {name: max(errors) for name, errors in table.items()} | {"kinks": float(kinks), "rounding": float(rounding)}


def _alone(run: Evaluate, batch: tuple[Array, ...]) -> dict[int, Mapping[str, Array]]:
    """Return what the first, the middle and the last row of a batch are answered alone, by row."""
    count = len(batch[0])
    rows = sorted({0, count // 2, count - 1}) if count > 1 else []
    return {row: run(*(values[row : row + 1] for values in batch)) for row in rows}


def _sizes(values: Sequence[Array], *, by_row: bool) -> list[Array]:
    """Return what the errors of each batch's rows are measured in: the largest value of all, or see `compare`."""
    own = [np.abs(part).reshape(len(part), -1).max(axis=1).astype(np.float64) for part in values]
    rows = np.concatenate(own)
    return [np.maximum(part, np.median(rows) if by_row else rows.max()) for part in own]


def _stuck(got: Array, want: Array) -> bool:
    changes = [float(np.abs(part - part[:1]).max()) for part in (want, got)]
    return changes[0] > 10 * TOLERANCE * float(np.abs(want).max()) and not changes[1] > 0.5 * changes[0]


def _same_shapes(want: Mapping[str, Array], got: Mapping[str, Array]) -> None:
    shapes = [{name: value.shape for name, value in part.items()} for part in (want, got)]
    if shapes[0] != shapes[1]:
        raise ExportError(f"the ONNX graph gives shapes {shapes[1]}, the model {shapes[0]}")


def _explain(problems: list[str], table: Mapping[str, list[float]], rows: Sequence[int]) -> str:
    width = max(len(name) for name in ("relative error", *table)) + 1
    head = "relative error".ljust(width) + "".join(f"batch {count}".rjust(11) for count in rows)
    lines = [name.ljust(width) + "".join(f"{e:.1e}".rjust(11) for e in errors) for name, errors in table.items()]
    return "\n".join(
        [
            f"the ONNX graph does not do what the model does (limit {TOLERANCE:.0e}), nothing was written: "
            + "; ".join(dict.fromkeys(problems)),
            head,
            *lines,
        ]
    )
