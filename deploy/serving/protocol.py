"""The Open Inference Protocol V2 (KServe), JSON and binary tensors, as pure functions both ways.

A message is JSON; with the binary tensor extension the raw little-endian tensors follow the JSON, whose
length the header ``Inference-Header-Content-Length`` then gives.

References
----------
.. [1] KServe, "Open Inference Protocol (V2)", and its binary tensor data extension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.model.image import as_batch, check_shape
from deploy.serving.strict_json import dump_json, mapping, parse_json
from deploy.serving.tensors import FLOATS, INTEGERS, decode_tensor, encode_tensor
from stm_models.errors import InputError, unknown

__all__ = ["HEADER", "InferRequest", "decode_request", "decode_response", "encode_request", "encode_response"]

HEADER = "Inference-Header-Content-Length"


class InferRequest(NamedTuple):
    """A checked request.

    Attributes
    ----------
    image : (batch, C, H, W) float32
    outputs : tuple of str
        What the client asked for; empty where it did not say, which means all that are no maps.
    binary : mapping of str to bool
        Whether an output goes back as a binary tensor, for those that the client said it of.
    default_binary : bool
        The same for all others.
    id : str or None
        The client's own name for the request, sent back with the answer.
    focus : (batch,) or (1,) int64 or None
        Which pixel of an answered map explanations explain.
    """

    image: NDArray[np.float32]
    outputs: tuple[str, ...]
    binary: Mapping[str, bool]
    default_binary: bool = False
    id: str | None = None
    focus: NDArray[np.int64] | None = None


def encode_request(
    image: NDArray[Any],
    outputs: Sequence[str],
    *,
    binary: bool = True,
    request_id: str | None = None,
    focus: Sequence[int] | NDArray[Any] | None = None,
) -> tuple[bytes, int | None]:
    """Write a request.

    Parameters
    ----------
    image : (batch, C, H, W) float16, float32, float64, int32 or int64
        The server takes floating ones.
    outputs : sequence of str
        Names of the outputs wanted; with none the server chooses.
    binary : bool
        Whether tensors are sent, and asked back, as bytes instead of JSON.
    request_id : str, optional
        Comes back with the answer.
    focus : (batch,) or (1,) integers, optional
        The pixel ``y * W + x`` of an answered map that explanations explain, of each image or of all; -1 and None mean
        the strongest one.

    Returns
    -------
    body : bytes
    header_length : int or None
        Value for the header `HEADER`, ``None`` for a request without binary tensors.

    Raises
    ------
    InputError
        For an image of another dtype.
    """
    start = b"{" if request_id is None else dump_json({"id": request_id})[:-1] + b","
    encoded = [encode_tensor("image", image, binary)]
    if focus is not None:
        encoded.append(encode_tensor("focus", np.asarray(focus, dtype=np.int64), binary))
    wanted = [{"name": name, "parameters": {"binary_data": binary}} for name in outputs]
    return _join(start + b'"inputs":[', encoded, b'],"outputs":' + dump_json(wanted) + b"}")


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
    parameters = mapping(head.get("parameters", {}), "parameters")
    tensors = head.get("inputs")
    if not isinstance(tensors, list) or not 1 <= len(tensors) <= 2:
        raise InputError("inputs must be a list of exactly one tensor, named 'image', or of two, 'image' and 'focus'")
    found: dict[str, NDArray[Any]] = {}
    used = 0
    for index, item in enumerate(tensors):
        tensor = mapping(item, f"inputs[{index}]")
        match tensor.get("name"):
            case "image":
                kinds: tuple[str, ...] = FLOATS
                check: Callable[[tuple[int, ...]], None] = lambda shape: check_shape(shape, image, max_rows)  # noqa: E731
            case "focus":
                kinds, check = INTEGERS, lambda shape: _check_focus(shape, max_rows)
            case name:
                raise unknown("input", str(name)[:64], ["image", "focus"])
        name = tensor["name"]
        if name in found:
            raise InputError(f"input {name!r} is given twice")
        _refuse_extensions(mapping(tensor.get("parameters", {}), f"parameters of {name!r}"), name)
        found[name], size = decode_tensor(tensor, tail[used:], kinds=kinds, check=check)
        used += size
    if used != len(tail):
        raise InputError(f"the body is too long: {len(tail) - used} bytes follow the last binary tensor, expected none")
    if "image" not in found:
        raise InputError("inputs has no tensor named 'image'")
    focus = found.get("focus")
    if focus is not None and len(focus) not in (1, len(found["image"])):
        raise InputError(f"focus has {len(focus)} pixels for {len(found['image'])} images: give one for each, or one")
    names, binary = _wanted(head.get("outputs"), outputs)
    request_id = head.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InputError(f"id is {type(request_id).__name__}, expected a string")
    return InferRequest(
        image=as_batch(found["image"], image, max_rows),
        outputs=names,
        binary=binary,
        default_binary=_flag(parameters, "binary_data_output") or False,
        id=request_id,
        focus=focus,
    )


def encode_response(
    model: str,
    version: str,
    outputs: Mapping[str, NDArray[Any]],
    request: InferRequest,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[bytes, int | None]:
    """Write the answer to a request.

    Parameters
    ----------
    model, version : str
        Who answers.
    outputs : mapping of str to (batch, ...) array
        Of the dtypes that `encode_request` takes. In JSON what is not finite becomes null.
    request : InferRequest
        Says which outputs go as binary tensors; its ``id`` goes back.
    parameters : mapping, optional
        JSON-able, said of the whole answer.

    Returns
    -------
    body : bytes
    header_length : int or None
        Value for the header `HEADER`, ``None`` for an answer without binary tensors.

    Raises
    ------
    InputError
        For an output of another dtype.
    """
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if request.id is not None:
        head["id"] = request.id
    if parameters:
        head["parameters"] = dict(parameters)
    encoded = [
        encode_tensor(name, values, request.binary.get(name, request.default_binary))
        for name, values in outputs.items()
    ]
    return _join(dump_json(head)[:-1] + b',"outputs":[', encoded, b"]}")


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
        tensor = mapping(item, f"outputs[{index}]")
        values, used = decode_tensor(tensor, tail[offset:])
        result[str(tensor.get("name"))] = values
        offset += used
    return result, head


def _split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    if header_length is None:
        return parse_json(body), memoryview(b"")
    text = header_length.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 16) or int(text) > len(body):
        raise InputError(f"{HEADER} is {text[:32]!r}, expected a number of bytes up to the body's {len(body)}")
    length = int(text)
    return parse_json(body[:length]), memoryview(body)[length:]


def _join(
    start: bytes, encoded: Sequence[tuple[Sequence[bytes], memoryview | None]], end: bytes
) -> tuple[bytes, int | None]:
    """Write the JSON of tensors between ``start`` and ``end``, and the bytes of those that are binary."""
    parts = [start]
    for index, (tensor, _) in enumerate(encoded):
        parts += [b",", *tensor] if index else tensor
    text = b"".join((*parts, end))
    binary = [raw for _, raw in encoded if raw is not None]
    if not any(binary):
        return text, None
    text += b" " * (-len(text) % 16)  # so that the first tensor lies aligned in memory and needs no copy
    return b"".join((text, *binary)), len(text)


def _check_focus(shape: tuple[int, ...], max_rows: int | None) -> None:
    if len(shape) != 1 or shape[0] < 1 or (max_rows is not None and shape[0] > max_rows):
        raise InputError(f"focus has shape {str(shape)[:64]}, expected (batch,) or (1,)")


def _wanted(listed: object, known: Sequence[str]) -> tuple[tuple[str, ...], dict[str, bool]]:
    if listed is None or listed == []:
        return (), {}
    if not isinstance(listed, list):
        raise InputError(f"outputs is {type(listed).__name__}, expected a list of objects with a name")
    binary: dict[str, bool] = {}
    names: list[str] = []
    for index, item in enumerate(listed):
        entry = mapping(item, f"outputs[{index}]")
        name = entry.get("name")
        if not isinstance(name, str) or name not in known:
            raise unknown("output", str(name)[:64], known)
        if name in names:
            raise InputError(f"output {name!r} is asked for twice")
        names.append(name)
        parameters = mapping(entry.get("parameters", {}), f"parameters of {name}")
        _refuse_extensions(parameters, name)
        flag = _flag(parameters, "binary_data")
        if flag is not None:
            binary[name] = flag
    return tuple(names), binary


def _refuse_extensions(parameters: Mapping[str, Any], name: str) -> None:
    """Refuse what would make another tensor of it; other parameters that nobody knows are ignored."""
    for given in parameters:
        if given == "classification" or given.startswith("shared_memory_"):
            text = f"parameter {given[:64]!r} of {name!r} is of an extension that this server does not have"
            raise InputError(f"{text}: leave it out, tensors are JSON or, with binary_data, bytes in the body")


def _flag(parameters: Mapping[str, Any], name: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"parameter {name} is {str(value)[:32]!r}, expected true or false")
    return value
