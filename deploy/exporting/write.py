"""From a bundle to a checked ONNX file, in this process."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from numpy.typing import NDArray

from deploy.exporting import metadata as about
from deploy.exporting.graph import FOCUS, INPUT, OPSET, build, evaluate
from deploy.exporting.parity import check, check_focus
from deploy.exporting.parts import parts_of
from stm_models.errors import InputError
from stm_models.files import atomic_path
from stm_models.networks import bundle as bundles

__all__ = ["write"]


def write(bundle_dir: Path, out: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a bundle into an ONNX file; the arguments and errors are those of `export.export`.

    Returns
    -------
    dict
        sha256, opset, parity and size_bytes.
    """
    given = about.check(metadata)
    bundle = bundles.load(bundle_dir)
    if bundle.novelty is None:
        raise InputError(f"{bundle_dir} holds no distance to the training data: train it again, fitting the novelty")
    about.agree(given, bundle.info, bundle_dir)
    if (given["interval"] is None) != (bundle.interval is None):
        raise InputError(
            f"metadata of the export: interval is {given['interval']}, but {bundle_dir} was trained "
            f"{'without' if bundle.interval is None else 'with'} one: pass the bundle's own"
        )
    mean, scale = bundle.model.pixel_mean.numpy(), bundle.model.pixel_scale.numpy()
    explained = int(given["explained"])
    parts = parts_of(bundle, explained)
    maps = list(parts.maps)
    proto = build(parts, mean.shape)
    names = [value.name for value in proto.graph.output]
    focusable = any(value.name == FOCUS for value in proto.graph.input)
    entry = proto.metadata_props.add()
    entry.key = about.KEY
    entry.value = about.complete(
        given, OPSET, _versions(), [name for name in names if name not in maps], maps, focusable=focusable
    )
    content = proto.SerializeToString()
    onnx.checker.check_model(content, full_check=True)

    fresh = parts_of(bundles.load(bundle_dir), explained)  # tracing must not have a say in the reference
    session = _session(content)

    def run(images: NDArray[Any], focus: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
        feed = {INPUT: images} if focus is None else {INPUT: images, FOCUS: focus}
        return dict(zip(names, session.run(names, feed), strict=True))

    def reference(images: NDArray[Any], focus: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
        pixel = None if focus is None else torch.from_numpy(focus)
        found = evaluate(fresh, torch.from_numpy(images), pixel)
        return {name: value.numpy() for name, value in found.items()}

    parity = check(run, reference, mean, scale, maps=maps)
    if focusable:
        parity |= check_focus(run, reference, mean, scale, maps=maps)
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
    }


def _session(content: bytes) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def _versions() -> dict[str, str]:
    try:
        own = version("stm-lab")
    except PackageNotFoundError:
        own = "not installed"
    modules = (np, torch, onnx, onnxscript, onnxruntime)
    return {
        "stm-lab": own,
        "python": platform.python_version(),
        **{module.__name__: str(module.__version__) for module in modules},
    }
