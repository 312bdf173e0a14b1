"""Registered models: aliases, gates, champion against challenger, and where each came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from stm_models.errors import unknown
from tracking.backend import MlflowException
from tracking.registry import ModelVersionInfo
from tracking.rows import RunRow
from tracking.ui.site import Site
from tracking.ui.text import clip, number
from tracking.ui.values import Values

__all__ = ["context", "listing"]

_LARGEST = 200_000  # characters of a card
_SIDES = ("champion", "challenger")
_BOX, _GAP, _LINE = 190, 44, 46


def listing(site: Site) -> list[dict[str, Any]]:
    """Return the models with their aliases."""
    models: dict[str, list[ModelVersionInfo]] = {}
    for info in site.versions():
        models.setdefault(info.name, []).append(info)
    return [
        {
            "name": name, "versions": len(infos),
            "aliases": [f"{alias} → {info.version}" for info in infos for alias in info.aliases],
        }
        for name, infos in models.items()
    ]  # fmt: skip


def context(site: Site, name: str, base: str | None = "") -> dict[str, Any]:
    """Return what the template of one model needs.

    Parameters
    ----------
    base : str or None
        What addresses begin with; ``None`` for no links.

    Raises
    ------
    InputError
        When there is no such model.
    """
    found = [info for info in site.versions() if info.name == name]
    if not found:
        raise unknown("registered model", name[:80], sorted({info.name for info in site.versions()}))
    values = site.values()
    rows = values.snapshot.by_id
    named = [info for info in found if info.aliases]
    return {
        "name": name, "versions": [_version(site, info, rows) for info in found],
        "lineage": lineage(named or found[:1], rows, name, base), "sides": _sides(found, values),
        "cards": [card for info in (named or found[:1]) if (card := _card(site, info))],
    }  # fmt: skip


def lineage(infos: Sequence[ModelVersionInfo], rows: dict[str, RunRow], name: str, base: str | None = "") -> Markup:
    """Draw alias, version, run and data of some versions, from left to right; runs link to their pages."""
    columns: list[list[str]] = [[], [], [], []]
    texts: dict[str, tuple[str, str]] = {}
    edges: list[tuple[str, str]] = []

    def node(column: int, key: str, text: str, link: str = "") -> str:
        if key not in texts:
            columns[column].append(key)
            texts[key] = (text, link)
        return key

    for info in infos[:12]:
        version = node(1, f"v{info.version}", f"version {info.version}")
        edges += [(node(0, f"a{alias}", f"@{alias}"), version) for alias in info.aliases]
        row = rows.get(info.run_id)
        run = node(2, f"r{info.run_id}", row.name if row else "run that is gone", f"/runs/{info.run_id}" if row else "")
        edges.append((version, run))
        digest = info.digest or (row.tags.get("data.digest") if row else None)
        if digest:
            edges.append(
                (
                    run,
                    node(
                        3, f"d{digest}", f"data {digest[:12]}", f"/?q=%22{digest[:12]}%22" if digest.isalnum() else ""
                    ),
                )
            )
    height = _LINE * max(map(len, columns)) + 10
    width = 4 * _BOX + 3 * _GAP + 4
    places = {
        key: (column * (_BOX + _GAP) + 2, 5 + (row + 0.5) * (height - 10) / len(keys) - 15)
        for column, keys in enumerate(columns)
        for row, key in enumerate(keys)
    }
    parts = [
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" class="plot lineage" viewBox="0 0 {w} {h}" width="{w}" '
            'height="{h}" role="group" aria-label="lineage of {name}"><title>lineage of {name}</title>'
        ).format(w=width, h=height, name=clip(name, 80))
    ]
    for one, other in dict.fromkeys(edges):
        (x0, y0), (x1, y1) = places[one], places[other]
        edge = Markup('<path class="axis" fill="none" d="M{:.0f} {:.0f}L{:.0f} {:.0f}"/>')
        parts.append(edge.format(x0 + _BOX, y0 + 15, x1, y1 + 15))
    for key, (x, y) in places.items():
        text, link = texts[key]
        label = Markup('<text x="{:.0f}" y="{:.0f}">{}</text>').format(x + 8, y + 20, clip(text, 24)[:26])
        box = Markup('<rect x="{:.0f}" y="{:.0f}" width="{}" height="30" rx="4"/>').format(x, y, _BOX)
        parts += [
            box,
            Markup('<a href="{}{}">{}</a>').format(base, link, label) if link and base is not None else label,
        ]
    return Markup("").join([*parts, Markup("</svg>")])


def _version(site: Site, info: ModelVersionInfo, rows: dict[str, RunRow]) -> dict[str, Any]:
    gates = {key.removeprefix("gate."): text for key, text in info.tags.items() if key.startswith("gate.") and text}
    row = rows.get(info.run_id)
    return {
        "version": info.version, "aliases": info.aliases, "run": info.run_id if row else "",
        "run_name": row.name if row else "gone", "digest": info.digest or "", "sha256": info.sha256,
        "commit": info.tags.get("git_commit", ""), "gates": sorted(gates.items()),
        "tags": sorted((key, text) for key, text in info.tags.items() if not key.startswith(("gate.", "metric."))),
    }  # fmt: skip


def _sides(found: Sequence[ModelVersionInfo], values: Values) -> list[dict[str, Any]]:
    """Return the metrics of champion and challenger, where these are two versions."""
    sides = [next((info for info in found if alias in info.aliases), None) for alias in _SIDES]
    champion, challenger = sides
    if champion is None or challenger is None or champion.version == challenger.version:
        return []
    row = values.snapshot.by_id.get(challenger.run_id)
    lines = []
    for name in values.ordered(sorted(set(champion.metrics) & set(challenger.metrics))):
        theirs, ours = champion.metrics[name], challenger.metrics[name]
        larger = values.larger(row, name) if row is not None else None
        better = None if larger is None or ours == theirs else (ours > theirs) == larger
        lines.append({"metric": name, "champion": number(theirs), "challenger": number(ours), "better": better})
    return lines


def _card(site: Site, info: ModelVersionInfo) -> dict[str, Any] | None:
    """Return the model card of a version, which is its description; shown as plain text."""
    try:
        text = site.store.client.get_model_version(info.name, str(info.version)).description or ""
    except MlflowException:
        text = ""
    return {"version": info.version, "text": clip(text, _LARGEST)} if text else None
