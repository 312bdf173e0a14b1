"""One ONNX graph of everything that a model answers and of the maps that explain it."""

from __future__ import annotations

import logging
import operator
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch._functorch.compile_utils import fx_graph_cse
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from deploy.exporting.decompositions import table, translations
from deploy.exporting.errors import NoGraphError
from deploy.exporting.nodes import drop_output, store_once
from deploy.exporting.parts import Parts
from deploy.exporting.paths import PLACE, add_path
from deploy.exporting.unpooling import add_unpool
from deploy.model.contract import FOCUS, INPUT
from stm_models.errors import one_line
from stm_models.explain.scalar import place

__all__ = ["FOCUS", "INPUT", "OPSET", "build", "evaluate", "trace"]

OPSET = 20
_BATCH = 3


def evaluate(parts: Parts, image: Tensor, focus: Tensor | None = None) -> dict[str, Tensor]:
    """Return what the graph returns, by autograd.

    Parameters
    ----------
    parts : Parts
    image : (B, C, H, W) float32, physical units
    focus : (B,) or (1,) int64, optional
        Of a model that answers with maps: the pixel that is explained, ``y * W + x``; -1, and without it, the
        strongest one of each map.

    Returns
    -------
    dict of str to Tensor
        The answers, then the explanations, B rows each.
    """
    with torch.no_grad():
        found = dict(parts.answers(image.detach()))
    found |= {name: explain(image, focus=focus) for name, explain in parts.maps.items()}
    return {name: value.detach() for name, value in found.items()}


def trace(parts: Parts, shape: tuple[int, int, int], *, focusable: bool = False) -> GraphModule:
    """Record `evaluate` as a graph of plain operators for images (B, \\*shape) with any B.

    Only the batch is symbolic: sizes that agree by chance must not be taken for one another. The ``focus`` of a
    focusable graph has one value, which the operators stretch over the batch; so they take one per image as well.
    """
    everything = DimDynamic.STATIC
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    image = mode.from_tensor(
        torch.zeros(_BATCH, *shape),
        symbolic_context=StatelessSymbolicContext(
            dynamic_sizes=[DimDynamic.DYNAMIC, everything, everything, everything]
        ),
    )
    focus = mode.from_tensor(torch.tensor([-1]), symbolic_context=StatelessSymbolicContext(dynamic_sizes=[everything]))

    def function(x: Tensor, *focus: Tensor) -> tuple[Tensor, ...]:
        found = evaluate(parts, x, *focus)
        where = [place(found["prediction"], *focus)[:, parts.explained, 0]] if focusable else []
        return (*found.values(), *where)

    with mode, enable_python_dispatcher():
        inputs = (image, focus) if focusable else (image,)
        graph = make_fx(function, decomposition_table=table(), _allow_non_fake_inputs=True)(*inputs)
    # Every part ran the network by itself, and read its weights anew.
    _read_once(graph)
    graph.graph = fx_graph_cse(graph.graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _read_once(graph: GraphModule) -> None:
    """Let every node that needs a tensor of the model take it from the first one that reads it."""
    first: dict[Any, Node] = {}
    for node in list(graph.graph.nodes):
        if node.op != "get_attr":
            continue
        known = first.setdefault(_tensor(graph, str(node.target)), node)
        if known is not node:
            node.replace_all_uses_with(known)
            graph.graph.erase_node(node)


def _tensor(graph: GraphModule, name: str) -> Any:
    """Return what tells one tensor of a graph from another."""
    value = operator.attrgetter(name)(graph)
    if not isinstance(value, Tensor):
        return name
    return value.data_ptr(), value.shape, value.stride(), value.dtype


def build(parts: Parts, shape: tuple[int, int, int]) -> Any:
    """Return the graph of `evaluate` as an ``onnx.ModelProto`` with a free batch.

    Where the model answers with maps, the graph has the optional input ``focus`` besides.
    Attribution along lines is made of the nodes of ``gradient``, which must be among the maps then.
    Call it in a fresh process: a trace that failed is known to spoil later ones.

    Raises
    ------
    NoGraphError
        When the model uses an operator that cannot be traced or that ONNX does not have.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            images = torch.zeros(_BATCH, *shape)
            with torch.no_grad():
                answers = parts.answers(images)
            focusable = answers["prediction"].ndim == 4
            graph = trace(parts, shape, focusable=focusable)
            more = (torch.tensor([-1]),) if focusable else ()
            shapes = ({0: torch.export.Dim("batch", min=1)}, *(None for _ in more))
            with torch.no_grad():
                program = torch.export.export(graph, (images, *more), dynamic_shapes=shapes, strict=False)
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT, FOCUS][: 1 + len(more)],
                output_names=[*answers, *parts.maps, *([PLACE] if focusable else [])],
                custom_translation_table=translations(),
            )
            proto = _tidy(exported.model_proto)
    except Exception as error:
        raise NoGraphError(f"the model has no ONNX graph: {_root(error)}") from error
    inputs = (INPUT, FOCUS)[: 1 + len(more)]
    store_once(proto)
    add_unpool(proto)
    for name, path in parts.paths.items():
        add_path(proto, name, path, inputs)
    for name in (*([PLACE] if focusable else []), *parts.hidden):
        drop_output(proto, name)
    return proto


def _tidy(proto: Any) -> Any:
    """Name the batch, and drop the exporter's notes: they hold source paths and one batch's sizes."""
    proto.producer_name, proto.producer_version, proto.doc_string = "stm-lab", "", ""
    for values in (proto.metadata_props, proto.graph.value_info, proto.graph.metadata_props):
        del values[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        size = value.type.tensor_type.shape.dim[0]
        size.ClearField("dim_value")
        size.dim_param = "focuses" if value.name == FOCUS else "batch"
        if value.name == FOCUS:  # an input with a value of its own need not be given
            proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1], np.int64), FOCUS))
    return proto


def _root(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(error, 400)}"
