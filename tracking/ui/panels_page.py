"""The page of pictures: a row per run, a column for the input and every map."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from stm_models.errors import InputError
from stm_models.figures import tiles
from tracking.ui import panels, series
from tracking.ui.panels import Choice, Grid, Scale, Shown
from tracking.ui.site import Site
from tracking.ui.text import number

__all__ = ["choice_of", "context", "inlined", "inlined_bar", "tile"]

Source = Callable[[Shown, int, Choice, Scale], str]
Bar = Callable[[str], str]


def choice_of(asked: Sequence[tuple[str, str]]) -> Choice:
    """Read the parameters of an address.

    Raises
    ------
    InputError
        When sample or channel is no number.
    """
    one = dict(asked)
    try:
        sample, channel = int(one.get("sample") or 0), int(one.get("channel") or 0)
    except ValueError as error:
        raise InputError("sample and channel are numbers from 0: choose them with the sliders") from error
    return Choice(sample, channel, {"log": True, "linear": False}.get(one.get("scale", "")))


def context(
    site: Site, runs: Sequence[str], choice: Choice, source: Source | None = None, bar: Bar | None = None
) -> dict[str, Any]:
    """Return what the template needs.

    Parameters
    ----------
    source, bar : callable, optional
        Address of a picture and of a scale of colours; by default these of the server.

    Raises
    ------
    InputError
        When a run does not exist, or none has a panel.
    """
    found = series.read(site, runs)
    shown = panels.grid(panels.shown(site, found), choice)
    missing = [one.label for one in found if one.number not in {each.series.number for each in shown.panels}]
    return {
        "runs": ",".join(runs), "grid": shown, "choice": shown.choice, "missing": missing, "last": len(shown.names) - 1,
        "scale": {True: "log", False: "linear", None: ""}[choice.logarithmic],
        "name": shown.names[shown.choice.sample], "value": shown.values[shown.choice.sample] if shown.values else None,
        "kinds": list(shown.scales), "ends": (min(shown.values), max(shown.values)) if shown.values else (0.0, 0.0),
        "lines": [_line(one, shown, source or address) for one in shown.panels],
        "bars": [{"src": (bar or bar_address)(one.colours), "ends": one.ends, "log": one.logarithmic}
                 for one in shown.scales.values()],
    }  # fmt: skip


def address(one: Shown, sample: int, choice: Choice, scale: Scale) -> str:
    """Return the address of a picture on this server, without what stands before all addresses."""
    asked = {
        "run": one.run.id, "row": one.rows[sample], "kind": scale.kind, "channel": choice.channel,
        "low": repr(scale.low), "high": repr(scale.high), "colours": scale.colours, "log": int(scale.logarithmic),
    }  # fmt: skip
    return f"/panels/tile.png?{urlencode(asked)}"


def bar_address(colours: str) -> str:
    """Return the address of a scale of colours on this server."""
    return f"/panels/bar-{colours}.png"


def inlined(one: Shown, sample: int, choice: Choice, scale: Scale) -> str:
    """Return a picture as part of a page."""
    return _data(panels.picture(one.panel, one.rows[sample], choice.channel, scale))


def inlined_bar(colours: str) -> str:
    """Return a scale of colours as part of a page."""
    return _data(tiles.bar(colours))


def _scale_of(asked: Sequence[tuple[str, str]]) -> Scale:
    """Read a scale from the address of a picture.

    Raises
    ------
    InputError
        When an end is no number, or there are no such colours.
    """
    one = dict(asked)
    try:
        low, high = float(one["low"]), float(one["high"])
        if not -1e300 < low < 1e300 or not -1e300 < high < 1e300 or one["colours"] not in tiles.MAPS:
            raise ValueError
        if one.get("log") == "1" and not -300 <= low <= 300:
            raise ValueError
        return Scale(one["kind"], low, high, one["colours"], one.get("log") == "1")
    except (KeyError, ValueError) as error:
        raise InputError("the address of this picture has no scale: take it from the page of the panels") from error


def tile(site: Site, asked: Sequence[tuple[str, str]]) -> bytes:
    """Return the picture that an address asks for.

    Raises
    ------
    InputError
        When there is none.
    """
    one, scale = dict(asked), _scale_of(asked)
    panel = site.panel(one.get("run", "")) if one.get("run", "").isalnum() else None
    try:
        row, channel = int(one["row"]), int(one["channel"])
    except (KeyError, ValueError) as error:
        raise InputError("the address of this picture has no row or channel") from error
    if panel is None:
        raise InputError("this run has no panel")
    return panels.picture(panel, row, channel, scale)


def _line(one: Shown, shown: Grid, source: Source) -> dict[str, Any]:
    sample, choice = shown.choice.sample, shown.choice
    marked = panels.places(one, sample)
    height, width = one.panel.images.shape[-2:]
    overlay = _overlay(marked, height, width) if marked else ""
    cells = []
    for kind, scale in shown.scales.items():
        has = kind == "input" or panels.is_map(one.panel, kind)
        cells.append({"src": source(one, sample, choice, scale) if has else "", "kind": kind, "overlay": overlay})
    said = panels.words(one, sample)
    if marked and not said:
        said = ", ".join(f"{len(ones)} {name}" for name, ones in marked.items())
    return {"label": one.series.label, "id": one.series.run.id, "evaluation": one.run.id, "words": said, "cells": cells}


def _overlay(marked: dict[str, list[tuple[float, float, float]]], height: int, width: int) -> Markup:
    opening = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">')
    parts = [opening.format(width, height)]
    for x, y, _ in marked.get("true", []):
        parts.append(Markup('<circle cx="{:.2f}" cy="{:.2f}" r="1.6"/>').format(x, y))
    for x, y, confidence in marked.get("found", []):
        cross = Markup('<path d="M{:.2f} {:.2f}l2 2m-2 0l2-2"><title>confidence {}</title></path>')
        parts.append(cross.format(x - 1, y - 1, number(confidence)))
    return Markup("").join([*parts, Markup("</svg>")])


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
