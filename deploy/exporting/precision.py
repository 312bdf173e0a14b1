"""A smaller file: weights of 16 bits, or of 8, with the error that this costs in the targets' units."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.exporting.excuses import TOLERANCE
from deploy.exporting.nodes import ancestors, reads, replace
from deploy.model.contract import INPUT
from stm_models.errors import InputError
from stm_models.tasks.verdict import STRANGE, UNUSUAL

__all__ = ["judge", "judge_rows", "latencies", "reduced"]

Array = NDArray[Any]
_ROUNDS = 7
_DEFAULT = 0.01  # of the spread of the training targets, or of a score between 0 and 1
_SLIGHT = 0.1  # of the p-value that two verdicts meet at: nobody reads more from a change that small
_SMALL = 64
_STEPS, _FEW = 127, 8
_ODD, _ROWS = 1000, 8
_APART = 0.1  # of the budget: what a row may owe to the others of its batch, which is float32's rounding alone


def reduced(proto: Any, precision: str, learnt: Iterable[Array]) -> Any:
    """Return a graph of answers without maps whose learnt weights are of 16 (fp16) or 8 bits (int8).

    onnxruntime makes float32 of them when it loads the file, and computes in it, so that a row of a batch knows nothing
    of the others: what is computed in 8 bits needs a scale for what lies between the layers, which an odd image among
    them would set for all. Only weights that were learnt and that the prediction alone is computed with: its error is
    what is judged. What images are standardised and measured with is not: small differences of large numbers are lost.
    Derivatives of rounded weights are no derivatives of the model, so no maps are asked for.
    """
    smaller = onnx.ModelProto()
    smaller.CopyFrom(proto)
    known = {_values(one) for one in learnt}
    network = {name for node in ancestors(proto.graph.node, ["prediction"]) for name in node.output}
    others = {name for node in proto.graph.node if not network.intersection(node.output) for name in reads(node)}
    pack = _halved if precision == "fp16" else _quartered
    stored, unpacking = [], []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        fits = tensor.name not in others and values.dtype == np.float32 and values.size >= _SMALL
        tensors, nodes = pack(tensor.name, values) if fits and _values(values) in known else ([tensor], [])
        stored += tensors
        unpacking += nodes
    replace(smaller.graph.initializer, stored)
    replace(smaller.graph.node, [*unpacking, *proto.graph.node])
    return smaller


def _halved(name: str, values: Array) -> tuple[list[Any], list[Any]]:
    """Return what is stored of a weight in 16 bits, and the nodes that make the weight ``name`` of it."""
    if np.abs(values).max() >= np.finfo(np.float16).max:
        return [numpy_helper.from_array(values, name)], []
    half = f"{name}/half"
    stored = [numpy_helper.from_array(values.astype(np.float16), half)]
    return stored, [helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)]


def _quartered(name: str, values: Array) -> tuple[list[Any], list[Any]]:
    """Return the same in 8 bits and a scale for each slice of a matrix or kernel, along the axis that loses least."""
    if values.ndim < 2:
        return [numpy_helper.from_array(values, name)], []
    steps, scale = min((_rounded(values, axis) for axis in range(values.ndim)), key=lambda one: _lost(values, *one))
    quarter, wide, factor = (f"{name}/{part}" for part in ("quarter", "wide", "scale"))
    stored = [numpy_helper.from_array(steps, quarter), numpy_helper.from_array(scale, factor)]
    return stored, [
        helper.make_node("Cast", [quarter], [wide], to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, factor], [name]),
    ]


def _rounded(values: Array, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a weight as whole numbers from -127 to 127 and their scale, one for each place on ``axis``."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scale = (np.where(largest > 0, largest, 1) / _STEPS).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _lost(values: Array, steps: Array, scale: Array) -> float:
    # A scale for each of few numbers costs as much as they do.
    return float(np.square(values - steps * scale).sum()) if scale.size * _FEW <= values.size else np.inf


def _values(tensor: Array) -> bytes:
    """Return a hash that a weight shares with its transpose, which the exporter may store instead."""
    return hashlib.sha256(np.sort(tensor, axis=None).tobytes()).digest()


def judge(
    run: Any,
    full: Any,
    images: Array,
    targets: Sequence[Mapping[str, Any]],
    budget: Mapping[str, float],
    precision: str,
    spread: Sequence[float],
) -> dict[str, Any]:
    """Compare answers of two files to held-out images, and refuse the smaller one beyond the error budget.

    Parameters
    ----------
    run, full : callable
        Images (B, C, H, W) to answers by name: of the smaller file, and of the full one.
    budget : mapping of str to float
        Largest error of each target, in its unit; of those that are not named 1 % of ``spread``, and 0.01 of the scores
        of a map.
    spread : sequence of float
        Standard deviation of each target in the training data.

    Returns
    -------
    dict
        ``images`` (how many), ``error``, ``budget`` and, of a file with intervals, ``ends`` (their error), of an
        ensemble ``spread`` (its error) by target, in its unit; with a novelty the largest change of its p-value,
        ``novelty``: it looks at features that come through the network.

    Raises
    ------
    InputError
        With both, when an error is above its budget, and when an image is called otherwise (usual, unusual, outside).
    """
    found, wanted = run(images), full(images)
    got, want = found["prediction"], wanted["prediction"]
    errors, limits = {}, {}
    for number, target in enumerate(targets):
        name = target["name"]
        errors[name] = _largest(got[:, number], want[:, number])
        limits[name] = float(budget.get(name, _DEFAULT * (spread[number] if want.ndim == 2 else 1.0)))
        if not errors[name] <= limits[name]:
            unit = target.get("unit", "1")
            raise InputError(
                f"the {precision} file answers {name} up to {errors[name]:.3g} {unit} off on {len(images)} held-out "
                f"images, budget {limits[name]:.3g} {unit}, nothing was written: raise it with --set "
                f"export.budget.{name}=VALUE, or choose another precision"
            )
    report: dict[str, Any] = {"error": errors, "budget": limits, "images": len(images)}
    if "lower" in wanted:
        report["ends"] = {
            target["name"]: max(_largest(found[end][:, n], wanted[end][:, n]) for end in ("lower", "upper"))
            for n, target in enumerate(targets)
        }
    if "spread" in wanted:
        report["spread"] = {
            target["name"]: _largest(found["spread"][:, n], wanted["spread"][:, n]) for n, target in enumerate(targets)
        }
    if "novelty" in wanted:
        report["novelty"] = _largest(found["novelty"], wanted["novelty"])
        _called_alike(found["novelty"], wanted["novelty"], precision)
    return report


def judge_rows(run: Any, images: Array, limits: Mapping[str, float], precision: str) -> None:
    """Refuse a file whose answer to an image depends on the others of its batch, one of them far out of range.

    Parameters
    ----------
    run : callable
        Images (B, C, H, W) to answers by name.
    images : (N, C, H, W) float32
        Held-out ones; up to 8 of them are asked alone, and beside the first one a thousand times as strong.
    limits : mapping of str to float
        The error budget of each target, of which a tenth may be lost, or a ten-thousandth of its largest answer as in
        every file.

    Raises
    ------
    InputError
        When an answer differs by more.
    """
    images = images[:: -(-len(images) // _ROWS)]
    alone = np.concatenate([run(images[row : row + 1])["prediction"] for row in range(len(images))])
    beside = run(np.concatenate([images, _ODD * images[:1]]))["prediction"][:-1]
    for number, (name, limit) in enumerate(limits.items()):
        apart = _largest(beside[:, number], alone[:, number])
        if not apart <= max(_APART * limit, TOLERANCE * float(np.abs(alone[:, number]).max())):
            raise InputError(
                f"the {precision} file answers {name} {apart:.3g} otherwise where an odd image is in the batch, budget "
                f"{limit:.3g}, nothing was written: choose another precision"
            )


def _called_alike(got: Array, want: Array, precision: str) -> None:
    """Refuse p-values by which an image is usual, unusual or outside, where it clearly was not by the full file's."""
    moved = [((got < p) != (want < p)) & (np.abs(got - want) > _SLIGHT * p) for p in (STRANGE, UNUSUAL)]
    other = np.flatnonzero(moved[0] | moved[1])
    if len(other):
        worst = other[np.argmax(np.abs(got - want)[other])]
        raise InputError(
            f"the {precision} file calls {len(other)} of {len(want)} held-out images otherwise: the p-value of novelty "
            f"is {got[worst]:.3g} instead of {want[worst]:.3g}, nothing was written: choose another precision"
        )


def _largest(got: Array, want: Array) -> float:
    return float(np.abs(got.astype(np.float64) - want).max())


def latencies(contents: Mapping[str, bytes], shape: Sequence[int]) -> dict[str, dict[str, float]]:
    """Return seconds of a run on one thread, the median of alternating ones, by precision and batch (1 and 16)."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    sessions = {
        name: onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        for name, content in contents.items()
    }
    table: dict[str, dict[str, float]] = {name: {} for name in sessions}
    for batch in (1, 16):
        images = np.random.default_rng(0).random((batch, *shape), dtype=np.float32)
        times: dict[str, list[float]] = {name: [] for name in sessions}
        for number in range(_ROUNDS + 1):
            for name, session in sessions.items():
                start = time.perf_counter()
                session.run(["prediction"], {INPUT: images})
                if number:
                    times[name].append(time.perf_counter() - start)
        for name, values in times.items():
            table[name][str(batch)] = float(np.median(values))
    return table
