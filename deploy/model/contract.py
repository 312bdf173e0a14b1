"""Whether a graph is what its metadata promise: inputs, outputs and their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime

from deploy.model.metadata import ModelMetadata
from stm_models.errors import InputError

__all__ = ["FOCUS", "INPUT", "OutputSpec", "check_graph", "output_specs", "takes_focus"]

INPUT = "image"
FOCUS = "focus"
_FLOAT = "tensor(float)"

# (name, shape) of one output; the batch is -1, and so is any other size that is not fixed.
OutputSpec = tuple[str, tuple[int, ...]]


def output_specs(session: onnxruntime.InferenceSession) -> tuple[OutputSpec, ...]:
    """Return names and shapes of the outputs."""
    return tuple((out.name, _shape(out.shape)) for out in session.get_outputs())


def takes_focus(session: onnxruntime.InferenceSession) -> bool:
    """Tell whether the pixel that is explained can be given."""
    return any(
        one.name == FOCUS and one.type == "tensor(int64)" and len(one.shape) == 1
        for one in session.get_overridable_initializers()
    )


def check_graph(session: onnxruntime.InferenceSession, about: ModelMetadata, source: str) -> None:
    """Refuse a graph that its metadata do not fit.

    Raises
    ------
    InputError
        Naming ``source`` and what is missing.
    """
    way_out = "write the file with 'stm export'"
    expected = (-1, *about.input.shape)
    found = [(i.name, i.type, _shape(i.shape)) for i in session.get_inputs()]
    name, kind, shape = found[0] if len(found) == 1 else ("", "", ())
    fits = len(shape) == 4 and shape[0] == -1 and all(s in (-1, e) for s, e in zip(shape, expected, strict=True))
    if name != INPUT or kind != _FLOAT or not fits:
        raise InputError(
            f"{source}: its inputs are {found}, expected one float input {INPUT!r} of shape {expected}: {way_out}"
        )
    if about.focusable and not takes_focus(session):
        raise InputError(
            f"{source}: its metadata say focusable, but it has no optional int64 input {FOCUS!r}: {way_out}"
        )
    kinds = {out.name: out.type for out in session.get_outputs()}
    for needed in ("prediction", *about.explanations):
        if kinds.get(needed) != _FLOAT:
            raise InputError(f"{source}: it has no float output {needed!r}, only {', '.join(kinds)}: {way_out}")
    answers = [name for name in kinds if name not in about.explanations]
    # Files of before do not name them.
    if "answers" in about.model_fields_set and sorted(about.answers) != sorted(answers):
        raise InputError(
            f"{source}: its metadata say that it answers with {', '.join(about.answers) or 'nothing'}, but its outputs "
            f"that are no explanations are {', '.join(answers)}: {way_out}"
        )
    if "lower" in kinds and about.interval is None:
        raise InputError(
            f"{source}: its metadata lacks interval, without which nobody can judge the outputs 'lower' and 'upper': "
            f"{way_out}"
        )
    shape = dict(output_specs(session))["prediction"]
    # Maps (batch, 1, y, x) are the task's to read.
    width = (*shape, 0)[1]
    if len(shape) != 4 and width not in (-1, len(about.targets)):
        raise InputError(f"{source}: its prediction has {width} columns for {len(about.targets)} targets: {way_out}")


def _shape(shape: Sequence[Any]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in shape)
