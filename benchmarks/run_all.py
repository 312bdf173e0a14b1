"""Every benchmark in a process of its own, and one table of what they found: BENCHMARKS.md and .json in --out.

One that fails, or takes longer than its limit, is named and harms no other; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _timing import machine

from stm_models.files import atomic_path, write_json

FOLDER = Path(__file__).resolve().parent
# Tables that take hours or need a data set: make cost, make accuracy, docs/networks.md.
APART = {"run_all", "cost", "hubbard_accuracy", "impurity_accuracy", "noise_limit"}
MINUTES = {True: 5.0, False: 30.0}
WORDS = 200  # of what a failed one said last
_PATIENCE = 20


def names(folder: Path) -> list[str]:
    """Return the benchmarks of a folder."""
    return sorted(path.stem for path in folder.glob("[a-z]*.py") if path.stem not in APART)


def measured(path: Path, quick: bool, minutes: float) -> dict[str, Any]:
    """Run one benchmark to its end or its limit: its own result, or a ``problem``; and ``seconds``."""
    start = time.monotonic()
    command = [sys.executable, str(path), "--json", *(["--quick"] if quick else [])]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )  # fmt: skip
    found: dict[str, Any] = {"name": path.stem}
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        out, err = process.communicate(timeout=60 * minutes)
        if process.returncode:
            found["problem"] = f"exit code {process.returncode}: {_last(err)}"
        else:
            found |= _result(out)
    except subprocess.TimeoutExpired:
        found["problem"] = f"not done after {minutes:g} minutes"
    finally:
        _end(process)
        signal.signal(signal.SIGTERM, before)
    return found | {"seconds": round(time.monotonic() - start, 1)}


def table(results: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> str:
    """Return the Markdown table: a row per ratio and error, and one per benchmark that gave none."""
    lines = [
        f"Measured {about['date']}, {'quick' if about['quick'] else 'in full'}: {about['machine']['cpu']}, "
        f"{about['machine']['cores']} cores, Python {about['machine']['python']}.",
        "",
        "| benchmark | figure | value |",
        "|---|---|---|",
    ]
    for result in results:
        if "problem" in result:
            problem = result["problem"].replace("|", "\\|")
            lines.append(f"| {result['name']} | **failed** | {problem} |")
            continue
        rows = [(key, value) for kind in ("ratios", "errors") for key, value in result[kind].items()]
        for name, (key, value) in zip([result["name"], *[""] * len(rows)], rows, strict=False):
            kind = " (error)" if key in result["errors"] and key not in result["ratios"] else ""
            lines.append(f"| {name} | {key}{kind} | {value:.4g} |")
    return "\n".join([*lines, ""])


def main(argv: list[str] | None = None, folder: Path = FOLDER) -> int:
    """Run them all, one after another; the table grows with every one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller problems: to see that they run")
    parser.add_argument("--only", nargs="+", choices=names(folder), metavar="NAME", help="these alone")
    parser.add_argument("--minutes", type=float, help="limit of each (default: 30, with --quick 5)")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), metavar="DIR")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    about = {"date": datetime.now(UTC).date().isoformat(), "quick": args.quick, "machine": machine()}
    results: list[dict[str, Any]] = []
    for name in args.only or names(folder):
        print(f"{name} …", file=sys.stderr, flush=True)
        results.append(measured(folder / f"{name}.py", args.quick, args.minutes or MINUTES[args.quick]))
        print(f"{name}: {results[-1].get('problem', 'done')}, {results[-1]['seconds']} s", file=sys.stderr, flush=True)
        write_json(args.out / "BENCHMARKS.json", {**about, "results": results})
        with atomic_path(args.out / "BENCHMARKS.md") as path:
            path.write_text(table(results, about), encoding="utf-8")
    print(table(results, about))
    failed = [result["name"] for result in results if "problem" in result]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _result(out: str) -> dict[str, Any]:
    try:
        found = json.loads(out.strip().splitlines()[-1])
        return {kind: found[kind] for kind in ("ratios", "errors", "detail")}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        return {"problem": f"it printed no result ({error!r})"}


def _last(said: str) -> str:
    return " ".join(said.strip().splitlines()[-1:])[:WORDS] or "it said nothing"


def _end(process: subprocess.Popen[str]) -> None:
    """Let a benchmark end the servers that it started, then end it with all that is left of them."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
