"""Batches of raw maps prepared on the training's device as `stm_models.signal.preprocessing` prepares one stack."""

from __future__ import annotations

import torch
from torch import Tensor

from stm_models.signal.preprocessing import Preparation
from stm_models.training.synthetic_waves import smoothing

__all__ = ["prepare"]


def prepare(maps: Tensor, preparation: Preparation | None = None) -> Tensor:
    """Return ``maps`` (B, V, H, W) as a network sees them: (B, V, H, W) between -1 and 1.

    Equal to `prepare_stack` to within single precision. Maps without contrast, which that refuses, come out finite.
    """
    how = preparation or Preparation()
    flat = maps.flatten(2)
    level = flat.quantile(0.5, dim=2, keepdim=True)
    largest = flat.abs().amax(dim=2, keepdim=True)
    if how.level:
        spread = 1.4826 * (flat - level).abs().quantile(0.5, dim=2, keepdim=True)
        stands_out = (level.abs() > spread).all(dim=1, keepdim=True)
        largest = torch.where(stands_out, level, largest)
    values = maps / torch.where(largest == 0, 1.0, largest)[..., None]
    if how.plane:
        values = _without_plane(values)
    if how.high_pass > 0:
        rows, columns = (
            smoothing(length, torch.full((1,), how.high_pass, dtype=maps.dtype, device=maps.device), "reflect")
            for length in maps.shape[2:]
        )
        values = values - rows @ values @ columns.transpose(1, 2)
    if how.lines:
        values = values - values.quantile(0.5, dim=3, keepdim=True)
    modulus = values.abs().flatten(2)
    bound = modulus.quantile(how.inside, dim=2)
    bound = torch.where(bound > 0, bound, modulus.amax(dim=2)).clamp_min(torch.finfo(maps.dtype).tiny)
    return (values / bound[..., None, None]).clamp(-1, 1)


def _without_plane(values: Tensor) -> Tensor:
    y, x = (torch.arange(n, dtype=values.dtype, device=values.device) - (n - 1) / 2 for n in values.shape[2:])
    slope_y = values.mean(dim=3) @ y / (y @ y)
    slope_x = values.mean(dim=2) @ x / (x @ x)
    mean = values.mean(dim=(2, 3), keepdim=True)
    return values - mean - slope_y[..., None, None] * y[:, None] - slope_x[..., None, None] * x
