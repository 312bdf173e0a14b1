"""From a bundle to a checked ONNX file, in this process."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from numpy.typing import NDArray

from deploy.exporting import metadata as about
from deploy.exporting.choice import choose, enough
from deploy.exporting.config import ExportConfig
from deploy.exporting.excuses import Evaluate
from deploy.exporting.graph import FOCUS, INPUT, OPSET, build, evaluate
from deploy.exporting.parity import check, check_answers, check_focus
from deploy.exporting.parts import parts_of, references_of
from deploy.exporting.precision import judge, judge_rows, latencies, reduced
from stm_models.config import validate
from stm_models.errors import InputError, unknown
from stm_models.files import atomic_path
from stm_models.networks import bundle as bundles
from stm_models.networks.ensemble import members_of
from stm_models.versions import version_of

__all__ = ["try_map", "write"]

_LARGEST = 2**31 - 1  # what protobuf reads


def write(
    bundle_dir: Path,
    out: Path,
    metadata: Mapping[str, Any],
    config: ExportConfig | None = None,
    left_out: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Turn a bundle into an ONNX file; the arguments and errors are those of `export.export`.

    Parameters
    ----------
    left_out : mapping of str to str, optional
        Maps that were found to have no ONNX form, with the reason.

    Returns
    -------
    dict
        sha256, opset, parity, size_bytes, explanations, refused and precision.
    """
    given, config, left_out = about.check(metadata), config or validate(ExportConfig, {}, "export"), left_out or {}
    bundle = bundles.load(bundle_dir)
    if bundle.novelty is None:
        raise InputError(f"{bundle_dir} holds no distance to the training data: train it again, fitting the novelty")
    about.agree(given, bundle.info, bundle_dir)
    if (given["interval"] is None) != (bundle.interval is None):
        raise InputError(
            f"metadata of the export: interval is {given['interval']}, but {bundle_dir} was trained "
            f"{'without' if bundle.interval is None else 'with'} one: pass the bundle's own"
        )
    for name in config.budget:
        if name not in (known := [target["name"] for target in given["targets"]]):
            raise unknown("target of export.budget", name, known)
    explained, steps = int(given["explained"]), config.steps
    maps, refused = choose(bundle, config)
    maps, refused = [name for name in maps if name not in left_out], {**left_out, **refused}
    details: dict[str, Any] = {}
    if "integrated_gradients" in maps:
        steps, error = enough(bundle, steps, explained)
        details["integrated_gradients"] = {"steps": steps.integrated, "incomplete": error}
    if "expected_gradients" in maps:
        used = min(steps.background, len(bundle.background if bundle.background is not None else ()))
        details["expected_gradients"] = {"draws": steps.expected, "background": used, "seed": steps.seed}
    usual = (members_of(bundle.model.network) or [bundle.model])[0]
    mean, scale = usual.pixel_mean.numpy(), usual.pixel_scale.numpy()
    proto = build(parts_of(bundle, explained, maps, steps), mean.shape)
    names = [value.name for value in proto.graph.output]
    answers = [name for name in names if name not in maps]
    focusable = any(value.name == FOCUS for value in proto.graph.input)
    content = _content(proto)

    # Tracing must not have a say in the references.
    plain, exact = bundles.load(bundle_dir), bundles.load(bundle_dir).double()
    session = _session(content)

    def run(images: NDArray[Any], focus: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
        feed = {INPUT: images} if focus is None else {INPUT: images, FOCUS: focus}
        return dict(zip(names, session.run(names, feed), strict=True))

    def answered(images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(answers, session.run(answers, {INPUT: images}), strict=True))

    def by_torch(own: bundles.Bundle, dtype: torch.dtype, maps: Sequence[str]) -> Evaluate:
        parts = references_of(own, explained, maps, steps)

        def reference(images: NDArray[Any], focus: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
            pixel = None if focus is None else torch.from_numpy(focus)
            found = evaluate(parts, torch.from_numpy(images).to(dtype), pixel)
            return {name: value.numpy() for name, value in found.items()}

        return reference

    reference, truth = by_torch(plain, torch.float32, maps), by_torch(exact, torch.float64, maps)
    parity = check(run, reference, mean, scale, maps=maps, truth=truth)
    if bundle.heldout is not None:
        own, truly = by_torch(plain, torch.float32, ()), by_torch(exact, torch.float64, ())
        near = check_answers(answered, own, bundle.heldout.numpy(), mean, scale, truth=truly)
        parity = {name: max(value, near.get(name, 0.0)) for name, value in parity.items()}
    if focusable and maps:
        parity |= check_focus(run, reference, mean, scale, maps=maps, truth=truth)
    reduction: dict[str, Any] = {}
    if config.precision != "fp32":
        learnt = [parameter.numpy() for parameter in plain.model.network.parameters()]
        proto = reduced(proto, config.precision, learnt)
        smaller = _session(_content(proto))
        judged_on = _judged_on(bundle)

        def rounded(images: NDArray[Any]) -> dict[str, NDArray[Any]]:
            return dict(zip(names, smaller.run(names, {INPUT: images}), strict=True))

        reduction = judge(
            rounded, run, judged_on, given["targets"], config.budget, config.precision,
            plain.model.target_scale.tolist(),
        )  # fmt: skip
        judge_rows(rounded, judged_on, reduction["budget"], config.precision)
        reduction["seconds"] = latencies({"fp32": content, config.precision: _content(proto)}, mean.shape)
    entry = proto.metadata_props.add()
    entry.key = about.KEY
    entry.value = about.complete(
        given, OPSET, _versions(), answers, maps, focusable=focusable, details=details, refused=refused,
        precision={"kind": config.precision, **reduction},
    )  # fmt: skip
    content = _content(proto)
    try:
        with atomic_path(out) as part:
            part.write_bytes(content)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose another file") from error
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "opset": OPSET,
        "parity": parity,
        "size_bytes": len(content),
        "explanations": maps,
        "refused": refused,
        "precision": {"kind": config.precision, **reduction},
    }


def _content(proto: Any) -> bytes:
    """Return the checked file."""
    if proto.ByteSize() > _LARGEST:
        raise InputError(
            f"the file would have {proto.ByteSize() / 2**30:.1f} GiB, and a model file is one file of at most 2 GiB: "
            "choose a smaller network or fewer background images"
        )
    content: bytes = proto.SerializeToString()
    onnx.checker.check_model(content, full_check=True)
    return content


def _judged_on(bundle: bundles.Bundle) -> NDArray[np.float32]:
    if bundle.heldout is None:
        raise InputError("the run kept no images to measure the error of a smaller file on: train it again")
    return np.asarray(bundle.heldout.numpy(), np.float32)


def try_map(bundle_dir: Path, metadata: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    """Build the graph of one map, or of the answers alone, and forget it; NoGraphError where there is none."""
    bundle = bundles.load(bundle_dir)
    shape = tuple(bundle.model.pixel_mean.shape)
    build(parts_of(bundle, int(metadata["explained"]), [] if name is None else [name]), shape)
    return {}


def _session(content: bytes) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def _versions() -> dict[str, str]:
    modules = (np, torch, onnx, onnxscript, onnxruntime)
    return {
        "stm-lab": version_of("stm-lab") or "not installed",
        "python": platform.python_version(),
        **{module.__name__: str(module.__version__) for module in modules},
    }
