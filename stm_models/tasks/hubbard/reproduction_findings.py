"""What the numbers of a reproduction say, in sentences that are made from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stm_models.tasks.hubbard.reproduction_plan import TEST, TEST_U

__all__ = ["findings"]

_SHOWN = 4
_NEEDED = 1.1  # times the whole image's error


def findings(report: Mapping[str, Any]) -> list[str]:
    """Return a list of sentences, the comparison with the paper first."""
    texts = [
        f"{row['what']}: MAE {row['ours']['mae']['mean']:.3f} eV, R² {row['ours']['r2']['mean']:.3f} (the paper "
        f"{row['paper']['mae']:g} and {row['paper']['r2']:g}): {row['verdict']}{_because(row)}."
        for row in report["paper"]["errors"]
    ]
    row = report["paper"]["similarity"]
    texts.append(f"{row['what']}: {row['ours']:.5f} (the paper {row['paper']:g}): {row['verdict']}{_because(row)}.")
    for row in report["paper"]["attention"]:
        values = ", ".join(f"{value:.2f}" for value in row["crossovers"]) or "none"
        texts.append(
            f"{row['what']}: in {row['outwards']} of {len(row['seeds'])} seeds, the other way in {row['inwards']}; "
            f"crossovers (eV): {values}; the paper: {row['paper']}: {row['verdict']}{_because(row)}."
        )
    table = report["table"]
    texts += [_best(table, name) for name in report["sets"]["tests"]]
    texts += _transfer(report)
    texts += _efficiency(report)
    texts += _rings(report)
    for variant, rows in report["variants"].items():
        words = [f"{name} {one['mae']['mean']:.3f} (R² {one['r2']['mean']:.3f})" for name, one in rows.items()]
        texts.append(f"Preset {variant}, fresh chains, MAE in eV: {'; '.join(words)}.")
    return texts


def _because(row: Mapping[str, Any]) -> str:
    return f", likely since {row['why']}" if row["why"] else ""


def _best(table: Mapping[str, Any], name: str) -> str:
    values = {method: row["sets"][name]["mae"]["mean"] for method, row in table.items()}
    ranked = sorted(values, key=lambda method: values[method])
    words = " < ".join(f"{method} {values[method]:.3f}" for method in ranked[:_SHOWN])
    return f"{name}, MAE in eV, the best: {words}."


def _transfer(report: Mapping[str, Any]) -> list[str]:
    """Judge our networks on structures that were not trained on; how well the verdict protects."""
    texts = []
    for name in report["sets"]["transfers"]:
        for method, row in report["table"].items():
            cell = row["sets"][name]
            if not method.startswith(report["ours"]) or "outside" not in cell:
                continue
            inside = (
                f"MAE {cell['inside_mae']['mean']:.3f} on those it takes" if "inside_mae" in cell else "none is left"
            )
            own = row["sets"][TEST_U]["mae"]["mean"]
            texts.append(
                f"{name}: {method} errs by {cell['mae']['mean']:.3f} eV ({own:.3f} on its own structure); novelty "
                f"calls {100 * cell['outside']['mean']:.0f} % outside, {inside}."
            )
    return texts


def _efficiency(report: Mapping[str, Any]) -> list[str]:
    texts = []
    for method, rows in report["efficiency"].items():
        values = ", ".join(f"{row[TEST]['mae']['mean']:.3f} at {row['fraction']:g}" for row in rows)
        texts.append(f"{method}, MAE on {TEST} in eV against the share of the states trained on: {values}.")
    return texts


def _rings(report: Mapping[str, Any]) -> list[str]:
    if not report["rings"]:
        return []
    limits, fitted = report["rings"]["edges"], [row["mae"]["mean"] for row in report["rings"]["fitted"]]
    ranked = sorted(range(len(fitted)), key=lambda ring: fitted[ring])
    words = " < ".join(f"{fitted[ring]:.3f} ({_between(limits, ring)})" for ring in ranked[:_SHOWN])
    texts = [
        f"One ring of |k| by itself, a kernel ridge regression fitted to it, MAE on {TEST_U} in eV: {words}; the least "
        f"has {fitted[ranked[-1]]:.3f} ({_between(limits, ranked[-1])})."
    ]
    for method, row in report["rings"]["methods"].items():
        without, alone = ([one["mean"] for one in row[kind]] for kind in ("without", "alone"))
        worst, best, whole = without.index(max(without)), alone.index(min(alone)), row["whole"]["mean"]
        if max(without) <= _NEEDED * whole:
            texts.append(f"{method} needs no ring of |k|: MAE {max(without):.3f} eV without one, {whole:.3f} with all.")
            continue
        texts.append(
            f"{method} needs |k| = {_between(limits, worst)} most: MAE {without[worst]:.3f} eV without it, {whole:.3f} "
            f"with all; of single rings {_between(limits, best)} says most alone, {alone[best]:.3f}."
        )
    return texts


def _between(limits: list[float], ring: int) -> str:
    return f"{limits[ring]:.2f} to {limits[ring + 1]:.2f} 1/a"
