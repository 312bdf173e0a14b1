"""Score a model on a data set and keep a panel of samples with their predictions and maps.

Example: stm evaluate models:/stm-hubbard@champion --data fresh.zarr --perturbation all
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.asking import predict_all
from deploy.model.questions import load_fitting, parse_channel
from deploy.model.session import Session
from pipelines.addresses import MODEL, local_file
from pipelines.scoring.points import log_predictions
from pipelines.scoring.reference import describe_measured, evaluate_measured
from stm_models.data import panel
from stm_models.data.dataset import Samples
from stm_models.errors import InputError
from stm_models.regression.metrics import interval_scores
from stm_models.tasks.base import Task
from stm_models.tasks.perturbation import CLEAN, Perturbation, find, scaled
from stm_models.tasks.registry import get
from stm_models.tasks.verdict import STRANGE, UNUSUAL
from stm_models.training.perturbations import digest, perturbed
from stm_models.unfinished import scratch
from tracking import datasets, runs
from tracking.store import Store, recording

__all__ = ["arguments", "describe", "evaluate", "run"]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("model", help=MODEL)
    parser.add_argument("--data", required=True, metavar="DATA.zarr", help="data set; with --reference a measured file")
    parser.add_argument(
        "--reference", metavar="FILE", help="score the answer to a measured file against what this one tells of it"
    )
    parser.add_argument("--reference-bias", type=float, metavar="V", help="its map to take, where it has several")
    parser.add_argument(
        "--size-nm",
        metavar="HxW",
        help="of the measured file (of a reference in it, too): height and width of the field in nm",
    )
    parser.add_argument(
        "--channel",
        type=parse_channel,
        metavar="NAME",
        help="of the measured file (of a reference in it, too): the signal to take",
    )
    parser.add_argument(
        "--perturbation", metavar="NAME[,NAME]", help="also score the task's perturbation sets of these names, or all"
    )
    parser.add_argument(
        "--strength", metavar="X[,X]", help="of these sets also such that are X times as strong, as NAME:X"
    )
    parser.add_argument("--perturbation-seed", type=int, metavar="N", help="decides their random numbers (default: 0)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate."""
    seed = args.perturbation_seed or 0
    if seed < 0:
        raise InputError(f"--perturbation-seed is {seed}: expected 0 or above")
    if args.perturbation_seed is not None and args.perturbation is None:
        raise InputError(f"--perturbation-seed is {seed}, but no set is named with --perturbation: leave it out")
    onnx = local_file(args.model)
    store = recording()
    if args.reference is not None:
        if args.perturbation is not None or args.strength is not None:
            raise InputError("--perturbation is for data sets: leave it or --reference out")
        return evaluate_measured(
            store, onnx, args.data, args.reference, args.size_nm, channel=args.channel, bias=args.reference_bias
        )
    for option in ("reference_bias", "size_nm", "channel"):
        if (value := getattr(args, option)) is not None:
            name = option.replace("_", "-")
            raise InputError(f"--{name} is {value}: it is for a measured file with --reference, leave it out")
    return evaluate(store, onnx, args.data, args.perturbation, seed, _strengths(args.strength))


