"""The rules that make gradients exportable, against autograd; no file is exported here."""

from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from deploy.exporting import decompositions as rules
from deploy.exporting import graph
from deploy.exporting.nodes import ancestors
from deploy.exporting.parts import Parts
from stm_models.explain.gradient import slope


def _tied(*shape, seed=0):
    """Small integers: nearly every pooling window has several equal maxima."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 3, shape).astype(np.float32))


def _normal(*shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def _autograd(function, image):
    leaf = image.clone().requires_grad_(True)
    out = function(leaf)
    weights = _normal(*out.shape)
    (gradient,) = torch.autograd.grad(out, leaf, weights)
    return gradient, weights


@pytest.mark.parametrize("image", [_tied(2, 3, 11, 14), _normal(2, 3, 11, 14), torch.ones(2, 3, 11, 14)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "ceil"),
    [
        ((2, 2), (2, 2), (0, 0), (1, 1), False),
        ((2, 2), [], (0, 0), (1, 1), True),
        ((3, 3), (2, 2), (1, 1), (1, 1), False),
        ((3, 2), (1, 3), (1, 0), (2, 1), False),
        ((3, 3), (2, 2), (1, 1), (1, 1), True),
    ],
)
def test_max_pool_gradient_goes_to_the_first_of_equal_maxima(image, kernel, stride, padding, dilation, ceil):
    def pool(x):
        return functional.max_pool2d(x, kernel, stride or None, padding, dilation, ceil)

    want, weights = _autograd(pool, image)
    got = rules.max_pool_backward(
        weights, image, kernel, stride, padding, dilation, ceil, torch.zeros(0, dtype=torch.int64)
    )
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("dim", "start", "end", "step"),
    [
        (2, 0, 5, 1),
        (3, 4, 2**63 - 1, 1),
        (-1, -6, 2**63 - 1, 1),
        (1, 1, 2, 1),
        (2, 3, 3, 1),
        (3, 20, 30, 1),
        (2, 1, 9, 3),
    ],
)
def test_gradient_of_a_slice(dim, start, end, step):
    image = _normal(2, 3, 11, 14)
    want, weights = _autograd(lambda x: torch.ops.aten.slice(x, dim, start, end, step), image)
    torch.testing.assert_close(rules.slice_backward(weights, image.shape, dim, start, end, step), want)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil", "counted", "divisor"),
    [
        ([2, 2], [], [0, 0], False, True, None),
        ([3, 2], [2, 1], [1, 0], False, True, None),
        ([2, 2], [3, 3], [0, 0], False, True, 7),
        ([2, 2], [2, 2], [0, 0], True, False, None),
        ([3, 2], [2, 3], [1, 1], True, True, None),
        ([3, 3], [2, 2], [1, 1], False, False, None),
        ([3, 3], [2, 2], [1, 1], True, False, 5),
    ],
)
def test_average_pool_gradient(kernel, stride, padding, ceil, counted, divisor):
    image = _normal(2, 3, 11, 14)

    def pool(x):
        return functional.avg_pool2d(x, kernel, stride or None, padding, ceil, counted, divisor)

    want, weights = _autograd(pool, image)
    got = rules.average_pool_backward(weights, image, kernel, stride, padding, ceil, counted, divisor)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("mask", [None, _normal(1, 4, 5, 7, seed=9)])
def test_attention_gradient(mask, scale):
    query, key, value = _normal(2, 4, 5, 6), _normal(2, 4, 7, 6, seed=2), _normal(2, 4, 7, 6, seed=3)
    leaves = [part.clone().requires_grad_(True) for part in (query, key, value)]
    out = functional.scaled_dot_product_attention(*leaves, attn_mask=mask, scale=scale)
    above = _normal(*out.shape, seed=4)
    want = torch.autograd.grad(out, leaves, above)
    got = rules.attention_backward(
        above, query, key, value, out, torch.empty(0), 0.0, False, attn_mask=mask, scale=scale
    )
    for found, right in zip(got, want, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)


def test_attention_of_sequences_is_refused():
    one = torch.ones(1, 1, 2, 2)
    for dropout, causal in ((0.1, False), (0.0, True)):
        with pytest.raises(NotImplementedError, match="causal attention or dropout"):
            rules.attention_backward(one, one, one, one, one, one, dropout, causal)


@pytest.mark.parametrize("size", [(1, 1), (4, 7), (5, 6), (11, 14), (13, 3)])
def test_adaptive_average_pool_and_its_gradient(size):
    image = _normal(2, 3, 11, 14)
    want, weights = _autograd(lambda x: functional.adaptive_avg_pool2d(x, size), image)
    torch.testing.assert_close(rules.adaptive_average_pool(image, size), functional.adaptive_avg_pool2d(image, size))
    torch.testing.assert_close(rules.adaptive_average_pool_backward(weights, image), want)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "transposed", "groups"),
    [
        ((1, 1), (1, 1), (1, 1), False, 1),
        ((2, 3), (1, 0), (1, 1), False, 1),
        ((2, 2), (2, 2), (2, 2), False, 2),
        ((2, 2), (1, 1), (1, 1), True, 1),
        ((3, 1), (0, 1), (1, 2), True, 2),
    ],
)
def test_convolution_gradient_has_the_size_of_the_image(stride, padding, dilation, transposed, groups):
    image, weight = _normal(2, 4, 12, 13), _normal(4, 4 // groups, 3, 3, seed=2)
    extra = [step - 1 for step in stride] if transposed else [0, 0]

    def convolve(x):
        return torch.ops.aten.convolution(x, weight, None, stride, padding, dilation, transposed, extra, groups)

    want, weights = _autograd(convolve, image)
    got, *rest = rules.convolution_backward(
        weights,
        image,
        weight,
        None,
        stride,
        padding,
        dilation,
        transposed,
        extra,
        groups,
        (True, False, False),
    )
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert rest == [None, None]


def test_gradients_of_weights_are_refused():
    one = torch.ones(1, 1, 3, 3)
    with pytest.raises(NotImplementedError, match="requires_grad_"):
        rules.convolution_backward(one, one, one, None, [1], [1], [1], False, [0], 1, (True, True, False))


class _Attention(nn.Module):
    """Every pixel attends to every other, its channels as two heads."""

    def forward(self, x):
        heads = x.flatten(2).reshape(-1, 2, x.shape[1] // 2, x.shape[2] * x.shape[3]).transpose(2, 3)
        mixed = functional.scaled_dot_product_attention(heads, 0.5 * heads, heads - 1.0)
        return mixed.transpose(2, 3).reshape(-1, *x.shape[1:])


class _Everything(nn.Module):
    """Every operator that has a rule, and every kind of block of the networks."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.body = nn.Sequential(
                nn.Conv2d(3, 4, 3, stride=2, padding=1),
                nn.BatchNorm2d(4),
                nn.GELU(),
                nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False),
                _Attention(),
                nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
                nn.MaxPool2d(2),
                nn.Conv2d(6, 6, 3, groups=3),
                nn.AdaptiveAvgPool2d((2, 3)),
                nn.Flatten(),
            )
            self.head = nn.Linear(36, 3)
        self.body[1].running_mean.add_(0.3)
        self.body[1].running_var.mul_(1.7)

    def forward(self, x):
        return self.head(functional.normalize(self.body(self.pool(x))))


