"""MaxUnpool in operators that onnxruntime has for CUDA, as a function of the file."""

from __future__ import annotations

from typing import Any

from onnx import parser

from deploy.model.on_cuda import FUNCTIONS, UNPOOL

__all__ = ["add_unpool"]

# Each pixel's place in its window is compared with that of the window's maximum; ONNX counts the latter, `where`,
# through all images and channels.
_FUNCTION = f"""
<domain: "{FUNCTIONS}", opset_import: ["" : OPSET]>
{UNPOOL} <kernel_shape, strides> (values, where, shape) => (image)
{{
    kernel = Constant <value_ints: ints = @kernel_shape> ()
    zero = Constant <value: tensor = int64 {{0}}> ()
    one = Constant <value: tensor = int64 {{1}}> ()
    first = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    third = Constant <value_ints: ints = [2]> ()
    fourth = Constant <value_ints: ints = [3]> ()
    end = Constant <value_ints: ints = [4]> ()
    inner = Constant <value_ints: ints = [3, 5]> ()
    rows = Slice (kernel, first, second)
    columns = Slice (kernel, second, third)
    height = Slice (shape, third, fourth)
    width = Slice (shape, fourth, end)
    line = Div (where, width)
    row = Mod (line, height)
    down = Mod (row, rows)
    start = Mul (down, columns)
    column = Mod (where, width)
    across = Mod (column, columns)
    place = Add (start, across)
    apart = Unsqueeze (place, inner)
    each = ReduceProd <keepdims: int = 0> (kernel)
    count = Range (zero, each, one)
    box = Concat <axis: int = 0> (rows, second, columns)
    places = Reshape (count, box)
    hit = Equal (apart, places)
    chosen = CastLike (hit, values)
    wide = Unsqueeze (values, inner)
    spread = Mul (chosen, wide)
    outer = Shape <start: int = 0, end: int = 2> (values)
    sides = Shape <start: int = 2, end: int = 4> (values)
    covered = Mul (sides, kernel)
    size = Concat <axis: int = 0> (outer, covered)
    most = Reshape (spread, size)
    rest = Sub (shape, size)
    before = Mul (size, first)
    edges = Concat <axis: int = 0> (before, rest)
    image = Pad (most, edges)
}}
"""


def add_unpool(proto: Any) -> None:
    """Give a file that has such nodes the function: inputs and attributes are those of ONNX's operator.

    It is for windows that do not overlap, and is what `deploy.model.on_cuda` sends nodes to.
    """
    if not any(node.op_type == UNPOOL for node in proto.graph.node):
        return
    opset = next(one for one in proto.opset_import if not one.domain)
    function = parser.parse_function(_FUNCTION.replace("OPSET", str(opset.version)))
    proto.opset_import.add(domain=FUNCTIONS, version=1)
    proto.functions.append(function)
