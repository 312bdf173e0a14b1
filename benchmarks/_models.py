"""Networks of every family with weights that training could have left, as bundles; and their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.exporting.config import ExportConfig
from deploy.exporting.export import ExportReport, export
from stm_models.explain.references import references
from stm_models.networks import bundle, registry
from stm_models.networks.map_network import MapNetwork
from stm_models.networks.model import Model
from stm_models.training.appearance import Appearance
from stm_models.training.novelty import Novelty
from stm_models.training.predict import features

__all__ = ["FAMILIES", "images", "make", "written"]

OPTIONS: dict[str, dict[str, Any]] = {
    "lattice": {"vectors": [[5.0, 0.0], [2.5, 4.33]], "pixel": [1.0, 1.0], "peak": 0.9},
    "fieldnet": {"width": 8},
    "voltage_attention": {"answer": "sigmoid"},
}
FAMILIES = (
    "linear", "fc", "mlp", "lattice", "conv", "resnet18", "timm:test_efficientnet", "timm:mobilenetv3_small_050",
    "timm:test_convnext", "timm:test_vit", "fieldnet", "voltage_attention",
)  # fmt: skip


def images(shape: tuple[int, int, int], count: int, seed: int) -> NDArray[np.float32]:
    """Peaks of several heights on a weak background, as Fourier transforms of simulated maps look."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    places = np.random.default_rng(7).uniform(-0.9, 0.9, (12, 2))
    peaks = np.exp(-((x - places[:, :1, None]) ** 2 + (y - places[:, 1:, None]) ** 2) / 0.02)
    heights = rng.gamma(2.0, 0.3, (count, shape[0], len(places)))
    noise = 0.05 * rng.standard_normal((count, *shape))
    return np.asarray(0.2 + np.einsum("scp,pyx->scyx", heights, peaks) + noise, np.float32)


def make(
    name: str, shape: tuple[int, int, int], folder: Path, options: dict[str, Any] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write a bundle of network ``name`` under ``folder``; return its path and the metadata that its export needs."""
    seen, options = images(shape, 24, 0), OPTIONS.get(name, {}) if options is None else options
    network = registry.create(name, shape, 1, options, seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.copy_(torch.linspace(-0.2, 0.5, layer.num_features))
                layer.running_var.copy_(torch.linspace(0.3, 2.0, layer.num_features))
    model = Model.for_data(network, seen, np.random.default_rng(2).normal(2.0, 1.5, (24, 1))).eval()
    appearance = None if isinstance(network, MapNetwork) else Appearance.fit(seen)
    found = features(model, seen, appearance=appearance)
    novelty, quantiles = Novelty.fit(found[:16], appearance).calibrated({"clean": (found[16:], np.arange(8))})
    known = {
        "task": "hubbard", "targets": [{"name": "U", "unit": "eV", "description": ""}], "explained": 0,
        "input": {"kind": "benchmark", "channels": shape[0], "height": shape[1], "width": shape[2]},
        "data": {"recipe": "none", "digest": "none"},
    }  # fmt: skip
    info = {"network": name, "options": options, **known}
    path = bundle.save(folder / "bundle", model, novelty, info, references(seen, images(shape, 16, 1), 0))
    own = {"run_id": None, "git_commit": None, "metrics": {}, "distance": {"quantiles": quantiles}}
    return path, {**known, **own}


def written(
    name: str, shape: tuple[int, int, int], folder: Path, config: ExportConfig
) -> tuple[bundle.Bundle, ExportReport]:
    """Return the model and the file of network ``name``."""
    path, about = make(name, shape, folder)
    return bundle.load(path), export(path, folder / "model.onnx", about, config)