class _Norm(nn.Module):
    def forward(self, x):
        return x.flatten(1).norm(dim=1)


def test_graph_of_every_rule_agrees_with_autograd_on_tied_images_of_any_batch():
    shape = (3, 33, 38)  # the trace's batch is 3 as well: equal sizes must not be mixed up
    network = _Everything().eval().requires_grad_(False)
    norm = _Norm()
    parts = Parts(
        lambda x: {"prediction": network(x), "distance": norm(x)}, {"gradient": partial(slope, network, target=2)}
    )
    model = graph.build(parts, shape)
    assert [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        *shape,
    ]
    assert b"/tests/" not in model.SerializeToString()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for images in (_tied(1, *shape), _tied(5, *shape, seed=4), torch.ones(2, *shape)):
        want = graph.evaluate(parts, images)
        got = session.run(list(want), {graph.INPUT: images.numpy()})
        for found, right in zip(got, want.values(), strict=True):
            assert found.shape == tuple(right.shape)
            np.testing.assert_allclose(found, right.numpy(), rtol=1e-4, atol=2e-6 * float(right.abs().max()))


@pytest.mark.parametrize("inplace", [False, True])
def test_hard_swish_stays_one_node_that_a_convolution_takes_in(inplace):
    # As four nodes each, a MobileNet took half as long again.
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.Hardswish(inplace), nn.Conv2d(8, 8, 3), nn.Hardsigmoid(inplace), nn.Flatten()
        )
    network.eval().requires_grad_(False)
    parts = Parts(lambda x: {"prediction": network(x)}, {"gradient": partial(slope, network, target=2)})
    model = graph.build(parts, (1, 9, 9))
    forward = [node.op_type for node in ancestors(model.graph.node, ["prediction"])]
    assert sorted(set(forward)) == ["Conv", "HardSigmoid", "HardSwish", "Reshape"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = 20 * _normal(4, 1, 9, 9)  # on either side of both ends
    want = graph.evaluate(parts, images)
    for found, right in zip(session.run(list(want), {graph.INPUT: images.numpy()}), want.values(), strict=True):
        np.testing.assert_allclose(found, right.numpy(), rtol=1e-4, atol=2e-6 * float(right.abs().max()))
