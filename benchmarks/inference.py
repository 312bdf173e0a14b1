"""Predictions of exported files by onnxruntime against torch eager and torch.compile, per family of networks.

The same normalisation and network on all sides, one image at a time and 16, on one thread and on two; seconds are CPU
seconds on one thread and wall seconds on two. torch runs without gradients. A ratio is that of one image on one thread;
``detail`` has the others. With ``--device cuda`` all compute on the GPU, in single precision without tf32, in seconds
of the clock from arrays to arrays in main memory.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _devices import called, opened
from _models import FAMILIES, images, make
from _timing import paired, report

from deploy.exporting.graph import build
from deploy.exporting.parts import Parts
from stm_models.networks import bundle as bundles

SIDE = 64
ROUNDS = {1: 9, 16: 5}


def measured(name: str, threads: tuple[int, ...], batches: tuple[int, ...], device: str) -> dict[str, Any]:
    """Return ratios and the largest relative difference of one family."""
    shape = (2 if name in ("fieldnet", "voltage_attention") else 1, SIDE, SIDE)
    with tempfile.TemporaryDirectory() as folder:
        model = bundles.load(make(name, shape, Path(folder))[0]).model
    content = build(Parts(lambda x: {"prediction": model(x)}, {}), shape).SerializeToString()
    found: dict[str, Any] = {"cells": {}, "relative": 0.0}
    model.to(device)
    torch.compiler.reset()  # after some recompilations of one function torch goes on without compiling, of all families
    compiled = torch.compile(model)
    for count in threads:
        torch.set_num_threads(count)
        session = opened(content, device, count)
        for batch in batches:
            seen = images(shape, batch, 99)

            def ours(session: Any = session, seen: Any = seen) -> Any:
                return session.run(["prediction"], {"image": seen})[0]

            for kind, network in (("eager", model), ("compile", compiled)):

                def theirs(network: Callable[..., Any] = network, seen: Any = seen) -> Any:
                    with torch.inference_mode():
                        return network(torch.from_numpy(seen).to(device)).cpu().numpy()

                own, other = ours(), theirs()
                ours(), theirs()
                error = float(np.abs(own - other).max() / np.abs(other).max())
                found["relative"] = float(np.maximum(found["relative"], error))  # NaN stays NaN
                clock = time.process_time if count == 1 and device == "cpu" else time.perf_counter
                # One run may be shorter than the clock's tick.
                repeat = 1 if name.startswith(("resnet", "timm")) else 20
                cell = paired(_times(ours, repeat), _times(theirs, repeat), rounds=ROUNDS[batch], clock=clock)
                found["cells"][f"{kind}_b{batch}_{count}threads"] = {
                    "ratio": cell["ratio"], "ours_s": cell["ours_s"] / repeat,
                    "reference_s": cell["reference_s"] / repeat,
                }  # fmt: skip
    return found


def _times(call: Callable[[], Any], count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            call()

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two families, one image, one thread")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all compute")
    parser.add_argument("--only", metavar="NAME,...", help="these families alone")
    args = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # else what is called compiled is eager
    detail = {}
    threads = (1,) if args.quick or args.device == "cuda" else (1, 2)
    for name in args.only.split(",") if args.only else ("mlp", "conv") if args.quick else FAMILIES:
        detail[name] = measured(name, threads, (1,) if args.quick else (1, 16), args.device)
        print(name, detail[name], file=sys.stderr)
    ratios = {
        f"torch_{kind}_{name}": found["cells"][f"{kind}_b1_1threads"]["ratio"]
        for name, found in detail.items()
        for kind in ("eager", "compile")
    }
    errors = {"relative": float(np.max([found["relative"] for found in detail.values()]))}
    assert errors["relative"] < 1e-3, "answers differ: their time says nothing"
    cells = {name: found["cells"] for name, found in detail.items()}
    report("inference", ratios, errors, {"device": called(args.device), **cells}, as_json=args.json)


if __name__ == "__main__":
    main()
