"""List networks, with the number of their parameters and of the operations that one image takes.

Without PATTERN those of this project; with one, those of timm too. Operations are floating-point operations of a
forward pass in linear layers, convolutions and attention, a multiply-add counted as two.

Example: stm models 'timm:convnext_*' --size 64
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
from dataclasses import asdict
from typing import Any

from stm_models.errors import InputError
from stm_models.networks import registry, timm_backbone
from stm_models.networks.cost import cost
from stm_models.progress import Progress

__all__ = ["arguments", "describe", "run"]

_MOST = 300


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help="a name, or one with * and ?, e.g. 'resnet*'")
    parser.add_argument("--channels", type=int, default=1, metavar="C", help="of the images (default: 1)")
    parser.add_argument("--size", type=int, default=64, metavar="N", help="images of N x N pixels (default: 64)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """List."""
    for option, value, most in (("--channels", args.channels, 4096), ("--size", args.size, 8192)):
        if not 1 <= value <= most:
            raise InputError(f"{option} is {value}: expected 1 to {most}")
    names = _matching(args.pattern) if args.pattern else registry.names()
    shape = (args.channels, args.size, args.size)
    listed = []
    with Progress(min(len(names), _MOST), "models", "network") as bar:
        for name in names[:_MOST]:
            listed.append(_row(name, shape))
            bar.update(note=name)
    return {"channels": args.channels, "size": args.size, "matching": len(names), "models": listed}


def describe(result: dict[str, Any]) -> str:
    """Make a table."""
    width = max(len(row["name"]) for row in result["models"])
    lines = [
        f"for images of {result['channels']} x {result['size']} x {result['size']}; a multiply-add is two operations",
        f"{'network':<{width}}  parameters  operations  pretrained",
    ]
    for row in result["models"]:
        if row["problem"]:
            problem = row["problem"].removeprefix(f"network {row['name']!r} ")
            lines.append(f"{row['name']:<{width}}  {problem}")
            continue
        pretrained = ", ".join(row["pretrained"][:2]) + (", ..." if len(row["pretrained"]) > 2 else "")
        numbers = f"{_short(row['parameters']):>10}  {_short(row['flops']):>10}"
        lines.append(f"{row['name']:<{width}}  {numbers}  {pretrained}".rstrip())
    if result["matching"] > len(result["models"]):
        lines.append(f"and {result['matching'] - len(result['models'])} more: give a narrower pattern")
    return "\n".join(lines)


def _matching(pattern: str) -> list[str]:
    own = fnmatch.filter(registry.names(), pattern)
    # A name of ours means ours; timm has many of the same name.
    names = own if own == [pattern] else [*own, *timm_backbone.matching(pattern)]
    if not names:
        known = [*timm_backbone.matching("*"), *registry.names()]
        full = {name.rpartition(":")[2]: name for name in known}
        near = [full[name] for name in difflib.get_close_matches(pattern.rpartition(":")[2], full, n=4)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise InputError(f"no network matches {pattern!r}: give a name, or a pattern such as 'timm:resnet*'{hint}")
    return names


def _row(name: str, shape: tuple[int, int, int]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "problem": None, "pretrained": registry.published(name)}
    try:
        return row | asdict(cost(name, shape))
    except InputError as error:
        return row | dict.fromkeys(("parameters", "flops", "features")) | {"problem": str(error)}


def _short(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
