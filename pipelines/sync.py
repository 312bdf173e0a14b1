"""Send the runs that are kept in spools because their store was away; of a copied folder, those of another machine.

Example: stm sync .stm-spool
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stm_models.errors import InputError
from tracking import spool, syncing

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "folder", nargs="*", help="spools or folders of spools (default: STM_SPOOL, else .stm-spool here)"
    )
    parser.add_argument(
        "--to",
        metavar="URI",
        help="store for runs that are in none yet (default: the one they were meant for)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Send."""
    given = [Path(name).absolute() for name in args.folder if name]
    for folder in given:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: give one that stm wrote its spools to")
    folders = given or [spool.root()]
    found = []
    for each in syncing.sync(folders, args.to):
        found.append(asdict(each))
        print(_line(found[-1]))
    return {"folders": [str(folder) for folder in folders], "runs": found}


def describe(result: dict[str, Any]) -> str:
    """Count."""
    states = [each["state"] for each in result["runs"]]
    if not states:
        return f"nothing to send in {' '.join(result['folders'])}"
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(states)} {'run' if len(states) == 1 else 'runs'}: {counts}"


def _line(sent: dict[str, Any]) -> str:
    text = f"{spool.PREFIX}{sent['spool']} ({sent['experiment']}, {sent['name']}): {sent['state']}"
    text += f", {sent['records']} records to run {sent['run_id']} of {sent['store']}" if sent["run_id"] else ""
    return "\n".join([text, *(f"  {reason}" for reason in sent["refused"])])
