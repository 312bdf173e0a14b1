"""The Open Inference Protocol V2 (KServe), JSON and binary tensors, as pure functions both ways.

A message is JSON; with the binary tensor extension the raw little-endian tensors follow the JSON, whose
length the header ``Inference-Header-Content-Length`` then gives.

References
----------
.. [1] KServe, "Open Inference Protocol (V2)", and its binary tensor data extension.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.image import as_batch, check_shape
from stm_models.errors import InputError, unknown

__all__ = [
    "HEADER",
    "InferRequest",
    "datatype",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "parse_json",
]

HEADER = "Inference-Header-Content-Length"
_DTYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "FP16": np.dtype("<f2"),
}


@dataclass(frozen=True)
class InferRequest:
    """A checked request.

    Attributes
    ----------
    image : (batch, C, H, W) float32
    outputs : tuple of str
        What the client asked for; empty where it did not say, which means every output.
    binary : mapping of str to bool
        Whether an output goes back as a binary tensor, for those that the client said it of.
    default_binary : bool
        The same for all others.
    id : str or None
        The client's own name for the request, sent back with the answer.
    """

    image: NDArray[np.float32]
    outputs: tuple[str, ...]
    binary: Mapping[str, bool]
    default_binary: bool = False
    id: str | None = None


def datatype(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of ``dtype``."""
    for name, known in _DTYPES.items():
        if known == dtype.newbyteorder("<"):
            return name
    raise InputError(f"a tensor of dtype {dtype} cannot be sent: expected one of float16, float32, float64")


def parse_json(text: bytes) -> dict[str, Any]:
    """Read a JSON object; NaN and infinity, which JSON does not have, are refused."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no valid JSON: {str(error) or 'nested too deeply'}") from error
    if not isinstance(value, dict):
        raise InputError(f"the body is a JSON {type(value).__name__}, expected an object")
    return value


def encode_request(
    image: NDArray[Any], outputs: Sequence[str], *, binary: bool = True, request_id: str | None = None
) -> tuple[bytes, int | None]:
    """Write a request for ``outputs`` of ``image`` (batch, C, H, W).

    Returns
    -------
    body : bytes
    header_length : int or None
        Value for the header `HEADER`, ``None`` for a request without binary tensors.
    """
    head: dict[str, Any] = {} if request_id is None else {"id": request_id}
    tensor, raw = _encode_tensor("image", image, binary)
    head["inputs"] = [tensor]
    head["outputs"] = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    return _join(head, [raw])


def decode_request(
    body: bytes,
    header_length: str | None,
    *,
    image: tuple[int, int, int],
    outputs: Sequence[str],
    max_rows: int | None = None,
) -> InferRequest:
    """Read and check a request.

    Parameters
    ----------
    body : bytes
    header_length : str or None
        The header `HEADER` as it came.
    image : (C, H, W)
        Shape of one image that the model takes.
    outputs : sequence of str
        Outputs that the model has.
    max_rows : int, optional
        Largest batch.

    Raises
    ------
    InputError
        For anything that does not fit; a shape is held against the number of bytes before any array is made.
    """
    head, tail = _split(body, header_length)
    parameters = _mapping(head.get("parameters", {}), "parameters")
    tensors = head.get("inputs")
    if not isinstance(tensors, list) or len(tensors) != 1:
        raise InputError("inputs must be a list of exactly one tensor, named 'image'")
    tensor = _mapping(tensors[0], "inputs[0]")
    if tensor.get("name") != "image":
        raise unknown("input", str(tensor.get("name"))[:64], ["image"])
    values, used = _decode_tensor(tensor, tail, lambda shape: check_shape(shape, image, max_rows))
    if used != len(tail):
        raise InputError(f"{len(tail) - used} bytes follow the last binary tensor, expected none")
    names, binary = _wanted(head.get("outputs"), outputs)
    request_id = head.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InputError(f"id is {type(request_id).__name__}, expected a string")
    return InferRequest(
        image=as_batch(values, image, max_rows),
        outputs=names,
        binary=binary,
        default_binary=_flag(parameters, "binary_data_output") or False,
        id=request_id,
    )


def encode_response(
    model: str,
    version: str,
    outputs: Mapping[str, NDArray[Any]],
    request: InferRequest,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[bytes, int | None]:
    """Write the answer to ``request``; returns the body and the value for the header `HEADER`."""
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        head["id"] = request.id
    if parameters:
        head["parameters"] = dict(parameters)
    encoded = [
        _encode_tensor(name, values, request.binary.get(name, request.default_binary))
        for name, values in outputs.items()
    ]
    head["outputs"] = [tensor for tensor, _ in encoded]
    return _join(head, [raw for _, raw in encoded])


def decode_response(body: bytes, header_length: str | None) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read an answer: its tensors by name, and the JSON around them.

    Raises
    ------
    InputError
        When it is no answer of this protocol.
    """
    head, tail = _split(body, header_length)
    tensors = head.get("outputs")
    if not isinstance(tensors, list):
        raise InputError("the answer holds no list of outputs")
    result, offset = {}, 0
    for index, item in enumerate(tensors):
        tensor = _mapping(item, f"outputs[{index}]")
        values, used = _decode_tensor(tensor, tail[offset:])
        result[str(tensor.get("name"))] = values
        offset += used
    return result, head


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    whole = memoryview(body)
    length = len(body)
    if header_length is not None:
        text = header_length.strip()
        if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > length:
            raise InputError(f"{HEADER} is {text[:32]!r}, expected a number of bytes up to the body's {length}")
        length = int(text)
    return parse_json(bytes(whole[:length])), whole[length:]


