"""Show what a prediction depends on: maps as pictures and arrays, scores of them, or their mean over a data set.

Methods are those that the model file holds (all: every one of them), and of a run's torch model shap (GradientExplainer
of the package shap) and shap:deep (DeepExplainer, refused where it is not exact). Scores say whether a map is faithful:
see docs/explaining.md. With --by-target maps are averaged over bins of the target, and the share of the task's regions
in them is related to it.

What the model of a tracking store explains is recorded as a run of its own, linked to the model's run.

Example: stm explain models:/stm-hubbard@champion quick.zarr --samples 0:4 --method all --out why
         stm explain runs:/ID quick.zarr --sample 3 --method shap,gradient --randomise --out why
         stm explain models:/stm-hubbard@champion fresh.zarr --by-target --out attention
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.model.questions import Reading, parse_samples
from pipelines.addresses import MODEL, local_file, run_of
from pipelines.predict import describe as describe_answers
from pipelines.predict import reading_arguments, reading_of
from stm_models.errors import InputError

__all__ = ["arguments", "describe", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("input", metavar="INPUT", help="data set (first sample, or --sample, --samples) or file")
    parser.add_argument(
        "--method", metavar="M[,M]", help="explanations of the model file, all, shap or shap:deep (default: its first)"
    )
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--samples", metavar="ROWS", default="", help="rows of a data set: 3,5,9 or 0:16")
    parser.add_argument("--by-target", action="store_true", help="average over a data set, against the target")
    parser.add_argument("--most", type=int, metavar="N", help="of its samples, evenly (default: 400)")
    parser.add_argument("--no-scores", action="store_true", help="draw maps without judging them")
    parser.add_argument("--randomise", action="store_true", help="also compare with a model drawn anew; needs a run")
    parser.add_argument("--background", metavar="DATA.zarr", help="absent pixels are taken from here, not the training")
    parser.add_argument("--background-size", type=int, metavar="N", help="so many of its images for shap (default: 64)")
    parser.add_argument("--draws", type=int, metavar="N", help="of shap's estimator (default: 200)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of draws, orders and noise")
    reading_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Explain."""
    from deploy.model.session import Session
    from pipelines.explaining.explanation import ExplainOptions, Source, explain, explain_data_set

    numbers = {name: getattr(args, name) for name in ("draws", "background_size", "most")}
    options = ExplainOptions(
        method=args.method, scored=not args.no_scores, randomise=args.randomise, background=args.background,
        seed=args.seed, **{name: value for name, value in numbers.items() if value is not None},
    )  # fmt: skip
    _sensible(args)
    reading = _reading(args)
    path = local_file(args.model)
    session = Session(path, provider=args.provider)
    source = Source(None, None)
    if not args.model.endswith(".onnx"):
        from tracking.store import connect

        store = connect()
        source = Source(store, run_of(store, args.model))
    if args.by_target:
        result = explain_data_set(session, source, args.input, Path(args.out), options)
    else:
        result = explain(session, source, args.input, reading, Path(args.out), options)
    about = session.metadata
    result = {"model": str(path), "sha256": about.sha256, "task": about.task, **result}
    run_id = None
    if source.store is not None:
        from pipelines.explaining.record import record

        run_id = record(source.store, source, about, args.input, reading, result, options)
    return {key: value for key, value in result.items() if key != "record"} | {"run_id": run_id}


def describe(result: dict[str, Any]) -> str:
    """Give answers, scores and findings in words."""
    lines = []
    if "attention" in result:
        lines += [f"{result['samples']} samples"]
        lines += [f"{method}: {found}" for method, found in result["attention"].items()]
        lines += [f"  wrote {path}" for path in result["files"]] + [f"  note: {note}" for note in result["notes"]]
    else:
        lines.append(describe_answers(result))
    for method, scores in result.get("scores", {}).items():
        lines.append(f"{method}: " + ", ".join(f"{name} {value:.3g}" for name, value in scores.items()))
    for method, found in result.get("randomisation", {}).items():
        verdict = "depends on what was learnt" if found["passes"] else "hardly depends on what was learnt"
        reason = f"rank correlation {found['final']:.2f} with a model drawn anew"
        if found["constant"]:
            verdict, reason = "cannot be judged", f"{found['constant']} maps are constant, which tells nothing"
        lines.append(f"{method} {verdict}: {reason}")
    if result["run_id"]:
        lines.append(f"recorded as run {result['run_id']}")
    return "\n".join(lines)


def _sensible(args: argparse.Namespace) -> None:
    """Refuse what would be passed over in silence."""
    for option, given in (
        ("--randomise", args.randomise), ("--no-scores", args.no_scores), ("--background", args.background is not None)
    ):  # fmt: skip
        if args.by_target and given and not (option == "--background" and _by_shap(args)):
            raise InputError(f"{option} is for the maps of some samples: leave it or --by-target out")
    if args.most is not None and not args.by_target:
        raise InputError(f"--most is {args.most}: it is for --by-target, leave it out; --samples chooses rows")
    for option, value in (("--draws", args.draws), ("--background-size", args.background_size)):
        if value is not None and not _by_shap(args):
            raise InputError(f"{option} is {value}: it is for shap, leave it out or add --method shap")


def _by_shap(args: argparse.Namespace) -> bool:
    return any(name.strip().startswith("shap") for name in (args.method or "").split(","))


def _reading(args: argparse.Namespace) -> Reading:
    samples = parse_samples(args.samples)
    if samples is not None and args.sample is not None:
        raise InputError(f"--sample is {args.sample} and --samples {args.samples}: give one of them")
    if args.by_target and (samples is not None or args.sample is not None):
        raise InputError("--by-target takes the whole data set: leave --sample and --samples out, --most limits it")
    reading = reading_of(args)
    if args.by_target and reading != Reading():
        raise InputError(
            "--by-target takes a data set: --key, --bias, --channel, --size-nm, --rotate and --atom-width are for files"
        )
    if samples is None and reading.samples is None and Path(args.input).is_dir():
        samples = (0,)
    return reading if samples is None else replace(reading, samples=samples)
