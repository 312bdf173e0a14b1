"""A model file as a model repository for NVIDIA Triton Inference Server.

onnxruntime computes every output of a file in every run, and Triton runs files as they are. So the repository has one
model with all that is cheap, and one more per explanation, with that too.

References
----------
.. [1] Triton Inference Server, "Model Configuration" and "Model Repository".
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from deploy.exporting.metadata import KEY
from deploy.model.contract import INPUT
from deploy.model.subgraph import extract
from stm_models.errors import InputError
from stm_models.files import atomic_path, output_directory

__all__ = ["write_repository"]

_TYPES = {onnx.TensorProto.FLOAT: "TYPE_FP32", onnx.TensorProto.INT64: "TYPE_INT64"}
_MAX_BATCH = 64
_DELAY_US = 500


def write_repository(model: str | Path, folder: str | Path, name: str) -> list[Path]:
    """Write a model repository.

    Parameters
    ----------
    model : path
        A file that `deploy.exporting.export.export` wrote.
    folder : path
        The repository; models of other names in it are left alone. Explanations that were written for ``name`` before
        and that this file has not are removed: they explain a model that is no longer there.
    name : str
        Of the model; those of explanations are called ``NAME-EXPLANATION``.

    Returns
    -------
    list of Path
        The configurations written, ``FOLDER/NAME/config.pbtxt``; ``1/model.onnx`` stands beside each.

    Raises
    ------
    InputError
        For a name that Triton does not take, or a folder that cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(f"model name {name!r} cannot be a folder of a model repository: use letters, digits, '.-_'")
    content = Path(model).read_bytes()
    whole = onnx.load_from_string(content)
    about = _about(whole)
    costly = about["explanations"]
    cheap = [output.name for output in whole.graph.output if output.name not in costly]
    written = [_write(content, about, Path(folder), name, cheap, [])]
    written += [_write(content, about, Path(folder), f"{name}-{one}", [*cheap, one], [one]) for one in costly]
    _remove_others(Path(folder), name, costly)
    return written


def _about(model: onnx.ModelProto) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(next(entry.value for entry in model.metadata_props if entry.key == KEY))
    return about


def _remove_others(folder: Path, name: str, kept: Sequence[str]) -> None:
    for config in sorted(folder.glob(f"{name}-*/config.pbtxt")):
        one = config.parent.name.removeprefix(f"{name}-")
        model = config.parent / "1" / "model.onnx"
        if one in kept or not _explains(model, one):
            continue
        try:
            model.unlink()
            config.unlink()
        except OSError as error:
            raise InputError(
                f"cannot remove {config.parent}, which explains the model before: {error.strerror}"
            ) from error
        with contextlib.suppress(OSError):  # where something else is in it
            model.parent.rmdir()
            config.parent.rmdir()


def _explains(path: Path, explanation: str) -> bool:
    """Tell whether `write_repository` made a file for this explanation; another model may be called ``NAME-SMALL``."""
    try:
        return bool(_about(onnx.load(path))["explanations"] == [explanation])
    except Exception:  # it is no file of ours
        return False


def _write(
    content: bytes, about: dict[str, Any], folder: Path, name: str, outputs: list[str], explanations: list[str]
) -> Path:
    part = onnx.load_from_string(extract(content, outputs))
    for entry in part.metadata_props:
        if entry.key == KEY:
            entry.value = json.dumps({**about, "explanations": explanations})
    version = output_directory(folder / name / "1")
    with atomic_path(version / "model.onnx") as path:
        path.write_bytes(part.SerializeToString())
    config = folder / name / "config.pbtxt"
    with atomic_path(config) as path:
        path.write_text(_config(name, part, about), encoding="utf-8")
    return config.absolute()


def _config(name: str, model: onnx.ModelProto, about: dict[str, Any]) -> str:
    # Inputs with a value of their own are onnxruntime's affair: Triton does not count them as inputs.
    optional = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in optional]
    channels, height, width = (about["input"][key] for key in ("channels", "height", "width"))
    sizes = {INPUT: [channels, height, width]}
    return "\n".join(
        [
            f"name: {json.dumps(name)}",
            'backend: "onnxruntime"',
            f"max_batch_size: {_MAX_BATCH}",
            *(_tensor("input", value, sizes.get(value.name)) for value in inputs),
            *(_tensor("output", value, None) for value in model.graph.output),
            f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY_US} }}",
            "version_policy { latest { num_versions: 1 } }",
            *(_parameter(key, value) for key, value in _facts(about).items()),
            "",
        ]
    )


def _tensor(kind: str, value: onnx.ValueInfoProto, sizes: Sequence[int] | None) -> str:
    shape = value.type.tensor_type.shape.dim
    dims = sizes or [one.dim_value if one.HasField("dim_value") else -1 for one in shape[1:]]
    # Without an axis beside the batch Triton still wants one, which it takes away again.
    form = f"dims: {list(dims)}" if dims else "dims: [1]\n  reshape { shape: [] }"
    kind_of_number = _TYPES[value.type.tensor_type.elem_type]
    return f"{kind} {{\n  name: {json.dumps(value.name)}\n  data_type: {kind_of_number}\n  {form}\n}}"


def _facts(about: dict[str, Any]) -> dict[str, str]:
    facts = {"task": about["task"], "run_id": about.get("run_id"), "data_digest": about["data"].get("digest")}
    return {key: str(value) for key, value in facts.items() if value is not None}


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}"
