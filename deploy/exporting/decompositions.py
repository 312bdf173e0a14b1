"""Backward operators in terms of operators that ONNX has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from onnxscript import opset20 as onnx_op
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch.nn import functional

__all__ = [
    "adaptive_average_pool",
    "adaptive_average_pool_backward",
    "attention_backward",
    "average_pool_backward",
    "convolution_backward",
    "max_pool_backward",
    "slice_backward",
    "table",
    "threshold_backward",
    "translations",
]

_aten = torch.ops.aten
_WHOLE = (_aten.hardswish.default, _aten.hardsigmoid.default)
"""Operators that ONNX has, and onnxruntime makes part of a convolution."""


def table() -> dict[Any, Callable[..., Any]]:
    """Return the core ATen decompositions with the rules of this module."""
    return {
        **{name: rule for name, rule in core_aten_decompositions().items() if name not in _WHOLE},
        _aten.convolution_backward.default: convolution_backward,
        _aten.max_pool2d_with_indices_backward.default: max_pool_backward,
        _aten.threshold_backward.default: threshold_backward,
        _aten.avg_pool2d_backward.default: average_pool_backward,
        _aten._adaptive_avg_pool2d.default: adaptive_average_pool,
        _aten._adaptive_avg_pool2d_backward.default: adaptive_average_pool_backward,
        _aten.slice_backward.default: slice_backward,
        _aten._scaled_dot_product_flash_attention_for_cpu_backward.default: attention_backward,
    }


def translations() -> dict[Any, Callable[..., Any]]:
    """Return the operators of this module by what they are in ONNX."""
    return {_unpool._opoverload: _onnx_unpool}


def threshold_backward(gradient: Tensor, image: Tensor, threshold: float) -> Tensor:
    """Return the gradient of ReLU, and of what it is a case of, as a product: faster than a choice."""
    return gradient * (image > threshold).to(gradient.dtype)


def convolution_backward(
    gradient: Tensor,
    image: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor, None, None]:
    """Return the gradient for the image: the adjoint convolution, padded to the image's size.

    Called as torch's ``aten::convolution_backward``.

    Raises
    ------
    NotImplementedError
        When the gradient of the weight or bias is asked for: parameters are constants here.
    """
    if mask[1] or mask[2]:
        raise NotImplementedError("gradients of weights: call requires_grad_(False) first")
    if transposed:
        back = _aten.convolution.default(
            gradient, weight, None, stride, padding, dilation, False, [0] * len(stride), groups
        )
        return back, None, None
    spans = [dilation[axis] * (weight.shape[2 + axis] - 1) for axis in range(len(stride))]
    around = [span - before for span, before in zip(spans, padding, strict=True)]
    if all(step == 1 for step in stride) and min(around) >= 0:
        # onnxruntime convolves two to three times as fast as it convolves transposed.
        return _aten.convolution.default(
            gradient, _turned(weight, groups), None, stride, around, dilation, False, [0] * len(stride), groups
        ), None, None  # fmt: skip
    lost = [
        image.shape[2 + axis]
        - ((gradient.shape[2 + axis] - 1) * stride[axis] - 2 * padding[axis])
        - (dilation[axis] * (weight.shape[2 + axis] - 1) + 1)
        for axis in range(len(stride))
    ]
    back = _aten.convolution.default(gradient, weight, None, stride, padding, dilation, True, lost, groups)
    return back, None, None


def max_pool_backward(
    gradient: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    """Send each window's gradient to its maximum, the first in row order where several are equal.

    Called as torch's ``aten::max_pool2d_with_indices_backward``; ``indices`` stay unused, so that the forward pass need
    not compute them.
    """
    kernel, stride, padding, dilation = (_pair(p) for p in (kernel, stride or kernel, padding, dilation))
    if kernel == stride and padding == (0, 0) and dilation == (1, 1) and not ceil_mode:
        return _unpool(gradient, image, list(kernel))
    height, width = gradient.shape[2:]
    missing = [
        (count - 1) * step + span * (size - 1) + 1 - (before + length)
        for count, step, span, size, before, length in zip(
            (height, width), stride, dilation, kernel, padding, image.shape[2:], strict=True
        )
    ]
    edges = (padding[1], max(missing[1], 0), padding[0], max(missing[0], 0))
    padded = functional.pad(image, edges, value=-torch.inf) if any(edges) else image
    windows = [
        padded[
            ...,
            row * dilation[0] : row * dilation[0] + (height - 1) * stride[0] + 1 : stride[0],
            column * dilation[1] : column * dilation[1] + (width - 1) * stride[1] + 1 : stride[1],
        ]
        for row, column in product(range(kernel[0]), range(kernel[1]))
    ]
    best, winner = windows[0], torch.zeros_like(windows[0], dtype=torch.int32)
    for number, window in enumerate(windows[1:], start=1):
        better = window > best
        winner, best = torch.where(better, number, winner), torch.where(better, window, best)
    parts = [torch.where(winner == number, gradient, 0.0) for number in range(len(windows))]
    return _spread(torch.stack(parts, dim=2), image, kernel, stride, padding, dilation)


def average_pool_backward(
    gradient: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """Share each window's gradient equally among the pixels that its mean was taken over.

    Called as torch's ``aten::avg_pool2d_backward``.
    """
    kernel, stride, padding = (_pair(p) for p in (kernel, stride or kernel, padding))
    if divisor or not (ceil_mode or (any(padding) and not count_include_pad)):
        share = gradient / (divisor or kernel[0] * kernel[1])
    else:
        rows, columns = (
            _terms(gradient.shape[2 + axis], image.shape[2 + axis], kernel[axis], stride[axis], padding[axis],
                   count_include_pad, image)
            for axis in range(2)
        )  # fmt: skip
        share = gradient / (rows.unsqueeze(1) * columns)
    parts = share.unsqueeze(2).expand(-1, -1, kernel[0] * kernel[1], -1, -1)
    return _spread(parts, image, kernel, stride, padding, (1, 1))


def adaptive_average_pool(image: Tensor, output_size: Sequence[int]) -> Tensor:
    """Average over adaptive windows, as two products with constant matrices."""
    rows, columns = (_windows(size, length, image) for size, length in zip(output_size, image.shape[2:], strict=True))
    return rows @ image @ columns.T


def adaptive_average_pool_backward(gradient: Tensor, image: Tensor) -> Tensor:
    """Return the gradient of `adaptive_average_pool` for its image."""
    rows, columns = (
        _windows(size, length, image) for size, length in zip(gradient.shape[2:], image.shape[2:], strict=True)
    )
    return rows.T @ gradient @ columns


def slice_backward(gradient: Tensor, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Tensor:
    """Return the gradient of what a slice was taken from: padding, faster than writing into zeros.

    Called as torch's ``aten::slice_backward``.
    """
    if step != 1:
        return _aten.slice_scatter.default(gradient.new_zeros(sizes), gradient, dim, start, end, step)
    length, axis = sizes[dim], dim % gradient.ndim
    before = min(start + length if start < 0 else start, length)
    around = [0] * 2 * (gradient.ndim - 1 - axis) + [before, length - before - gradient.shape[axis]]
    return _aten.constant_pad_nd.default(gradient, around)


def attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    dropout: float,
    is_causal: bool,
    *,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of softmax(scale query key^T + mask) value for query, key and value.

    Called as torch's ``aten::_scaled_dot_product_flash_attention_for_cpu_backward``. The weights are computed anew:
    ``logsumexp`` stays unused, since the exported forward pass does not give it.

    Raises
    ------
    NotImplementedError
        For causal attention and for dropout: image networks in eval mode have neither.
    """
    if is_causal or dropout:
        raise NotImplementedError("causal attention or dropout in the gradient")
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = factor * (query @ key.transpose(-2, -1))
    weights = torch.softmax(scores if attn_mask is None else scores + attn_mask, dim=-1)
    above = gradient @ value.transpose(-2, -1)
    slopes = factor * weights * (above - (above * weights).sum(dim=-1, keepdim=True))
    return slopes @ key, slopes.transpose(-2, -1) @ query, weights.transpose(-2, -1) @ gradient