def _encode_tensor(name: str, values: NDArray[Any], binary: bool) -> tuple[dict[str, Any], bytes]:
    kind = datatype(values.dtype)
    tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": list(values.shape)}
    if not binary:
        return {**tensor, "data": values.ravel().tolist()}, b""
    raw = np.ascontiguousarray(values, dtype=_DTYPES[kind]).tobytes()
    return {**tensor, "parameters": {"binary_data_size": len(raw)}}, raw


def _join(head: Mapping[str, Any], raws: Sequence[bytes]) -> tuple[bytes, int | None]:
    text = json.dumps(head, allow_nan=False, separators=(",", ":")).encode()
    tail = b"".join(raws)
    return text + tail, len(text) if tail else None


def _decode_tensor(
    tensor: Mapping[str, Any], tail: memoryview, check: Callable[[tuple[int, ...]], None] | None = None
) -> tuple[NDArray[Any], int]:
    """Return the tensor and how many bytes of ``tail`` it took."""
    name, kind, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise unknown(f"datatype of {str(name)[:64]}", str(kind)[:64], _DTYPES)
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**53 for size in shape):
        raise InputError(f"shape of {name} is {str(shape)[:64]}, expected a list of sizes")
    if check is not None:
        check(tuple(shape))
    count = math.prod(shape)
    size = _mapping(tensor.get("parameters", {}), f"parameters of {name}").get("binary_data_size")
    if size is None:
        return _from_json(name, tensor.get("data"), shape, count, _DTYPES[kind]), 0
    needed = count * _DTYPES[kind].itemsize
    if "data" in tensor:
        raise InputError(f"{name} has both data and binary_data_size: send one of them")
    if type(size) is not int or size != needed or needed > len(tail):
        raise InputError(
            f"{name} of shape {shape} and datatype {kind} takes {needed} bytes; "
            f"binary_data_size is {str(size)[:32]}, {len(tail)} bytes follow"
        )
    return np.frombuffer(tail[:needed], dtype=_DTYPES[kind]).reshape(shape), needed


def _from_json(name: object, data: object, shape: list[int], count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(data, list):
        raise InputError(f"{name} has neither data (a list of numbers) nor parameters.binary_data_size")
    try:
        values = np.asarray(data)
    except ValueError as error:
        raise InputError(f"data of {name} is ragged, expected a flat list of {count} numbers") from error
    if (count and values.dtype.kind not in "fiu") or values.shape not in ((count,), tuple(shape)):
        raise InputError(
            f"data of {name} has shape {str(values.shape)[:64]} of {values.dtype}, expected {count} numbers, "
            f"flat or nested as {shape}"
        )
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def _wanted(listed: object, known: Sequence[str]) -> tuple[tuple[str, ...], dict[str, bool]]:
    if listed is None or listed == []:
        return (), {}
    if not isinstance(listed, list):
        raise InputError(f"outputs is {type(listed).__name__}, expected a list of objects with a name")
    binary: dict[str, bool] = {}
    names = []
    for index, item in enumerate(listed):
        entry = _mapping(item, f"outputs[{index}]")
        name = entry.get("name")
        if not isinstance(name, str) or name not in known:
            raise unknown("output", str(name)[:64], known)
        if name in names:
            raise InputError(f"output {name!r} is asked for twice")
        names.append(name)
        flag = _flag(_mapping(entry.get("parameters", {}), f"parameters of {name}"), "binary_data")
        if flag is not None:
            binary[name] = flag
    return tuple(names), binary


def _flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"parameter {name} is {str(value)[:32]!r}, expected true or false")
    return value


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where} is {type(value).__name__}, expected an object")
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")
