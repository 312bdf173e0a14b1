"""Explanation maps of one ONNX file against captum, pytorch-grad-cam and shap.GradientExplainer in torch eager.

The network is ``conv``; one thread on both sides, CPU seconds. Grad-CAM, gradient and guided backpropagation against
captum, Grad-CAM against pytorch-grad-cam too, integrated gradients (Gauss-Legendre, the same points) against captum,
and expected gradients (the same background and number of draws) against shap. captum gets at most 16 images at once
where all points together would not fit the memory. With ``--device cuda`` both compute on the GPU, in single precision
without tf32, in seconds of the clock from arrays to arrays in main memory.

Maps are compared before times, over 16 images, both sides with the peer's in float64: ``difference`` is ours,
``their_difference`` the peer's, each of nine tenths of a map's pixels. Ours may be off by 1e-3, or by as much as the
peer's own single precision is: on one of many points of a line a ReLU may be at its kink to within rounding, where
float32 itself jumps, in the patch of pixels that this ReLU sees. The other pixels agree to 1e-7. shap draws anew for
every image of a batch, so it gets them one by one; pytorch-grad-cam keeps the positive part.

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
from deploy.model.subgraph import extract
from stm_models.explain.methods import Steps
from stm_models.networks import bundle as bundles

PEERS = Path(__file__).resolve().parents[1] / "build" / "peers"
METHODS = ("grad_cam", "gradient", "guided", "integrated_gradients", "expected_gradients")
GOALS = {"grad_cam": 3.0, "gradient": 1.2, "guided": 1.2, "integrated_gradients": 2.0, "expected_gradients": 2.0}
AT_ONCE = 2**21  # pixels that captum gets at once
CHUNK = 16
LIMIT = 1e-3  # of the largest value of a map
Array = NDArray[Any]
Call = Callable[[], Array]
Explain = Callable[[torch.Tensor], Array]
Unlike = Callable[[Array, Array], float]


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
    for case in QUICK if args.quick else FULL:
        for key, cell in measured(case, args.device).items():
            cells[key] = cell
            print(key, cell, file=sys.stderr)
    ratios: dict[str, float] = {}
    found = {key: cell for key, cell in cells.items() if "ratio" in cell}
    for cell in found.values():
        key = f"{cell['method']}_b{cell['batch']}"
        ratios[key] = min(ratios.get(key, np.inf), cell["ratio"])
    for key, cell in found.items():
        assert cell["difference"] <= max(LIMIT, cell["their_difference"]), (
            f"{key}: its map differs, its time says nothing"
        )
    errors = {key: max(cell[key] for cell in found.values()) for key in ("difference", "their_difference")}
    detail = {"device": called(args.device), "goals": GOALS, "cells": cells}
    report("explanations", ratios, errors, detail, as_json=args.json)


def measured(case: Case, device: str) -> dict[str, dict[str, Any]]:
    """Return every cell of one size."""
    shape = (1, case.side, case.side)
    with tempfile.TemporaryDirectory() as folder:
        path, _ = make("conv", shape, Path(folder))
        bundle, exact = bundles.load(path), bundles.load(path).double()
    content = build(parts_of(bundle, 0, METHODS, case.steps), shape).SerializeToString()
    seen = images(shape, max(case.batches), 99)
    for side in (bundle, exact):
        side.model.to(device)
    cells: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        part = extract(content, [method])
        truths = peers(exact, method, case.steps, device)
        for name, (explain, unlike) in peers(bundle, method, case.steps, device).items():
            if explain is None:
                cells[f"{method}_{case.side}_{name}"] = {"method": method, "side": case.side, "missing": unlike}
                continue
            x = torch.from_numpy(seen).to(device)
            truth = np.concatenate([truths[name][0](one[None]) for one in x.double()])
            theirs = unlike(np.concatenate([explain(one[None]) for one in x]), truth)
            for batch in case.batches:
                own, figures = compared(part, method, seen, batch, explain, case.rounds, device)
                cells[f"{method}_b{batch}_{case.side}_{name}"] = {
                    "method": method, "batch": batch, "side": case.side, "peer": name,
                    "difference": unlike(own, truth), "their_difference": theirs, **figures,
                }  # fmt: skip
    return cells


def compared(
    part: bytes, method: str, seen: Array, batch: int, explain: Explain, rounds: int, device: str
) -> tuple[Array, dict[str, float]]:
    """Return our maps of all images, and what one batch takes: memory, seconds, ratio."""
    session = opened(part, device)
    x = torch.from_numpy(seen[:batch]).to(device)

    def ours(first: int = 0) -> Array:
        found: Array = session.run([method], {"image": seen[first : first + batch]})[0]
        return found

    def theirs() -> Array:
        return explain(x)

    on_cpu = device == "cpu"
    memory = {"ours_MiB": grown(ours) / 2**20, "theirs_MiB": grown(theirs) / 2**20} if on_cpu else {}
    times = paired(ours, theirs, rounds=rounds, clock=time.process_time if on_cpu else time.perf_counter)
    maps = np.concatenate([ours(first) for first in range(0, len(seen), batch)])
    return maps, {**memory, **{key: times[key] for key in ("ratio", "ours_s", "reference_s")}}


def peers(bundle: bundles.Bundle, method: str, steps: Steps, device: str) -> dict[str, tuple[Explain | None, Any]]:
    """Return what to compare with by library, each with how unlike two maps are; or no call, and why."""
    model = bundle.model

    def of(attribution: Any, *given: Any, **options: Any) -> Explain:
        """Return captum's maps as an array."""

        def explain(x: torch.Tensor) -> Array:
            leaf = x.clone().requires_grad_(True)
            found: Array = attribution.attribute(leaf, *given, target=0, **options).detach().cpu().numpy()
            return found

        return explain

    if method == "gradient":
        return {"captum": (of(captum.attr.Saliency(model), abs=False), relative)}
    if method == "guided":
        return {"captum": (of(captum.attr.GuidedBackprop(model)), relative)}
    if method == "grad_cam":
        layer = captum.attr.LayerGradCam(model, model.network.cam_layer())

        def cam(x: torch.Tensor) -> Array:
            found = layer.attribute(x.clone().requires_grad_(True), target=0).detach()
            return captum.attr.LayerAttribution.interpolate(found, tuple(x.shape[2:]), "bilinear").cpu().numpy()

        return {"captum": (cam, relative), "pytorch_grad_cam": pytorch_grad_cam(bundle)}
    if method == "integrated_gradients":
        integrated, baseline = captum.attr.IntegratedGradients(model), bundle.baseline[None].to(device, dtype(bundle))
        points = {"n_steps": steps.integrated, "method": "gausslegendre"}

        def line(x: torch.Tensor) -> Array:
            at_once = None if x.numel() * steps.integrated <= AT_ONCE else max(CHUNK, len(x))
            return of(integrated, baseline, internal_batch_size=at_once, **points)(x)

        return {"captum": (line, relative)}
    explainer = shap.GradientExplainer(model, bundle.background[: steps.background].to(device, dtype(bundle)))

    def expected(x: torch.Tensor) -> Array:
        found = explainer.shap_values(x, nsamples=steps.expected, rseed=steps.seed)
        return np.asarray(found)[..., 0]

    return {"shap": (expected, relative)}