def evaluate(
    store: Store,
    onnx: Path,
    data: str | Path,
    perturbation: str | None = None,
    seed: int = 0,
    strengths: Sequence[float] = (),
) -> dict[str, Any]:
    """Score the file ``onnx`` on every converged sample of ``data``, recorded as a run of its own.

    Parameters
    ----------
    perturbation : str, optional
        Names of perturbation sets, separated by commas, or ``all``: scores on these images too, as ``mild.mae``.
    seed : int
        Of the perturbations; the same seed gives the same images.
    strengths : sequence of float
        Scores on the sets that distort the image so many times as strongly, too, as ``mild:2.mae``.

    Raises
    ------
    InputError
        When the data set cannot be read, was altered, does not fit the model, or lacks what a perturbation set
        is made from.
    """
    session = Session(onnx)
    about = session.metadata
    samples = load_fitting(data, about)
    task = get(about.task)
    chosen_sets = _sets(task, perturbation, strengths)
    scores, prediction = _scores(session, samples)
    further = task.examine(
        lambda images: predict_all(session, images)["prediction"],
        about.input.shape[1:],
        prediction,
        samples,
        about.calibration,
    )
    shown = {"clean" if chosen_sets else "evaluated": (samples, prediction)}
    digests = {}
    for one in chosen_sets:
        changed = replace(samples, images=perturbed(one, samples, seed))
        digests[one.name] = digest(changed.images)
        found, answers = _scores(session, changed)
        scores |= {f"{one.name}.{key}": value for key, value in found.items()}
        if one != CLEAN:
            shown[one.name] = (changed, answers)
    trained_on = samples.attributes["digest"] == about.data["digest"]
    calibrated = about.calibrated_on(samples.attributes["digest"])

    chosen = panel.choose(samples, np.arange(len(samples)))
    maps = predict_all(session, samples.images[chosen], (*about.answers, *about.explanations))
    maps |= task.panel_arrays(maps["prediction"], samples.subset(chosen), about.calibration)
    drawn = task.run_figures(shown, calibration=about.calibration)
    with runs.start(
        store, about.task, "evaluate", tags={"evaluated.run": about.run_id, "model.sha256": about.sha256}
    ) as record:
        datasets.log(record, {**samples.attributes, "samples": len(samples)}, samples.path, "evaluation")
        record.config(
            {"task": about.task, "data": str(samples.path), "model": about.sha256,
             "perturbation": [one.name for one in chosen_sets], "perturbation_seed": seed}
        )  # fmt: skip
        for one in chosen_sets:
            record.json(
                {**one.record(), "seed": seed, "digest": digests[one.name]},
                f"perturbations/{one.name.replace(':', '_')}.json",
            )
        record.tags({f"perturbation.{name}.digest": value for name, value in digests.items()})
        record.environment()
        record.tags({"trained_on_this_data": trained_on, "calibrated_on_this_data": " and ".join(calibrated) or False})
        record.metrics(scores | further)
        for name, figure in drawn.items():
            record.figure(figure, f"figures/{name}.png")
        with scratch() as folder:
            path = folder / "panel.npz"
            panel.save(path, samples, chosen, maps)
            record.artifact(path)
            log_predictions(record, task, shown, about.calibration)
        run_id = record.id
    return {
        "run_id": run_id, "data": str(samples.path), "digest": samples.attributes["digest"],
        "samples": len(samples), "trained_on": trained_on, "calibrated_on": calibrated, "metrics": scores | further,
        "perturbations": digests,
    }  # fmt: skip


def _sets(task: Task, names: str | None, strengths: Sequence[float]) -> list[Perturbation]:
    if names is None:
        if strengths:
            raise InputError("--strength is of perturbation sets: choose some with --perturbation")
        return []
    if names == "all":
        chosen = [one for one in task.perturbations() if one.judged]
    else:
        chosen = [find(task.perturbations(), name.strip()) for name in dict.fromkeys(names.split(","))]
    able = [one for one in chosen if one.steps and one.remake is None]
    if strengths and not able:
        raise InputError(f"none of the perturbation sets {names} distorts the image itself: leave --strength out")
    return chosen + [scaled(one, strength) for one in able for strength in strengths if strength != 1]


def _strengths(text: str | None) -> list[float]:
    try:
        return [float(one) for one in dict.fromkeys((text or "").split(",")) if one]
    except ValueError as error:
        raise InputError(f"--strength is {text}: expected numbers with commas between, e.g. 0.5,2") from error


def _scores(session: Session, samples: Samples) -> tuple[dict[str, float], NDArray[Any]]:
    """Metrics of a model's answers, with what its intervals hold and how many images it calls strange; the answers."""
    about = session.metadata
    outputs = predict_all(session, samples.images, about.answers)
    prediction = outputs["prediction"].astype(np.float64)
    scores = get(about.task).metrics(prediction, samples, about.calibration)
    if "lower" in outputs:
        scores |= interval_scores(outputs["lower"], outputs["upper"], samples.targets)
    if "novelty" in outputs:
        scores["false_alarms"] = float(np.mean(outputs["novelty"] < UNUSUAL))
        scores["outside"] = float(np.mean(outputs["novelty"] < STRANGE))
    return scores, prediction


def describe(result: dict[str, Any]) -> str:
    """List the scores."""
    if "reference" in result:
        return describe_measured(result)
    lines = [f"{result['samples']} samples of {result['data']}, run {result['run_id']}"]
    plain = {name: value for name, value in result["metrics"].items() if "." not in name}
    width = max(map(len, plain)) + 2
    lines += [f"  {name:<{width}}{value:.4g}" for name, value in plain.items()]
    for name, summary in result["perturbations"].items():
        perturbed_scores = {key: result["metrics"].get(f"{name}.{key}") for key in plain}
        found = "  ".join(f"{key} {value:.4g}" for key, value in perturbed_scores.items() if value is not None)
        lines.append(f"  {name:<11}{found}  (images {summary[:12]})")
    if result["trained_on"]:
        lines.append("  warning: the model was trained on this data set; these numbers say little")
    if result["calibrated_on"]:
        what = " and ".join(result["calibrated_on"])
        lines.append(
            f"  warning: {what} calibrated on this data set: what these numbers say of them is not of new states"
        )
    return "\n".join(lines)
