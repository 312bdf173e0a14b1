"""One tensor of the Open Inference Protocol V2: a JSON object, with its numbers in it or as raw bytes after it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.json_array import array_json, json_array
from deploy.serving.strict_json import dump_json, mapping
from stm_models.errors import InputError, unknown

__all__ = ["FLOATS", "INTEGERS", "datatype", "decode_tensor", "encode_tensor"]

_DTYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "FP16": np.dtype("<f2"),
    "INT64": np.dtype("<i8"),
    "INT32": np.dtype("<i4"),
}
FLOATS, INTEGERS = ("FP32", "FP64", "FP16"), ("INT64", "INT32")


def datatype(dtype: np.dtype[Any]) -> str:
    """Return the protocol's name of ``dtype``."""
    for name, known in _DTYPES.items():
        if known == dtype:
            return name
    raise InputError(
        f"a tensor of dtype {dtype} cannot be sent: expected one of float16, float32, float64, int32, int64"
    )


def encode_tensor(name: str, values: NDArray[Any], binary: bool) -> tuple[Sequence[bytes], memoryview | None]:
    """Return the tensor's JSON in parts and, where it is ``binary``, its bytes, without a copy where memory allows."""
    kind = datatype(values.dtype)
    tensor: dict[str, Any] = {"name": name, "datatype": kind, "shape": list(values.shape)}
    if not binary:
        return [dump_json(tensor)[:-1], b',"data":', *array_json(values.ravel()), b"}"], None
    raw = np.ascontiguousarray(values, dtype=_DTYPES[kind]).reshape(-1).view(np.uint8).data
    return [dump_json({**tensor, "parameters": {"binary_data_size": raw.nbytes}})], raw


def decode_tensor(
    tensor: Mapping[str, Any],
    tail: memoryview,
    *,
    kinds: Collection[str] = tuple(_DTYPES),
    check: Callable[[tuple[int, ...]], None] | None = None,
) -> tuple[NDArray[Any], int]:
    """Return the tensor, a view of ``tail`` where it is binary, and how many bytes of ``tail`` it took.

    Parameters
    ----------
    kinds : collection of str
        Datatypes that may be.
    check : callable, optional
        Refuses a shape, before any array is made.

    Raises
    ------
    InputError
        Naming the tensor and what of it does not fit.
    """
    name, kind, shape = str(tensor.get("name"))[:64], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown(f"datatype of {name!r}", str(kind)[:64], kinds)
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**53 for size in shape):
        raise InputError(f"shape of {name!r} is {str(shape)[:64]}, expected a list of sizes")
    if check is not None:
        check(tuple(shape))
    count = math.prod(shape)
    size = mapping(tensor.get("parameters", {}), f"parameters of {name!r}").get("binary_data_size")
    if size is None:
        return _from_json(name, tensor.get("data"), shape, count, _DTYPES[kind]), 0
    needed = count * _DTYPES[kind].itemsize
    if "data" in tensor:
        raise InputError(f"{name!r} has both data and binary_data_size: send one of them")
    if type(size) is not int or size != needed or needed > len(tail):
        raise InputError(
            f"{name!r} of shape {str(shape)[:64]} and datatype {kind} takes {needed} bytes; "
            f"binary_data_size is {str(size)[:32]}, {len(tail)} bytes follow"
        )
    return np.frombuffer(tail, dtype=_DTYPES[kind], count=count).reshape(shape), needed


def _from_json(name: str, data: object, shape: list[int], count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(data, list):
        raise InputError(f"{name!r} has neither data (a list of numbers) nor parameters.binary_data_size")
    what = "integers" if dtype.kind == "i" else "numbers"
    values = json_array(data, f"data of {name!r}", f"{count} {what}")
    numbers = "iu" if dtype.kind == "i" else "fiu"
    if (count and values.dtype.kind not in numbers) or values.shape not in ((count,), tuple(shape)):
        raise InputError(
            f"data of {name!r} has shape {str(values.shape)[:64]} of {str(values.dtype)[:32]}, "
            f"expected {count} {what}, flat or nested as {str(shape)[:64]}"
        )
    if dtype.kind == "i" and count and (values.min() < np.iinfo(dtype).min or values.max() > np.iinfo(dtype).max):
        raise InputError(f"data of {name!r} has an integer that {dtype} does not hold")
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)
