"""A smaller file: weights of 16 bits, or of 8, with the error that this costs in the targets' units."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.exporting.errors import ExportError
from deploy.exporting.nodes import ancestors, reads, replace
from deploy.model.contract import INPUT
from stm_models.errors import InputError, one_line
from stm_models.tasks.verdict import STRANGE, UNUSUAL
from stm_models.unfinished import scratch

__all__ = ["judge", "latencies", "reduced"]

Array = NDArray[Any]
_ROUNDS = 7
_DEFAULT = 0.01  # of the spread of the training targets, or of a score between 0 and 1
_SLIGHT = 0.1  # of the p-value that two verdicts meet at: nobody reads more from a change that small
_SMALL = 64
_INT8 = ["MatMul", "Gemm"]


def reduced(proto: Any, precision: str, learnt: Iterable[Array]) -> Any:
    """Return a graph of answers without maps in another precision; inputs and outputs stay float32.

    fp16: the weights that the network ``learnt`` in 16 bits, computed in float32, at half the size; int8: its products
    of matrices in 8 bits. Interval and novelty stay as they were.
    Derivatives of rounded weights are no derivatives of the model, so no maps are asked for.

    Raises
    ------
    ExportError
        When onnxruntime's tools do not take the graph.
    """
    smaller = onnx.ModelProto()
    smaller.CopyFrom(proto)
    if precision == "fp16":
        _halve_weights(smaller, learnt)
        return smaller
    logging.getLogger().addFilter(_without_advice)
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with scratch() as folder:
            source, target = folder / "a.onnx", folder / "b.onnx"
            chosen = _products(smaller, "prediction")
            _turn_weights(smaller, chosen)
            onnx.save(smaller, source)
            quantize_dynamic(
                source, target, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=_INT8,
                nodes_to_quantize=chosen,
            )  # fmt: skip
            return onnx.load(target)
    except Exception as error:
        reason = one_line(error, 300)
        raise ExportError(f"the model has no {precision} form: {type(error).__name__}: {reason}") from error
    finally:
        logging.getLogger().removeFilter(_without_advice)


def _halve_weights(proto: Any, learnt: Iterable[Array]) -> None:
    """Store large weights in 16 bits; onnxruntime makes float32 of them when it loads the file, and computes in it.

    Only those that were learnt and that the prediction alone is computed with: its error is what is judged. What images
    are standardised and measured with is not: small differences of large numbers are lost in 16 bits.
    """
    known = {_values(one) for one in learnt}
    network = {name for node in ancestors(proto.graph.node, ["prediction"]) for name in node.output}
    others = {name for node in proto.graph.node if not network.intersection(node.output) for name in reads(node)}
    casts = []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in others or values.dtype != np.float32:
            continue
        if values.size < _SMALL or _values(values) not in known:
            continue
        if np.abs(values).max() < np.finfo(np.float16).max:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
            casts.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    replace(proto.graph.node, [*casts, *proto.graph.node])


def _values(tensor: Array) -> bytes:
    """Return a hash that a weight shares with its transpose, which the exporter may store instead."""
    return hashlib.sha256(np.sort(tensor, axis=None).tobytes()).digest()


def _turn_weights(proto: Any, products: Sequence[str]) -> None:
    """Replace transposed weights of ``products`` by weights that lie so: the quantiser finds no others."""
    known = {tensor.name: tensor for tensor in proto.graph.initializer}
    wanted = {name for node in proto.graph.node if node.name in products for name in node.input}
    turned = [
        node
        for node in proto.graph.node
        if node.op_type == "Transpose" and node.input[0] in known and node.output[0] in wanted
    ]
    for node in turned:
        values = numpy_helper.to_array(known[node.input[0]])
        order = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
        proto.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(np.transpose(values, order)), node.output[0])
        )
        proto.graph.node.remove(node)
    used = {name for node in proto.graph.node for name in node.input}
    for node in turned:
        tensor = known.get(node.input[0])
        if tensor is not None and tensor.name not in used:
            proto.graph.initializer.remove(known.pop(tensor.name))


def _products(proto: Any, output: str) -> list[str]:
    """Return the names, also as the quantiser will have them, of the products that ``output`` comes from."""
    names = [node.name for node in ancestors(proto.graph.node, [output]) if node.op_type in _INT8]
    return [*names, *(f"{name}_MatMul" for name in names)]


def _without_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


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
