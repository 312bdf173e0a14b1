"""Small networks with all that training leaves of them, and their exported files."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import onnxruntime
import torch

from deploy.exporting.config import ExportConfig
from deploy.exporting.export import export
from stm_models.explain.references import references
from stm_models.networks import bundle as bundles
from stm_models.networks.model import Model
from stm_models.networks.registry import create, default_options
from stm_models.training.appearance import Appearance
from stm_models.training.intervals import Interval, Residuals
from stm_models.training.novelty import Novelty
from stm_models.training.predict import features

# Odd sizes: pooling drops or completes rows. Two targets: the explained one is not the first.
CASES = {
    "mlp": {"shape": (2, 23, 26), "targets": ["gap", "U"], "explained": 1, "options": {"pool": 3}},
    "conv": {"shape": (1, 26, 27), "targets": ["U"], "explained": 0, "options": {"hidden": 32}},
}
FINE = ExportConfig(explanations="all", ig_steps=4, eg_draws=6, background=3, seed=5)


def random_images(shape, count, seed):
    """Images of one spread in each pixel, float32 (count, *shape)."""
    rng = np.random.default_rng(seed)
    spread = np.exp(np.random.default_rng(99).normal(size=shape))
    return (2.0 + spread * rng.normal(size=(count, *shape))).astype(np.float32)


def make(name, folder):
    """Save the model of a case; return it with the metadata of its file."""
    case = CASES[name]
    images, heldout = random_images(case["shape"], 24, 0), random_images(case["shape"], 16, 1)
    targets = np.random.default_rng(2).normal(3.0, 2.0, (24, len(case["targets"])))
    options = {**default_options(name), **case["options"]}
    network = create(name, case["shape"], len(case["targets"]), options, seed=4)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):  # untrained statistics would hide a mistake
            layer.running_mean.copy_(torch.linspace(-0.2, 0.5, layer.num_features))
            layer.running_var.copy_(torch.linspace(0.3, 2.0, layer.num_features))
    model = Model.for_data(network, images, targets).eval()
    appearance = Appearance.fit(images)
    known, held_out = (features(model, part, appearance=appearance) for part in (images, heldout))
    novelty, quantiles = Novelty.fit(known, appearance).calibrated(
        {"clean": (held_out, np.arange(16)), "noisy": (held_out[:9] * 1.5, np.arange(9))}
    )
    hints = novelty.hints(torch.from_numpy(held_out), torch.zeros(16, 0), torch.zeros(16, 0)).numpy()
    errors = np.random.default_rng(8).normal(0, 0.3, (16, len(case["targets"])))
    calibration = Residuals(hints, errors, np.array([f"c{row}" for row in range(16)]), np.arange(16) % 2)
    spread = Residuals(hints, errors[::-1].copy(), np.array([f"s{row}" for row in range(16)]), np.arange(16) % 2)
    interval = Interval.fit(spread, calibration, level=0.8)
    channels, height, width = case["shape"]
    info = {
        "network": name,
        "options": options,
        "task": "hubbard",
        "input": {"kind": "ft_ldos", "channels": channels, "height": height, "width": width, "kx_max": 1.25},
        "targets": [{"name": n, "unit": "eV", "description": ""} for n in case["targets"]],
        "explained": case["explained"],
        "data": {"recipe": "r1", "digest": "d1"},
    }
    bundles.save(folder, model, novelty, info, references(images, heldout, 0), interval)
    metadata = {key: info[key] for key in ("task", "input", "targets", "explained", "data")}
    metadata |= {
        "run_id": "run7",
        "git_commit": None,
        "metrics": {"mae": 0.25},
        "distance": {"quantiles": quantiles},
        "interval": {"level": 0.8, "groups": 16},
        "novelty": {"groups": 16, "sets": ["clean", "noisy"]},
    }
    return SimpleNamespace(name=name, bundle=folder, metadata=metadata, **case)


def make_and_export(folder):
    """Every case by name, with its report, its file's content and a session; `conv` also with a user's mistake."""
    made = {name: make(name, folder / name) for name in CASES}
    mistaken = {**made["conv"].metadata, "task": "other"}
    with ThreadPoolExecutor(2) as pool:
        reports = {
            name: pool.submit(export, one.bundle, folder / "new" / f"{name}.onnx", one.metadata, FINE)
            for name, one in made.items()
        }
        mistake = pool.submit(export, made["conv"].bundle, folder / "mistaken" / "a.onnx", mistaken)
    made["conv"].mistake = mistake.exception()
    for name, one in made.items():
        one.report = reports[name].result()
        one.content = one.report.path.read_bytes()
        one.session = onnxruntime.InferenceSession(one.content, providers=["CPUExecutionProvider"])
    return made
