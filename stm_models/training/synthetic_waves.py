"""Eq. 3 of arXiv:2006.15898, cores and spots for whole batches of fields on the training's device.

The counterpart of :mod:`stm_models.physics.surface.friedel` in torch, single precision: S samples, V biases, at most
N impurities, fields of L x L pixels. What a sample has fewer of carries the amplitude 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["distances", "occluded", "smoothing", "spots", "targets", "waves"]

_AT_ONCE = 8  # impurities: what fits into the cache
_EXTENT = 5.0  # widths after which a spot ends


def distances(positions: Tensor, size: int) -> Tensor:
    """Distance of every pixel from every position, px: (S, N, L, L) for positions (S, N, 2), y and x in px."""
    pixel = torch.arange(size, dtype=positions.dtype, device=positions.device)
    y, x = ((pixel - positions[..., axis, None]).square() for axis in (0, 1))
    return (y[..., :, None] + x[..., None, :]).sqrt()


def waves(
    positions: Tensor, amplitude: Tensor, phase: Tensor, wave_numbers: Tensor, exponent: Tensor, size: int,
    cutoff: float = 1.0,
) -> Tensor:  # fmt: skip
    """Sum of A cos(2 k r + alpha) / (r + cutoff)^p over the impurities: (S, V, L, L).

    Parameters
    ----------
    positions : (S, N, 2), px
        y, x.
    amplitude, phase : (S, V, N)
        Phase in rad.
    wave_numbers : (S, V), rad/px
    exponent : (S,)
    size : int, px
    cutoff : float, px
    """
    samples, biases, count = amplitude.shape
    total = torch.zeros(samples, biases, size, size, dtype=amplitude.dtype, device=amplitude.device)
    for first in range(0, count, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        r = distances(positions[:, some], size)
        envelope = (r + cutoff).log().mul_(-exponent[:, None, None, None]).exp_()
        for v in range(biases):
            wave = r * (2 * wave_numbers[:, v, None, None, None])
            wave.add_(phase[:, v, some, None, None]).cos_().mul_(envelope)
            total[:, v] += torch.einsum("snyx,sn->syx", wave, amplitude[:, v, some])
    return total


def occluded(positions: Tensor, radius: Tensor, size: int) -> Tensor:
    """Pixels closer than its radius (S, N) to any position (S, N, 2), all in px: (S, L, L) bool."""
    result = torch.zeros(len(positions), size, size, dtype=torch.bool, device=positions.device)
    for first in range(0, positions.shape[1], _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        result |= (distances(positions[:, some], size) < radius[:, some, None, None]).any(dim=1)
    return result


def spots(positions: Tensor, height: Tensor, width: Tensor, size: int) -> Tensor:
    """Sum of Gaussian spots of heights (S, V, N): (S, V, L, L) for positions (S, N, 2) and widths (S, N) in px."""
    pixel = torch.arange(size, dtype=positions.dtype, device=positions.device)
    u = (pixel - positions[..., None]) / width[:, :, None, None]  # (S, N, 2, L)
    profile = torch.where(u.abs() <= _EXTENT, torch.exp(-0.5 * u.square()), 0.0)
    return torch.einsum("svn,sny,snx->svyx", height, profile[:, :, 0], profile[:, :, 1])


def targets(positions: Tensor, inside: Tensor, size: int, width: float = 0.8) -> Tensor:
    """Heat map and nearest pixels of the impurities that are ``inside``: (S, 2, L, L), 0 to 1.

    Parameters
    ----------
    positions : (S, N, 2), px
        y, x.
    inside : (S, N) bool
    size : int, px
    width : float, px
        Standard deviation of a peak of the heat map, whose value is the largest of all peaks there.
    """
    samples = len(positions)
    heat = torch.zeros(samples, size, size, dtype=positions.dtype, device=positions.device)
    for first in range(0, positions.shape[1], _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        r = distances(positions[:, some], size)
        peak = torch.where(inside[:, some, None, None], torch.exp(-0.5 * (r / width).square()), 0.0)
        heat = torch.maximum(heat, peak.amax(dim=1))
    sample, number = inside.nonzero(as_tuple=True)
    nearest = positions[sample, number].round().long().clamp(0, size - 1)
    pixel = torch.zeros_like(heat)
    pixel[sample, nearest[:, 0], nearest[:, 1]] = 1.0
    return torch.stack([heat, pixel], dim=1)


def smoothing(size: int, width: Tensor, border: Literal["nearest", "reflect", "wrap"]) -> Tensor:
    """Gaussian filters along one axis of ``size`` pixels as matrices: (S, L, L) for widths (S,) in px.

    The weights of :func:`scipy.ndimage.gaussian_filter` with its truncation at 4 widths.
    """
    reach = (4 * width + 0.5).floor()
    longest = int(reach.max())
    offset = torch.arange(-longest, longest + 1, device=width.device)
    weight = torch.exp(-0.5 * (offset / width[:, None]).square()) * (offset.abs() <= reach[:, None])
    weight = weight / weight.sum(dim=1, keepdim=True)
    index = torch.arange(size, device=width.device)[:, None] + offset
    if border == "nearest":
        index = index.clamp(0, size - 1)
    elif border == "wrap":
        index = index % size
    else:
        index = index % (2 * size)
        index = torch.minimum(index, 2 * size - 1 - index)
    matrix = torch.zeros(len(width), size, size, dtype=width.dtype, device=width.device)
    shape = (len(width), *index.shape)
    return matrix.scatter_add(2, index.expand(shape), weight[:, None].expand(shape))
