"""Which maps go into a model file, and why the others do not."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from deploy.exporting.config import ExportConfig
from stm_models.explain.integrated_gradients import completeness
from stm_models.explain.methods import METHODS, PATHS, Steps, available, compute
from stm_models.networks.bundle import Bundle

__all__ = ["choose", "enough"]

_CHEAP = 1e9  # operations of the forward passes that one map along lines takes
_INCOMPLETE = 0.01
_MOST = 8  # times as many points at most


def choose(bundle: Bundle, config: ExportConfig) -> tuple[list[str], dict[str, str]]:
    """Return the names of the maps for the file of ``bundle``, and for each other one why it is not there."""
    refused = {name: reason for name, reason in available(bundle).items() if reason}
    if config.precision != "fp32":
        reason = f"a {config.precision} file has none: derivatives need the full precision"
        return [], {**dict.fromkeys(METHODS, reason), **refused}
    if isinstance(config.explanations, tuple):
        refused |= {name: "it was not asked for" for name in METHODS if name not in config.explanations}
    elif config.explanations == "cheap":
        counts = dict(zip(PATHS, (config.ig_steps, config.eg_draws), strict=True))
        costs = {name: count * _operations(bundle) for name, count in counts.items()}
        refused |= {
            name: f"each takes {cost / 1e9:.0f} GFLOP: ask for it with --set export.explanations=all"
            for name, cost in costs.items()
            if cost > _CHEAP and name not in refused
        }
    return [name for name in METHODS if name not in refused], refused


def enough(bundle: Bundle, steps: Steps, explained: int) -> tuple[Steps, float | None]:
    """Return ``steps`` with points enough for integrated gradients to add up to 1 %, and by how much they do not.

    Measured on held-out images; eight times as many points are the most.
    """
    images, baseline = bundle.heldout, bundle.baseline
    if images is None or baseline is None:
        return steps, None
    images, tried = images[:4], steps
    best = (steps, float("inf"))
    while tried.integrated <= _MOST * steps.integrated:
        maps = compute(bundle, "integrated_gradients", target=explained, steps=tried)(images)
        error = completeness(bundle.model, images, maps, baseline.numpy(), target=explained)
        if error < best[1]:
            best = (tried, error)
        if error <= _INCOMPLETE:
            break
        tried = replace(tried, integrated=2 * tried.integrated)
    return best


def _operations(bundle: Bundle) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        bundle.model(torch.zeros(1, *bundle.model.pixel_mean.shape))
    return int(counter.get_total_flops())
