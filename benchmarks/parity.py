"""How far the maps of exported files are from those of torch, captum and shap, for every family of networks.

Each family is exported with every map that it has. Beside the exporter's own check against autograd, on fresh images in
batches of 1, 3 and 17, the file's maps of two images are held against captum (Saliency, InputXGradient, LayerGradCam,
GuidedBackprop, IntegratedGradients by Gauss-Legendre) and against shap.GradientExplainer with the same draws.
captum sees no ReLU that is called as a function: of such networks its guided backpropagation is not compared.
Where a map jumps, both libraries and both precisions differ: so the libraries' own maps in float32 are held against
those in float64, and the formulas of both sides against each other in float64, where nothing is rounded that shows.

``--out FILE.md`` writes the table for the documentation.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import captum.attr
import numpy as np
import onnxruntime
import shap
import torch
from _models import FAMILIES, images, make, written
from _timing import report
from numpy.typing import NDArray
from torch import Tensor, nn

from deploy.exporting.config import ExportConfig
from stm_models.explain.methods import METHODS, compute
from stm_models.files import atomic_path
from stm_models.networks import bundle as bundles
from stm_models.networks.bundle import Bundle
from stm_models.networks.map_network import MapNetwork

Array = NDArray[Any]
SHAPE = (1, 32, 32)
SHAPES = {
    "fieldnet": (2, 32, 32), "voltage_attention": (2, 32, 32),
    "resnet18": (1, 64, 64),  # with one last pixel its Grad-CAM is zero but for rounding: the head does not see scale
}  # fmt: skip


class Strongest(nn.Module):
    """What maps explain, as the (B, 1) numbers that captum and shap take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the (B, 1) answers."""
        found = self.model(x)
        return found.amax(dim=(2, 3)) if found.ndim == 4 else found


def peers(bundle: Bundle, config: ExportConfig) -> dict[str, Callable[[Tensor], Array]]:
    """Return for each map what another library says it is; maps of several pixels are left to autograd."""
    model, network = Strongest(bundle.model), bundle.model.network

    def by(attribution: Any, **options: Any) -> Callable[[Tensor], Array]:
        return lambda x: attribution.attribute(x.clone().requires_grad_(True), target=0, **options).detach().numpy()

    def cam(x: Tensor) -> Array:
        layer = captum.attr.LayerGradCam(model, network.cam_layer())
        found = layer.attribute(x.clone().requires_grad_(True), target=0, attr_dim_summation=True)
        return captum.attr.LayerAttribution.interpolate(found.detach(), tuple(x.shape[2:]), "bilinear").numpy()

    def expected(x: Tensor) -> Array:
        explainer = shap.GradientExplainer(model, bundle.background[: config.background])
        rows = [
            np.asarray(explainer.shap_values(one[None], nsamples=config.eg_draws, rseed=config.seed))[..., 0]
            for one in x
        ]
        return np.concatenate(rows)

    baseline = bundle.baseline[None]
    found: dict[str, Callable[[Tensor], Array]] = {
        "gradient": by(captum.attr.Saliency(model), abs=False),
        "grad_x_input": by(captum.attr.InputXGradient(model)),
    }
    if not isinstance(network, MapNetwork):  # along a line the strongest pixel of a map may be another
        integrated = captum.attr.IntegratedGradients(model)
        found["integrated_gradients"] = lambda x: (
            integrated.attribute(x, baseline, target=0, n_steps=config.ig_steps, method="gausslegendre")
            .detach()
            .numpy()
        )
        found["expected_gradients"] = expected
    if (not network.no_cam() and not hasattr(network, "body")) or hasattr(getattr(network, "body", None), "layer4"):
        found["grad_cam"] = cam
    if type(network).__name__ == "Conv":
        found |= {"grad_cam": cam, "guided": by(captum.attr.GuidedBackprop(model))}
    return found


def compared(name: str, config: ExportConfig) -> dict[str, Any]:
    """Export one family and return its errors by map, of the exporter's check and of the peers, and what is refused."""
    shape = SHAPES.get(name, SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        bundle, done = written(name, shape, Path(folder), config)
        session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
        seen = images(shape, 2, 99)
        found = dict(zip(done.explanations, session.run(done.explanations, {"image": seen}), strict=True))
        about = json.loads(session.get_modelmeta().custom_metadata_map["stm"])
    steps = about["details"].get("integrated_gradients", {}).get("steps", config.ig_steps)
    others = {}
    for method, explain in peers(bundle, config.model_copy(update={"ig_steps": steps})).items():
        if method in found:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                want = explain(torch.from_numpy(seen))
            others[method] = float(np.abs(found[method] - want).max() / np.abs(want).max())
    return {
        "autograd": {key: done.parity[key] for key in (*about["answers"], *done.explanations)}, "peers": others,
        "kinks": done.parity["kinks"], "rounding": done.parity["rounding"], "refused": done.refused,
        "details": about["details"],
    }  # fmt: skip


def in_double(name: str, config: ExportConfig, found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return by map how far the peer's float32 is from its float64, and how far our formula is from the latter."""
    shape = SHAPES.get(name, SHAPE)
    seen = torch.from_numpy(images(shape, 2, 99))
    with tempfile.TemporaryDirectory() as folder:
        path, _ = make(name, shape, Path(folder))
        single, double = bundles.load(path), bundles.load(path).double()
    steps = found["details"].get("integrated_gradients", {}).get("steps", config.ig_steps)
    fine, config = replace(config.steps, integrated=steps), config.model_copy(update={"ig_steps": steps})
    errors: dict[str, dict[str, float]] = {"float32": {}, "double": {}}
    rounded, exact = peers(single, config), peers(double, config)
    for method in found["peers"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got, want = rounded[method](seen), exact[method](seen.double())
        own = compute(double, method, steps=fine)(seen.double()).detach().numpy()
        for kind, map_ in (("float32", got), ("double", own)):
            errors[kind][method] = float(np.abs(map_ - want).max() / np.abs(want).max())
    return errors


def kept(name: str, config: ExportConfig, folder: Path | None) -> dict[str, Any]:
    """Return the result that ``folder`` holds, or find it and keep it there."""
    result: dict[str, Any]
    if folder is None:
        result = compared(name, config)
        return result | in_double(name, config, result)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace(':', '_')}.json"
    if not path.exists():
        found = compared(name, config)
        with atomic_path(path) as part:
            part.write_text(json.dumps(found), encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    return result | in_double(name, config, result)


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the documentation's table."""
    heads = ["prediction", *METHODS]
    lines = [
        "# Exported maps against torch, captum and shap", "",
        "Made by `python benchmarks/parity.py --out docs/parity.md`: the largest relative difference between the ONNX",
        "file and torch autograd on fresh images in batches of 1, 3 and 17 and, behind the slash, captum's or shap's",
        "map of two images (same steps, same draws); in brackets how far that library's own float32 is from its",
        "float64 there. Weights are random: ReLU networks have many kinks on a line, where a map in float32 jumps.",
        f"In float64 maps of torch by these formulas agree with captum's and shap's to {_most(results):.0e} in every",
        "cell. A dash: there is no such map, see below.", "",
        "| network | " + " | ".join(heads) + " | kinks, rounding |", "|---" * (len(heads) + 2) + "|",
    ]  # fmt: skip
    for name, found in results.items():
        cells = []
        for head in heads:
            own, other = found["autograd"].get(head), found["peers"].get(head)
            beside = "" if other is None else f" / {other:.0e} ({found['float32'][head]:.0e})"
            cells.append("–" if own is None else f"{own:.0e}{beside}")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {found['kinks']:.0f}, {found['rounding']:.0f} |")
    lines += [
        "", "*kinks*: maps of rows that differ where the gradient itself jumps within float32's rounding; *rounding*:",
        "rows where float32 torch is as far from float64 as the file is ([explanations](explanations.md#parity)).", "",
        "Not in the file:", "",
    ]  # fmt: skip
    for name, found in results.items():
        lines += [f"- {name}, {method}: {reason}." for method, reason in found["refused"].items()]
    return "\n".join(lines) + "\n"


def _most(results: dict[str, dict[str, Any]]) -> float:
    return max(float(np.max(list(found["double"].values()), initial=0.0)) for found in results.values())


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three families")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--only", metavar="NAME,...", help="these families alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep each family's result; run again, it goes on")
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="write the table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = ExportConfig(explanations="all", ig_steps=8, eg_draws=8)
    families = args.only.split(",") if args.only else ("mlp", "conv", "fieldnet") if args.quick else FAMILIES
    results = {name: kept(name, config, args.keep) for name in families}
    if args.out:
        args.out.write_text(table(results), encoding="utf-8")
    errors = {
        f"{name}_{kind}": float(np.max(list(found[kind].values())))
        for name, found in results.items()
        for kind in ("autograd", "peers", "double")
        if found[kind]
    }
    report("parity", {}, errors, results, as_json=args.json)


if __name__ == "__main__":
    main()
