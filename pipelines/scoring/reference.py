"""Scoring a model's answer to a measured map against another file that tells the truth of the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.model import asking, questions
from deploy.model.session import Session
from stm_models.errors import InputError
from stm_models.files import sha256
from stm_models.tasks.inputs import Reference
from stm_models.tasks.registry import get
from tracking import runs
from tracking.store import Store

__all__ = ["describe_measured", "evaluate_measured"]


def evaluate_measured(
    store: Store,
    onnx: Path,
    data: str | Path,
    reference: str | Path,
    size_nm: str | None = None,
    *,
    channel: str | int | None = None,
    bias: float | None = None,
) -> dict[str, Any]:
    """Score the file ``onnx`` on the measured map ``data``, recorded as a run with the digests of both files.

    Parameters
    ----------
    reference : path
        What the model's task takes: see `stm_models.tasks.base.Task.reference_metrics`.
    size_nm : str, optional
        Of the map, where its file does not say, as `questions.parse_size` reads it; of the reference too, where it
        is the same file.
    channel : str or int, optional
        Signal of the measured file, in the same way.
    bias : float, V, optional
        Of the reference map, in a file with several.

    Raises
    ------
    InputError
        When a file cannot be read or does not fit, or the task knows no reference.
    """
    data, reference = Path(data), Path(reference)
    if data.is_dir():
        raise InputError(f"{data} is a data set, whose truth is in it: leave --reference out, or give a measured file")
    if not reference.is_file():
        raise InputError(f"--reference is {reference}: there is no such file")
    session = Session(onnx)
    about = session.metadata
    task = get(about.task)
    size = questions.parse_size(size_nm) if size_nm is not None else None
    question = questions.read_question(data, session, questions.Reading(size_nm=size, channel=channel))
    answers, _ = asking.answer(session, question)
    read_as = {"size_nm": size, "channel": channel} if reference.samefile(data) else None
    scores, notes = task.reference_metrics(answers[0], question.about, Reference(reference, bias, read_as))
    digests = {"data": sha256(data), "reference": sha256(reference)}
    tags = {"evaluated.run": about.run_id, "model.sha256": about.sha256}
    with runs.start(store, about.task, "evaluate", tags=tags) as record:
        record.config(
            {"task": about.task, "model": about.sha256, "data": str(data), "channel": channel, "size_nm": size_nm,
             "reference": str(reference), "reference_bias": bias}
        )  # fmt: skip
        record.tags({f"{name}.sha256": value for name, value in digests.items()})
        record.environment()
        record.metrics(scores)
        record.json(answers[0], "answer.json")
        run_id = record.id
    return {
        "run_id": run_id, "data": str(data), "reference": str(reference), "digests": digests,
        "metrics": scores, "answer": answers[0], "notes": [*question.notes, *notes], "task": about.task,
    }  # fmt: skip


def describe_measured(result: dict[str, Any]) -> str:
    """List the scores."""
    lines = [f"{result['data']} against {result['reference']}, run {result['run_id']}"]
    lines.append(f"  {get(result['task']).words(result['answer'])}; {result['answer']['verdict']}")
    width = max(map(len, result["metrics"]), default=0) + 2
    lines += [f"  {name:<{width}}{value:.4g}" for name, value in result["metrics"].items()]
    return "\n".join([*lines, *(f"  note: {note}" for note in result["notes"])])
