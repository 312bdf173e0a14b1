"""The pages as templates; every value is escaped."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tracking.ui import svg, text

__all__ = ["page", "script", "style"]

_HERE = Path(__file__).parent


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, auto_reload=False,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"number": text.number, "clip": text.clip, "duration": text.duration, "spread": text.spread}
    return templates


def page(name: str, /, *, base: str = "", **values: Any) -> str:
    """Return a page with its values filled in, escaped.

    Parameters
    ----------
    name : str
        Of the template without its ending.
    base : str
        What addresses begin with, where the pages are a part of another server's.
    """
    return _templates().get_template(f"{name}.html").render(base=base, **values)


@cache
def style() -> str:
    """Return the style sheet, that of plots with it."""
    return (_HERE / "static" / "style.css").read_text(encoding="utf-8") + svg.STYLE


@cache
def script() -> str:
    """Return the script."""
    return (_HERE / "static" / "live.js").read_text(encoding="utf-8")
