"""The table of `hubbard_accuracy`: means and spreads over the fits of each row, as an object and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import _project  # noqa: F401

from stm_models.tasks.findings import spread, spread_text

__all__ = ["summary", "table"]


def summary(fits: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1) and values over the fits of a row; its recipe is that of the first."""
    first, abouts = fits[0]["about"], [fit["about"] for fit in fits]
    found: dict[str, Any] = {"fits": len(fits), "recipe": fits[0]["recipe"]}
    found |= {key: first[key] for key in ("parameters", "flops") if key in first}
    found |= {key: spread([one[key] for one in abouts]) for key in ("cpu_seconds", "best_epoch") if key in first}
    if "seconds_to_mark" in first:
        found["seconds_to_mark"] = [one["seconds_to_mark"] for one in abouts]
    found["scores"] = {
        place: {key: spread([fit["scores"][place][key] for fit in fits]) for key in keys}
        for place, keys in fits[0]["scores"].items()
    }
    return found


def table(result: Mapping[str, Any], mark: float) -> str:
    """Markdown: one table of errors and R² for each set of samples, one of costs; ``mark`` (eV) stopped the clock."""
    rows = result["rows"]
    sets = [key.removesuffix("r2") for key in next(iter(rows.values()))["scores"]["fresh"] if key.endswith("r2")]
    lines = []
    for place, count in result["samples"].items():
        head = [f"{place} ({count})", *(f"{name.rstrip('.') or 'clean'} MAE, R²" for name in sets), "mean MAE"]
        lines += [*_head(head)]
        for name, row in rows.items():
            scores = row["scores"][place]
            cells = [f"{spread_text(scores[f'{one}mae'])}, {spread_text(scores[f'{one}r2'], 4)}" for one in sets]
            lines.append(_line([name, *cells, spread_text(scores["robust_mae"])]))
        lines.append("")
    lines += _head(["row", "fits", "parameters", "FLOPs", "CPU s", f"CPU s to {mark} eV"])
    for name, row in rows.items():
        marks = ["-" if one is None else f"{one:.0f}" for one in row.get("seconds_to_mark", [])]
        counts = [f"{row[key]:.3g}" if key in row else "" for key in ("parameters", "flops")]
        lines.append(_line([name, str(row["fits"]), *counts, spread_text(row["cpu_seconds"], 0), " ".join(marks)]))
    return "\n".join(lines)


def _head(cells: list[str]) -> list[str]:
    return [_line(cells), "|" + "---|" * len(cells)]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
