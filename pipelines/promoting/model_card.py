"""The model card of a registered version: what it is, what it was made from, how good it is, what it is not for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment

from pipelines.scoring.robustness import judged_metric
from stm_models.tasks.base import Task
from stm_models.unfinished import scratch
from tracking import lineage, models, runs
from tracking.lineage import MEMBERS
from tracking.models import ModelVersionInfo
from tracking.rows import RunRow
from tracking.store import Store

__all__ = ["Card", "Section", "attach", "html", "make", "markdown"]

FOLDER, NAME = "card", "model_card"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ card.title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top;
padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8886; overflow-wrap: anywhere; } th { width: 16rem; }
</style></head><body>
<h1>{{ card.title }}</h1>
{% for section in card.sections %}<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% if section.rows %}<table>{% for name, value in section.rows %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>{% endif %}
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Section:
    """A part of a card: a paragraph, rows of name and value, or both."""

    title: str
    text: str = ""
    rows: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Card:
    """A model card, before it is written as Markdown or HTML."""

    title: str
    sections: tuple[Section, ...]


def make(store: Store, task: Task, version: ModelVersionInfo) -> Card:
    """Gather what the store knows of a version.

    Raises
    ------
    InputError
        When its run is gone.
    """
    row = runs.get(store, version.run_id)
    origin = lineage.origin(store, version)
    decides = judged_metric(task, row.metrics)
    beside = {key: value for key, value in row.metrics.items() if key.endswith(f".{decides}")}
    return Card(
        f"{version.name} version {version.version}",
        (
            Section("What it is", f"{task.title}. {_network(row)}.", (
                ("aliases", ", ".join(version.aliases) or "none"), ("SHA-256 of the file", version.sha256),
            )),
            Section("What it is not for", task.limits),
            Section("What it was made from", "", tuple((key, _text(value)) for key, value in origin.items())),
            Section("How good it is", f"Models are chosen by {decides}.", (
                *_numbers({decides: row.metrics[decides]} if decides in row.metrics else {}),
                *_numbers(beside),
                *_numbers({key: value for key, value in version.metrics.items() if key != decides}),
            )),
            Section("Gates", version.tags.get("gate.reason", "It has not been judged yet."), _gates(version.tags)),
        ),
    )  # fmt: skip


def markdown(card: Card) -> str:
    """Write a card as Markdown."""
    lines = [f"# {_plain(card.title)}"]
    for section in card.sections:
        lines += ["", f"## {_plain(section.title)}"]
        lines += ["", _plain(section.text)] if section.text else []
        if section.rows:
            lines += ["", "| | |", "|---|---|"]
            lines += [f"| {_plain(name)} | {_plain(value)} |" for name, value in section.rows]
    return "\n".join(lines) + "\n"


def html(card: Card) -> str:
    """Write a card as one HTML page without script or outside assets."""
    return Environment(autoescape=True).from_string(_PAGE).render(card=card)


def attach(store: Store, task: Task, version: ModelVersionInfo) -> None:
    """Write a version's card beside its run's files, and as the version's description."""
    card = make(store, task, version)
    text = markdown(card)
    with scratch() as folder:
        for suffix, content in (("md", text), ("html", html(card))):
            path = folder / f"{NAME}_{version.version}.{suffix}"
            path.write_text(content, encoding="utf-8")
            runs.existing(store, version.run_id).artifact(path, FOLDER)
    models.describe_version(store, version.name, version.version, text)


def _network(row: RunRow) -> str:
    members = row.tags[MEMBERS].count(",") + 1 if MEMBERS in row.tags else 1
    return f"{'Network' if members == 1 else f'Ensemble of {members}'} {row.tags.get('network', '?')}"


def _gates(tags: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found = json.loads(tags.get("gates", "[]"))
    rows = [(gate["name"], f"{gate['verdict']}: {gate['reason']}") for gate in found]
    if tags.get("gate.forced_by"):
        rows.append(("forced by", tags["gate.forced_by"]))
    return tuple(rows)


def _numbers(values: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(key, f"{value:.4g}") for key, value in sorted(values.items())]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plain(text: str) -> str:
    """Let nothing in ``text`` count as Markdown's table or as HTML."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
