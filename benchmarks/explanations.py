"""Explanation maps of one ONNX file against captum, pytorch-grad-cam and shap.GradientExplainer in torch eager.

The network is ``conv``; one thread on both sides, CPU seconds. Grad-CAM, gradient and guided backpropagation against
captum, Grad-CAM against pytorch-grad-cam too, integrated gradients (Gauss-Legendre, the same points) against captum,
and expected gradients (the same background and number of draws) against shap. Maps are compared before times: of shap
the first image's, since it draws anew for every image of a batch; of pytorch-grad-cam what it keeps, the positive part.
captum gets at most 16 images at once where all points together would not fit the memory. With ``--device cuda`` both
compute on the GPU, in single precision without tf32, in seconds of the clock from arrays to arrays in main memory.

A ratio is the worst over sizes and peers; ``detail`` has every cell, with what resident memory grew by during each
side's first run. pytorch-grad-cam is none of the pins; without it its cells say so::

    uv pip install --target build/peers --no-deps grad-cam ttach opencv-python-headless
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import importlib
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import shap
import torch
from _devices import called, opened
from _models import images, make
from _timing import arguments, paired, report
from numpy.typing import NDArray

from deploy.exporting.graph import build
from deploy.exporting.parts import parts_of
from deploy.serving.subgraph import extract
from stm_models.explain.methods import Steps
from stm_models.networks import bundle as bundles

PEERS = Path(__file__).resolve().parents[1] / "build" / "peers"
METHODS = ("grad_cam", "gradient", "guided", "integrated_gradients", "expected_gradients")
GOALS = {"grad_cam": 3.0, "gradient": 1.2, "guided": 1.2, "integrated_gradients": 2.0, "expected_gradients": 2.0}
AT_ONCE = 2**21  # pixels that captum gets at once
CHUNK = 16
Array = NDArray[Any]
Call = Callable[[], Array]


@dataclass(frozen=True)
class Case:
    """Images of one size, how finely lines are sampled, and how often both sides run."""

    side: int
    batches: tuple[int, ...]
    steps: Steps
    rounds: int


FULL = (Case(64, (1, 16), Steps(32, 50, 16, 0), 5), Case(256, (1, 16), Steps(8, 8, 4, 0), 3))
QUICK = (Case(64, (1, 16), Steps(4, 4, 4, 0), 3),)


def main() -> None:
    """Compare, measure and print."""
    args = arguments(__doc__ or "", devices=True)
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    warnings.simplefilter("ignore")  # captum tells that it sets hooks
    cells: dict[str, Any] = {}
    errors = {"parity": 0.0}
    for case in QUICK if args.quick else FULL:
        for key, cell in measured(case, args.device).items():
            cells[key] = cell
            errors["parity"] = float(np.maximum(errors["parity"], cell.get("difference", 0.0)))  # NaN stays NaN
            print(key, cell, file=sys.stderr)
    ratios: dict[str, float] = {}
    for cell in cells.values():
        if "ratio" in cell:
            key = f"{cell['method']}_b{cell['batch']}"
            ratios[key] = min(ratios.get(key, np.inf), cell["ratio"])
    assert errors["parity"] < 1e-3, "a map differs: its time says nothing"
    detail = {"device": called(args.device), "goals": GOALS, "cells": cells}
    report("explanations", ratios, errors, detail, as_json=args.json)


def measured(case: Case, device: str) -> dict[str, dict[str, Any]]:
    """Return every cell of one size."""
    with tempfile.TemporaryDirectory() as folder:
        path, _ = make("conv", (1, case.side, case.side), Path(folder))
        bundle = bundles.load(path)
    content = build(parts_of(bundle, 0, METHODS, case.steps), (1, case.side, case.side)).SerializeToString()
    bundle.model.to(device)
    cells: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        part = extract(content, [method])
        for batch in case.batches:
            seen = images((1, case.side, case.side), batch, 99)
            for name, (theirs, alike) in peers(bundle, method, seen, case.steps, device).items():
                about = {"method": method, "batch": batch, "side": case.side, "peer": name}
                key = f"{method}_b{batch}_{case.side}_{name}"
                if theirs is None:
                    cells[key] = {**about, "missing": alike}
                    continue
                cells[key] = about | compared(part, method, seen, theirs, alike, case.rounds, device)
    return cells


def compared(
    part: bytes, method: str, seen: Array, theirs: Call, alike: Any, rounds: int, device: str
) -> dict[str, Any]:
    """Return one cell: difference, memory, ratio."""
    session = opened(part, device)

    def ours() -> Array:
        found: Array = session.run([method], {"image": seen})[0]
        return found

    (own, own_memory), (other, other_memory) = grown(ours), grown(theirs)
    difference = alike(own, other)
    on_cpu = device == "cpu"
    times = paired(ours, theirs, rounds=rounds, clock=time.process_time if on_cpu else time.perf_counter)
    memory = {"ours_MiB": own_memory / 2**20, "theirs_MiB": other_memory / 2**20} if on_cpu else {}
    return {
        "difference": difference, **memory, **{key: times[key] for key in ("ratio", "ours_s", "reference_s")},
    }  # fmt: skip


def peers(
    bundle: bundles.Bundle, method: str, seen: Array, steps: Steps, device: str
) -> dict[str, tuple[Call | None, Any]]:
    """Return the calls to compare with by library, each with what makes a difference of both maps."""
    model, x = bundle.model, torch.from_numpy(seen).to(device)

    def leaf() -> torch.Tensor:
        return x.clone().requires_grad_(True)

    if method == "gradient":
        saliency = captum.attr.Saliency(model)
        return {"captum": (lambda: saliency.attribute(leaf(), target=0, abs=False).cpu().numpy(), relative)}
    if method == "guided":
        guided = captum.attr.GuidedBackprop(model)
        return {"captum": (lambda: guided.attribute(leaf(), target=0).detach().cpu().numpy(), relative)}
    if method == "grad_cam":
        layer = captum.attr.LayerGradCam(model, model.network.cam_layer())

        def cam() -> Array:
            found = layer.attribute(leaf(), target=0).detach()
            return captum.attr.LayerAttribution.interpolate(found, tuple(seen.shape[2:]), "bilinear").cpu().numpy()

        return {"captum": (cam, relative), "pytorch_grad_cam": pytorch_grad_cam(bundle, x)}
    if method == "integrated_gradients":
        integrated, baseline = captum.attr.IntegratedGradients(model), bundle.baseline[None].to(device)
        at_once = None if seen.size * steps.integrated <= AT_ONCE else max(CHUNK, len(seen))
        options = {"n_steps": steps.integrated, "method": "gausslegendre", "internal_batch_size": at_once}

        def line() -> Array:
            found: Array = integrated.attribute(x, baseline, target=0, **options).detach().cpu().numpy()
            return found

        return {"captum": (line, relative)}
    explainer = shap.GradientExplainer(model, bundle.background[: steps.background].to(device))

    def expected() -> Array:
        found = explainer.shap_values(x, nsamples=steps.expected, rseed=steps.seed)
        return np.asarray(found)[..., 0]

    return {"shap": (expected, lambda own, other: relative(own[:1], other[:1]))}


def pytorch_grad_cam(bundle: bundles.Bundle, x: torch.Tensor) -> tuple[Call | None, Any]:
    """Return its call, or why there is none; it keeps what is positive, scaled to 1."""
    sys.path.append(str(PEERS))
    try:
        library = importlib.import_module("pytorch_grad_cam")
        targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    except ImportError as error:
        return None, f"not installed ({error}): see the top of this file"
    finally:
        sys.path.remove(str(PEERS))
    cam = library.GradCAM(model=bundle.model, target_layers=[bundle.model.network.cam_layer()])
    wanted = [targets.ClassifierOutputTarget(0)] * len(x)

    leaf = x.clone().requires_grad_(True)  # the model's weights need no gradient
    return (lambda: cam(input_tensor=leaf, targets=wanted)), positive


def positive(own: Array, other: Array) -> float:
    """Return how unlike the positive parts of maps are, each scaled to 1; NaN where no map has one."""
    kept = np.maximum(own[:, 0], 0)
    kept /= kept.max(axis=(1, 2), keepdims=True).clip(1e-30)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(kept, other, strict=True) if a.std() > 0]
    return float(1 - np.min(alike)) * 1e-2 if alike else float("nan")  # scaled twice there: 10 % of the limit


def relative(own: Array, other: Array) -> float:
    """Return the median over images of the largest difference, over the largest value.

    On one of many lines a ReLU may be at its kink to within rounding, where float32 itself jumps.
    """
    differences = np.abs(own - other).reshape(len(own), -1).max(axis=1)
    return float(np.median(differences) / np.abs(other).max())


def grown(call: Call) -> tuple[Array, int]:
    """Return what ``call`` gives, and by how many bytes resident memory grew meanwhile at most."""
    before, most, over = resident(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            most[0] = max(most[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        found = call()
    finally:
        over.set()
        thread.join()
    return found, max(most[0], resident()) - before


def resident() -> int:
    """Return this process's resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