def _turned(weight: Tensor, groups: int) -> Tensor:
    """Return kernels (in, out / groups, ...) turned by 180 degrees from ``weight`` (out, in / groups, ...)."""
    out, channels, *kernel = weight.shape
    apart = weight.reshape(groups, out // groups, channels, *kernel).transpose(1, 2)
    return apart.reshape(groups * channels, out // groups, *kernel).flip(list(range(2, weight.ndim)))


def _terms(count: int, length: int, size: int, step: int, before: int, with_padding: bool, like: Tensor) -> Tensor:
    """Return along one axis how many pixels each of ``count`` windows takes its mean over: (count,)."""
    first = torch.arange(count, device=like.device) * step - before
    end = (first + size).clamp(max=length + before)
    if not with_padding:
        first, end = first.clamp(min=0), end.clamp(max=length)
    return (end - first).to(like.dtype)


def _windows(size: int, length: int, like: Tensor) -> Tensor:
    """Return the (size, length) matrix that averages ``length`` values in ``size`` adaptive windows."""
    place = torch.arange(length, device=like.device)
    number = torch.arange(size, device=like.device).unsqueeze(1)
    first = number * length // size
    end = ((number + 1) * length + size - 1) // size
    return ((place >= first) & (place < end)).to(like.dtype) / (end - first).to(like.dtype)


def _spread(
    parts: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Sum ``parts`` (B, C, window pixels, h, w) where the windows' pixels lie in ``image``."""
    channels, count, height, width = parts.shape[1:]
    flat = parts.reshape(-1, count, height, width)
    # A transposed convolution with one-hot kernels: measured faster than ScatterElements, on any device.
    onehot = torch.eye(count, dtype=parts.dtype, device=parts.device).reshape(count, 1, kernel[0], kernel[1])
    full = functional.conv_transpose2d(flat, onehot, stride=tuple(stride), dilation=tuple(dilation))
    edges: list[int] = []
    for axis in (1, 0):
        rest = image.shape[2 + axis] + padding[axis] - full.shape[2 + axis]
        edges += [-padding[axis], rest]
    if any(edges):
        full = functional.pad(full, edges)
    return full.reshape(-1, channels, *image.shape[2:])


@torch.library.custom_op("stm::unpool", mutates_args=())
def _unpool(gradient: Tensor, image: Tensor, kernel: list[int]) -> Tensor:
    """Send the gradient of windows that do not overlap to their maxima in ``image``."""
    _, where = functional.max_pool2d(image, kernel, return_indices=True)
    return functional.max_unpool2d(gradient, where, kernel, output_size=image.shape)


@_unpool.register_fake
def _(gradient: Tensor, image: Tensor, kernel: list[int]) -> Tensor:
    return torch.empty_like(image)


def _onnx_unpool(gradient: Any, image: Any, kernel: Sequence[int]) -> Any:
    # The pooling of the forward pass stays one without indices, which is the faster.
    _, where = onnx_op.MaxPool(image, kernel_shape=kernel, strides=kernel)
    return onnx_op.MaxUnpool(gradient, where, onnx_op.Shape(image), kernel_shape=kernel, strides=kernel)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    values = tuple(values)
    return (values[0], values[-1])
