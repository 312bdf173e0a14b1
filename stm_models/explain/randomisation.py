"""Does a map depend on what the model learnt? Layers are drawn anew, and the map must change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import nn

from stm_models.networks.ensemble import members_of
from stm_models.networks.model import Model

__all__ = ["LIMIT", "cascade", "randomisation", "rank_correlation"]

Array = NDArray[Any]
ModelMaps = Callable[[Model, Array], Array]

STANDARDISATION = "standardisation"
LIMIT = 0.5
"""A map whose ranks still correlate more than this with a model that knows nothing is not about the model."""


def randomisation(explain: ModelMaps, model: Model, images: Array, *, seed: int, stages: int = 8) -> dict[str, Any]:
    """Compare maps with those of the model after more and more of its layers are drawn anew, from the output down.

    Parameters
    ----------
    explain : callable
        Model and images (S, C, H, W) -> maps (S, C, H, W).
    model : Model
        Left as it is.
    images : (S, C, H, W) float32
    seed : int
        Of what is drawn.
    stages : int
        Layers are taken together in about so many steps.

    Returns
    -------
    dict
        ``stages``: a list of ``layer`` (the last one drawn anew), ``correlation`` of the ranks of \\|map\\| and
        ``signed`` of the map itself, means over the images; ``network`` and ``final``: the correlation after the last
        layer, and after the pixel statistics that standardise images were shuffled too; ``constant``: how many images
        have a map without differences, at first or in the end, which tells nothing; ``limit``, and ``passes``: whether
        the last correlation is below it, and no map constant.

    Notes
    -----
    J. Adebayo et al., NeurIPS 2018 (arXiv 1810.03292).
    """
    before = explain(model, images)
    layers: list[str] = []
    plain: list[float] = []
    signed: list[float] = []
    constant = 0
    for name, changed in cascade(model, seed, stages):
        pairs = list(zip(before, explain(changed, images), strict=True))
        layers.append(name)
        plain.append(float(np.mean([rank_correlation(np.abs(a), np.abs(b)) for a, b in pairs])))
        signed.append(float(np.mean([rank_correlation(a, b) for a, b in pairs])))
        constant = sum(any(np.ptp(np.abs(one)) == 0 for one in pair) for pair in pairs)
    final = plain[-1]
    return {
        "stages": [
            {"layer": name, "correlation": one, "signed": other}
            for name, one, other in zip(layers, plain, signed, strict=True)
        ],
        "network": plain[-2 if layers[-1] == STANDARDISATION else -1], "final": final,
        "constant": constant, "limit": LIMIT, "passes": abs(final) < LIMIT and not constant,
    }  # fmt: skip


def cascade(model: Model, seed: int, stages: int = 8) -> Iterator[tuple[str, Model]]:
    """Yield one copy of a model again and again, each time with more of it drawn anew: the last layer's name, and it.

    Layers go from the output to the input, those of an ensemble's members in step; last, where images are standardised
    pixel by pixel, the pixels' statistics are shuffled. Use a copy before asking for the next.
    """
    changed = copy.deepcopy(model).eval()
    parts = members_of(changed.network) or [changed]
    learnt = [
        [(name, layer) for name, layer in part.network.named_modules()
         if any(True for _ in layer.parameters(recurse=False))][::-1]
        for part in parts
    ]  # fmt: skip
    layers = [(alike[0][0], [layer for _, layer in alike]) for alike in zip(*learnt, strict=True)]
    generator = torch.Generator().manual_seed(seed)
    ends = np.unique(np.linspace(0, len(layers), min(stages, len(layers)) + 1).round().astype(int))[1:]
    start = 0
    for end in ends:
        for _, alike in layers[start:end]:
            for layer in alike:
                _draw(layer, generator)
        start = end
        yield layers[end - 1][0], changed
    statistics = [statistic for part in parts for statistic in (part.pixel_mean, part.pixel_scale)]
    if any(len(torch.unique(statistic)) > 1 for statistic in statistics):
        places = torch.randperm(changed.pixel_scale.numel(), generator=generator).to(changed.pixel_scale.device)
        for statistic in statistics:
            statistic.copy_(statistic.flatten()[places].reshape(statistic.shape))
        yield STANDARDISATION, changed


def rank_correlation(a: Array, b: Array) -> float:
    """Return Spearman's correlation of two arrays of one shape; 0 where one of them is constant: it tells nothing."""
    first, second = (rankdata(one, axis=None) for one in (a, b))
    spread = first.std() * second.std()
    if not spread > 0:
        return 0.0
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread)


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    """Draw a layer's own parameters from a normal distribution of their mean and spread."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            values = parameter.detach().float().cpu()
            spread = values.std() if values.numel() > 1 else values.abs().mean()
            noise = torch.randn(values.shape, generator=generator)
            parameter.copy_((values.mean() + spread * noise).to(parameter))
