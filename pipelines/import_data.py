"""Make a data set from files of other people's code: text `x y value` or PNG pictures, the label in the name.

Example: stm import ldos FOLDER --out theirs.zarr
         stm import images FOLDER --out theirs.zarr --colours turbo
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.lease import check_free, whole_folder
from stm_models.config import validate
from stm_models.data import digest
from stm_models.data.store import Store, create
from stm_models.errors import unknown
from stm_models.files import output_directory
from stm_models.progress import Progress
from stm_models.tasks import registry
from stm_models.tasks.base import Task
from stm_models.tasks.conventions import Convention, Survey

__all__ = ["arguments", "choose", "describe", "given", "import_folder", "run", "watch"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("convention", help="whose files: ldos (text x y value) or images (PNG)")
    parser.add_argument("folder", metavar="DIR", help="where the files are, sub-folders too")
    parser.add_argument("--out", required=True, metavar="DATA.zarr")
    parser.add_argument("--task", default="hubbard", help="the task whose conventions these are (default: hubbard)")
    parser.add_argument("--manifest", metavar="FILE.csv", help="columns file,U,group (default: DIR/manifest.csv)")
    parser.add_argument("--colours", help="images: turbo undoes the colour map (default), grey reads luma")
    parser.add_argument("--image-size", type=int, help="ldos: pixels along kx and ky (default 128)")
    parser.add_argument("--patch", help="ldos: disc about the middle (default), or all points")
    parser.add_argument("--radius", type=float, help="ldos: radius of the disc in lattice constants")
    parser.add_argument("--envelope", type=float, help="ldos: Gaussian envelope, fraction of the radius; 0: none")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Import."""
    task, convention = choose(args.task, args.convention)
    names = ("manifest", "colours", "image_size", "patch", "radius", "envelope")
    options = validate(convention.import_options, given(args, names), f"import {args.convention}")
    return import_folder(task, convention, Path(args.folder), options, Path(args.out))


def describe(result: dict[str, Any]) -> str:
    """Say what was made."""
    return (
        f"{result['data']}: {result['samples']} samples of {result['groups']} states from {result['source']}\n"
        f"digest {result['digest'][:16]}  recipe {result['recipe'][:16]}  {result['seconds']:.1f} s"
    )


def import_folder(task: Task, convention: Convention, folder: Path, options: Any, out: Path) -> dict[str, Any]:
    """Write the data set ``out`` from the files of ``folder``; whatever happens, ``out`` is whole or untouched.

    Parameters
    ----------
    task : Task
    convention : Convention
        One of the task's.
    folder : Path
        Where the files are.
    options : Config
        Values of ``convention.import_options``, validated.
    out : Path
        Not there yet, or an empty folder.

    Returns
    -------
    dict
        data (absolute path), source (name of ``folder``), recipe, digest, groups (states), samples, warnings, seconds.

    Raises
    ------
    InputError
        When ``out`` holds something or another process is writing it, or a file of ``folder`` cannot be used.
    """
    start = time.monotonic()
    out = out.absolute()
    check_free(out)
    output_directory(out.parent)
    survey = convention.survey(folder, options, watch)
    for warning in survey.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    attributes = _attributes(task, survey)
    with whole_folder(out, "importing") as part:  # another import may have ended meanwhile: it looks once more
        create(part, survey.plan, attributes)
        store = Store(part)
        for group in watch(survey.plan.groups, "import"):
            store.write(group, survey.read(group))
        whole = store.finish()
    return {
        "data": str(out),
        "source": folder.resolve().name,
        "recipe": attributes["recipe"],
        "digest": whole,
        "groups": len({group.state for chain in survey.plan.chains for group in chain}),
        "samples": len(survey.plan.groups),
        "warnings": list(survey.warnings),
        "seconds": round(time.monotonic() - start, 3),
    }


def choose(task: str, convention: str) -> tuple[Task, Convention]:
    """Find a task's convention by name; an unknown one raises InputError with the choices."""
    found = registry.get(task)
    conventions = found.conventions()
    if convention not in conventions:
        raise unknown(f"convention of {task}", convention, conventions)
    return found, conventions[convention]


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Return the options that were given on the command line; each convention refuses those it has not."""
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def watch(items: Sequence[Any], label: str) -> Iterator[Any]:
    """Go through ``items`` and report on stderr how far it is."""
    with Progress(len(items), label, "file") as bar:
        for item in items:
            yield item
            bar.update()


def _attributes(task: Task, survey: Survey) -> dict[str, Any]:
    version = str(survey.plan.attributes["simulator_version"])
    return {
        **survey.plan.attributes,
        "task": task.name,
        "imported": dict(survey.identity),
        "recipe": digest.recipe(task.name, survey.identity, version),
        "targets": [asdict(target) for target in task.targets],
    }
