"""Ask a model about a data set, an array, or a measured map; of a map the model's task makes its input.

A map (.mat, .npz, .npy with --size-nm, text columns x y value, an instrument file) for hubbard is Fourier-transformed
onto the model's k grid; what lies beyond the map's Nyquist vector is masked and said. For impurity a stack of dI/dV
maps over bias (.3ds, or .npz with data, bias and size_nm), a field of any size, is averaged over the model's bias
windows and brought to its pixels; the answer is a table of positions with a picture.
A .npy of the model's own shape without --size-nm is taken as an image already made.

Example: stm predict models:/stm-hubbard@champion map.npy --size-nm 20x20 --explain gradient --out answer
         stm predict models:/stm-impurity@champion grid.3ds --out answer
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.model import asking, questions
from deploy.model.session import Session
from pipelines.addresses import MODEL, local_file
from stm_models.errors import InputError
from stm_models.tasks.registry import get

__all__ = ["arguments", "ask", "describe", "reading_arguments", "reading_of", "run"]

_SHOWN = 12


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="data set or file")
    parser.add_argument(
        "--explain", metavar="METHOD", help="also write this map of the model file, e.g. gradient; needs --out"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="write prediction.json, tables and, of at most 16 samples, maps and pictures here, "
        "several inputs into folders",
    )
    reading_arguments(parser)


def reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how to read a file."""
    parser.add_argument("--key", help="name of the array in a .mat or .npz file")
    parser.add_argument(
        "--bias", type=float, metavar="V", help="take the map nearest to it; for stacks whose file states its biases"
    )
    parser.add_argument(
        "--channel", type=questions.parse_channel, metavar="NAME|N",
        help="signal of an instrument file, or number of the map in a stack, from 0",
    )  # fmt: skip
    parser.add_argument(
        "--size-nm", metavar="HxW", help="height and width of the field in nm, or one number for a square"
    )
    parser.add_argument("--rotate", metavar="DEG", help="turn the map counter-clockwise by so many degrees first")
    parser.add_argument(
        "--atom-width", metavar="NM", help="standard deviation of one atom in the map, 0 where atoms are points"
    )
    parser.add_argument("--sample", type=int, help="row of a data set (default: predict takes all, explain the first)")
    parser.add_argument("--provider", default="auto", help="auto, cpu or cuda")


def reading_of(args: argparse.Namespace) -> questions.Reading:
    """Return how these options say that files are read."""
    size = questions.parse_size(args.size_nm) if args.size_nm is not None else None
    samples = None if args.sample is None else (args.sample,)
    angle = None if args.rotate is None else questions.parse_angle(args.rotate)
    width = None if args.atom_width is None else questions.parse_width(args.atom_width)
    return questions.Reading(args.key, args.bias, args.channel, size, samples, angle, width)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Ask."""
    return ask(args, args.explain)


def ask(args: argparse.Namespace, explain: str | None) -> dict[str, Any]:
    """Ask about every input; write files where ``args.out`` says so.

    Returns
    -------
    dict
        ``model`` (path), ``sha256``, ``task``, ``answers`` (list of dict, see `asking.answer_from`), ``files``
        (paths written), ``notes`` (list of str: what was left out), ``unanswered`` (list of str: of several inputs,
        those that could not be answered, and why).

    Raises
    ------
    InputError
        For an explanation without a folder to write it to, and for whatever `asking` refuses of a single input.
    """
    if explain is not None and not args.out:
        raise InputError(f"--explain {explain} writes maps, but --out is missing: say where with --out DIR")
    path = local_file(args.model)
    session = Session(path, provider=args.provider)
    reading = reading_of(args)
    result: dict[str, Any] = {
        "model": str(path), "sha256": session.metadata.sha256, "task": session.metadata.task,
        "answers": [], "files": [], "notes": [], "unanswered": [],
    }  # fmt: skip
    for item, folder in zip(args.inputs, _folders(args.inputs), strict=True):
        try:
            found = _ask_one(item, session, reading, explain, Path(args.out) / folder if args.out else None)
        except InputError as error:
            if len(args.inputs) == 1:
                raise
            result["unanswered"].append(str(error) if Path(item).name in str(error) else f"{item}: {error}")
        else:
            for key, values in found.items():
                result[key] += values
    return result


def _ask_one(
    item: str, session: Session, reading: questions.Reading, explain: str | None, out: Path | None
) -> dict[str, list[Any]]:
    """Return ``answers``, ``files`` and ``notes`` of one input; write into ``out`` if there is one."""
    question = questions.read_question(item, session, reading)
    answers, outputs = asking.answer(session, question, explain)
    files: list[str] = []
    notes: list[str] = []
    if out is not None:
        files = asking.write_answers(out, session, question, answers, explain, outputs)
        drawn = [path for path in files if path.endswith(".png") and not path.endswith(f"_{explain}.png")]
        if drawn and len(answers) > asking.MAPS_AT_MOST:
            notes.append(
                f"{item}: pictures of the first {asking.MAPS_AT_MOST} of {len(answers)} samples only, tables of all; "
                "--sample chooses another"
            )
    if explain is not None and len(outputs[explain]) < len(answers):
        notes.append(
            f"{item}: {explain} maps of the first {len(outputs[explain])} of {len(answers)} samples only; "
            "--sample chooses another"
        )
    return {"answers": answers, "files": files, "notes": notes}


def describe(result: dict[str, Any]) -> str:
    """Give the answers in words."""
    task = get(result["task"])
    lines = [f"{entry['name']}: {task.words(entry)}; {entry['verdict']}" for entry in result["answers"][:_SHOWN]]
    lines += [f"  note: {note}" for note in dict.fromkeys(n for e in result["answers"] for n in e["notes"])]
    if len(result["answers"]) > _SHOWN:
        lines.append(f"... and {len(result['answers']) - _SHOWN} more; --json or --out gives them all")
    lines += [f"  wrote {path}" for path in result["files"]]
    return "\n".join(lines + [f"  note: {note}" for note in result["notes"]])


def _folders(inputs: Sequence[str]) -> list[str]:
    """Name one folder per input after it, numbered where several would share one; one input needs none."""
    if len(inputs) == 1:
        return ["."]
    # abspath: the stem of ".." would lead out of the folder.
    stems = [Path(os.path.abspath(item)).stem for item in inputs]
    count = Counter(stems)
    taken = {stem for stem in stems if count[stem] == 1}
    names = []
    for stem in stems:
        name, number = stem, 0
        while count[stem] > 1 and (number == 0 or name in taken):
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        names.append(name)
    return names
