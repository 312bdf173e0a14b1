"""The report of a reproduction of arXiv 2602.18890, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from stm_models.tasks.findings import spread_text
from stm_models.tasks.hubbard.reproduction_plan import TEST, TEST_U

__all__ = ["markdown"]


def markdown(report: Mapping[str, Any]) -> str:
    """Return the report for people; every number has its seeds, their spread and its runs."""
    lines = ["# Hubbard U from FT-LDOS images: arXiv 2602.18890 made again", "", "## Findings", ""]
    lines += [f"- {text}" for text in report["findings"]]
    lines += ["", *_sizes(report), "", "## Beside the paper", ""]
    lines += ["| | paper: MAE (eV), R² | ours: MAE (eV), R² | | runs |", "|---|---|---|---|---|"]
    for row in report["paper"]["errors"]:
        ours, theirs = row["ours"], row["paper"]
        lines.append(
            f"| {row['what']} | {theirs['mae']:g}, {theirs['r2']:g} | "
            f"{spread_text(ours['mae'])}, {spread_text(ours['r2'])} | {row['verdict']} | {_ids(row)} |"
        )
    alike = report["paper"]["similarity"]
    lines += [f"| {alike['what']} | > {alike['paper']:g} | {alike['ours']:.5f} | {alike['verdict']} | data |", ""]
    lines += ["## Errors", "", "![](errors.png)", ""]
    for measure, title in (("mae", "MAE (eV)"), ("r2", "R²")):
        lines += _table(report["table"], report["sets"]["tests"], measure, title)
    lines += ["## Images and components", "", "![](similarity.png)", "", "![](components.png)", ""]
    shares = ", ".join(
        f"{100 * share:.3g} % (R² of a line in U {follows:.3f})"
        for share, follows in zip(report["components"]["explained"], report["components"]["follows"], strict=True)
    )
    lines += [f"Variance explained by the first components: {shares}.", ""]
    lines += [*_attention(report["attention"]), *_transfer(report), *_efficiency(report["efficiency"])]
    if report["rings"]:
        lines += ["## Which |k| carry U", "", "![](rings.png)", ""]
        lines += _rings(report["rings"])
    lines += _variants(report["variants"])
    return "\n".join(lines)


def _sizes(report: Mapping[str, Any]) -> list[str]:
    config, data = report["config"], report["data"]
    size = config["image_size"] or "the preset's"
    return [
        f"Data of preset {config['preset']}, images of {size} px (the paper 256). Tests: {data[TEST]['states']} states "
        f"at the same U ({TEST}) and {data[TEST_U]['states']} at random U ({TEST_U}), all of chains that no training "
        f"has; the paper splits by image. {config['seeds']} seeds of weights, order and validation states; ± is the "
        "standard deviation over them; training data and tests are the same for all.", "",
        f"The paper's networks: {config['epochs']} epochs (the paper 40), learning rate {config['learning_rate']:g}, "
        f"{config['schedule']}. Networks named 'perturbed' were trained on perturbed images, "
        f"{config['perturbed_epochs']} epochs; all others, and every method without training, on clean ones. Methods "
        "that end in _3 use 3 principal components, as the paper's; ridge and kernel_ridge use 20. Whatever is without "
        "training was fitted for this report and has no run of its own.",
    ]  # fmt: skip


def _table(table: Mapping[str, Any], names: Sequence[str], measure: str, title: str) -> list[str]:
    lines = [f"{title}:", "", f"| method | {' | '.join(names)} | runs |", "|---" * (len(names) + 2) + "|"]
    for method, row in table.items():
        cells = [spread_text(row["sets"][name][measure]) for name in names]
        lines.append(f"| {method} | {' | '.join(cells)} | {_ids(row)} |")
    return [*lines, ""]


def _attention(attention: Mapping[str, Any]) -> list[str]:
    lines = ["## Where networks look", ""] if any(attention.values()) else []
    for network, seeds in attention.items():
        for one in seeds:
            for method, record in one["methods"].items():
                lines += [f"{network}, seed {one['seed']} (run {one['run'][:8]}), {method}: {record['statement']}.", ""]
                name = one["figures"][method]
                lines += [f"![](attention_{name}.png)", "", f"![](maps_{name}.png)", ""]
    return lines


def _transfer(report: Mapping[str, Any]) -> list[str]:
    names = report["sets"]["transfers"]
    if not names:
        return []
    lines = ["## Structures that were not trained on", ""]
    lines += [
        "MAE (eV) on all images; in brackets on those that the model's novelty takes for simulated ones like its own, "
        "and the share it calls outside.", "",
        f"| method | {TEST_U} | {' | '.join(names)} | runs |", "|---" * (len(names) + 3) + "|",
    ]  # fmt: skip
    for method, row in report["table"].items():
        cells = [_judged(row["sets"][name]) for name in (TEST_U, *names)]
        lines.append(f"| {method} | {' | '.join(cells)} | {_ids(row)} |")
    return [*lines, ""]


def _judged(cell: Mapping[str, Any]) -> str:
    text = spread_text(cell["mae"])
    if "outside" not in cell:
        return text
    inside = spread_text(cell["inside_mae"]) if "inside_mae" in cell else "none"
    return f"{text} ({inside}; {100 * cell['outside']['mean']:.0f} % outside)"


def _efficiency(curves: Mapping[str, Any]) -> list[str]:
    if not curves:
        return []
    lines = ["## How many states it takes", "", "![](efficiency.png)", ""]
    lines += ["The states that a network is not trained on choose its epoch; regressions do without them.", ""]
    lines += [f"| method | share of the states | MAE {TEST} (eV) | MAE {TEST_U} (eV) | runs |", "|---|---|---|---|---|"]
    for method, rows in curves.items():
        for row in rows:
            cells = [spread_text(row[test]["mae"]) for test in (TEST, TEST_U)]
            lines.append(f"| {method} | {row['fraction']:g} | {' | '.join(cells)} | {_ids(row)} |")
    return [*lines, ""]


def _rings(rings: Mapping[str, Any]) -> list[str]:
    limits = rings["edges"]
    heads = [f"{low:.1f}–{high:.1f}" for low, high in pairwise(limits)]
    cells = [spread_text(one["mae"]) for one in rings["fitted"]]
    lines = [
        f"MAE (eV) on {TEST_U} of a kernel ridge regression fitted to one ring of \\|k\\| (1/a) by itself:", "",
        f"| | {' | '.join(heads)} | runs |", "|---" * (len(heads) + 2) + "|",
        f"| kernel_ridge of one ring | {' | '.join(cells)} | {_ids(rings['fitted'][0])} |", "",
    ]  # fmt: skip
    for kind, text in (("without", "without the ring"), ("alone", "of the ring alone")):
        lines += [f"MAE (eV) on {TEST_U} {text}, |k| in 1/a; what is left out has the mean image's values:", ""]
        lines += [f"| method | whole | {' | '.join(heads)} | runs |", "|---" * (len(heads) + 3) + "|"]
        for method, row in rings["methods"].items():
            cells = [spread_text(one) for one in (row["whole"], *row[kind])]
            lines.append(f"| {method} | {' | '.join(cells)} | {_ids(row)} |")
        lines.append("")
    return lines


def _variants(variants: Mapping[str, Any]) -> list[str]:
    if not variants:
        return []
    lines = ["## Variants of the data", "", "| preset | method | MAE (eV) | R² | runs |", "|---|---|---|---|---|"]
    for variant, rows in variants.items():
        for method, row in rows.items():
            lines.append(
                f"| {variant} | {method} | {spread_text(row['mae'])} | {spread_text(row['r2'])} | {_ids(row)} |"
            )
    return [*lines, ""]


def _ids(row: Mapping[str, Any]) -> str:
    runs = ", ".join(run[:8] for run in row["runs"]) or "untrained"
    return f"{runs}; seeds {', '.join(map(str, row['seeds']))}"
