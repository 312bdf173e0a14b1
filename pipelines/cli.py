"""The command line: finds the command's module, runs it, prints its result, turns errors into exit codes."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence

from deploy.exporting.errors import ExportError
from pipelines import trouble
from stm_models import __version__
from stm_models.errors import InputError, unknown

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "simulate": "make a data set from physics",
    "import": "make a data set from files of other people's code",
    "convert": "write a data set as files for other people's code",
    "inspect": "draw what is in a data set, a measured file, or a run's network",
    "models": "list the networks, with what they cost",
    "train": "train one network on a data set",
    "ensemble": "join trainings of several seeds into one model",
    "tune": "search training parameters with Optuna",
    "evaluate": "score a model on a data set",
    "explain": "show what a prediction depends on, and judge the maps",
    "export": "turn a run's model into one ONNX file and register it",
    "promote": "make a run's model the champion, if it earns it",
    "lineage": "tell where a model comes from, or what was made from data",
    "rerun": "train a run again and say whether it comes out the same",
    "predict": "ask a model about a data set, an array or a map",
    "serve": "serve a model over HTTP",
    "compare": "browse and compare runs in the browser",
    "report": "write the comparison of runs as one HTML file",
    "sync": "send the runs that wait for their tracking store",
    "reproduce": "make the results of a task's paper again",
    "demo": "from simulation to a served, explained model, in a quarter of an hour",
    "doctor": "check this installation",
}
_MODULES = {"import": "import_data", "inspect": "inspect_input"}  # where a command's module is not named like it
_interrupted: list[bool] = []
_OURS = ("deploy", "pipelines", "stm_models", "tracking")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``stm`` with ``argv``; return 0, 2 for bad input, 130 when interrupted, 1 for anything else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # closed by who called
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if argv is None:
        atexit.register(_end_as_told)  # before all others, to be the last
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() not in ("utf-8", "utf8"):
            stream.reconfigure(errors="replace")  # a locale that has no such letter is no reason to fail
    try:
        try:
            return _answer(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a reader that left is expected
    except InputError as error:
        return _refuse(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in _OURS:
            raise
        return _refuse(
            f"stm {arguments[0]} needs the package {error.name!r}, which is not installed: "
            "install stm-lab[train], or in a checkout run make setup"
        )
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept", file=sys.stderr)
        _interrupted.append(True)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if isinstance(error, ExportError):
            print(f"error: {error}", file=sys.stderr)
            return 1
        if (reason := trouble.told(error)) is None:
            raise
        return _refuse(reason)


def _end_as_told() -> None:
    """End with 130 after an interrupt: by SIGINT Python ends where that met code made of text, as dataclasses are."""
    if _interrupted:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(130)


def _answer(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] == "--version":
        print(f"stm-lab {__version__}")
        return 0
    return _run(arguments[0], arguments[1:])


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        raise unknown("command", command, COMMANDS)
    module = importlib.import_module(f"pipelines.{_MODULES.get(command, command)}")
    parser = argparse.ArgumentParser(
        prog=f"stm {command}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, nothing else")
    args = parser.parse_args(arguments)
    # Libraries may print; stdout belongs to the result.
    with contextlib.redirect_stdout(sys.stderr):
        result = module.run(args)
    print(json.dumps(result, allow_nan=False) if args.json else module.describe(result))
    for reason in result.get("unanswered", ()):  # of several inputs; the others are answered
        _refuse(reason)
    return 2 if result.get("unanswered") else 0


def _refuse(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _overview() -> str:
    lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        ["usage: stm COMMAND [options]    (stm COMMAND --help tells more)", "",
         "From simulated STM images to a served, explained model.", "", *lines]
    )  # fmt: skip