def dtype(bundle: bundles.Bundle) -> torch.dtype:
    """Return the precision that the model computes in."""
    return next(bundle.model.parameters()).dtype


def pytorch_grad_cam(bundle: bundles.Bundle) -> tuple[Explain | None, Any]:
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

    def explain(x: torch.Tensor) -> Array:
        leaf = x.clone().requires_grad_(True)  # the model's weights need no gradient
        found: Array = cam(input_tensor=leaf, targets=[targets.ClassifierOutputTarget(0)] * len(x))[:, None]
        return found

    return explain, positive


def positive(own: Array, other: Array) -> float:
    """Return how unlike the positive parts of maps are up to a factor; NaN where no map has one."""
    kept, other = np.maximum(own, 0), np.maximum(other, 0)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(kept, other, strict=True) if a.std() > 0]
    return float(1 - np.min(alike)) * 1e-2 if alike else float("nan")  # scaled twice there: 10 % of the limit


def relative(own: Array, other: Array) -> float:
    """Return the median over images of what nine tenths of the pixels differ by at most, over the largest value."""
    differences = np.quantile(np.abs(own - other).reshape(len(own), -1), 0.9, axis=1)
    return float(np.median(differences) / np.abs(other).max())


def grown(call: Call) -> int:
    """Return by how many bytes resident memory grew at most while ``call`` ran."""
    before, most, over = resident(), [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.002):
            most[0] = max(most[0], resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        over.set()
        thread.join()
    return max(most[0], resident()) - before


def resident() -> int:
    """Return this process's resident memory in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
