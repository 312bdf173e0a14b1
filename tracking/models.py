"""ONNX models: logged with a run, registered by name, and found again byte for byte."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from stm_models.errors import InputError
from stm_models.files import atomic_path
from stm_models.files import sha256 as sha256_of
from stm_models.unfinished import scratch
from stm_models.versions import installed
from tracking import addresses
from tracking.backend import (
    LoggedModelOutput,
    MlflowException,
    Model,
    ModelSignature,
    Schema,
    TensorSpec,
    onnx_flavour,
)
from tracking.fetching import fetched, lies_here
from tracking.registry import (
    ModelVersionInfo,
    champion,
    describe_version,
    logged_model,
    register,
    set_alias,
    tag_version,
    version,
    versions,
)
from tracking.runs import Run
from tracking.store import Store, first_line

__all__ = [
    "ModelVersionInfo", "champion", "describe_version", "log_onnx", "register", "resolve", "set_alias",
    "tag_version", "version", "versions",
]  # fmt: skip

_FILE = "model.onnx"


def log_onnx(
    run: Run, onnx_path: str | Path, sha256: str, metadata: Mapping[str, Any],
    input_example: NDArray[np.float32] | None = None,
) -> str:  # fmt: skip
    """Log an ONNX file as the run's model, byte for byte.

    Parameters
    ----------
    sha256 : str
        What the file must hash to.
    metadata : mapping
        The file's ``stm`` metadata (JSON-able); its ``metrics`` and ``data`` become tags.
    input_example : (B, C, H, W) float32, optional

    Returns
    -------
    str
        ``models:/m-…``, which `resolve` understands.

    Raises
    ------
    InputError
        When the file is no ONNX file, or not the one that ``sha256`` names.
    """
    onnx_path = Path(onnx_path)
    if not onnx_path.is_file():
        raise InputError(f"cannot log the model {onnx_path}: no such file")
    _check(onnx_path, sha256)
    try:
        proto = onnx.load(str(onnx_path))
    except Exception as error:
        raise InputError(f"cannot log the model {onnx_path}: no readable ONNX file; export it again") from error
    client = run.store.client
    experiment = client.get_run(run.id).info.experiment_id
    logged = client.create_logged_model(
        experiment, name="model", source_run_id=run.id, model_type="onnx", tags=_tags(sha256, metadata)
    )
    status = "FAILED"
    try:
        with scratch() as temporary:
            folder = temporary / "model"
            about = Model(
                artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run.id,
                model_id=logged.model_id,
            )  # fmt: skip
            onnx_flavour.save_model(
                proto, str(folder), mlflow_model=about, signature=_signature(proto),
                input_example=None if input_example is None else np.asarray(input_example),
                pip_requirements=_requirements(), metadata=json.loads(json.dumps(metadata)),
                save_as_external_data=False,
            )  # fmt: skip
            # mlflow writes the graph anew; what was checked and hashed is the file itself.
            shutil.copyfile(onnx_path, folder / _FILE)
            client.log_model_artifacts(logged.model_id, str(folder))
        client.log_outputs(run.id, models=[LoggedModelOutput(logged.model_id, step=0)])
        status = "READY"
    finally:
        client.finalize_logged_model(logged.model_id, status)
    run.tags({"model.id": logged.model_id, "model.sha256": sha256})
    return f"models:/{logged.model_id}"


def resolve(store: Store, uri: str | Path) -> Path:
    """Return the ONNX file that an address names, checked against the hash it was logged with.

    Parameters
    ----------
    uri : str
        ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/ID``, what `log_onnx` returned, or the path
        of an ``.onnx`` file, which is returned as it is. A server's file is kept in the user's cache.

    Raises
    ------
    InputError
        When it names nothing (what exists is listed), or the file is not the one that was logged.
    """
    uri = str(uri)
    if match := re.fullmatch(r"models:/(m-[0-9a-f]{32})", uri):
        return _fetch(store, match[1], uri)
    if match := addresses.REGISTERED.fullmatch(uri):
        info = version(store, match[1], match[2])
        return _fetch(store, info.model_id, uri, info.sha256)
    if match := re.fullmatch(r"runs:/+([^/]+)/?(?:model/?)?", uri):
        return _fetch(store, logged_model(store, match[1]).model_id, uri)
    if re.match(r"\w{2,}:/", uri) or not uri.endswith(".onnx"):
        raise InputError(f"cannot read the model address {uri!r}: expected {addresses.MODEL}")
    if not Path(uri).is_file():
        raise InputError(f"the model file {uri} does not exist: expected {addresses.MODEL}")
    return Path(uri)


def _fetch(store: Store, model_id: str, uri: str, sha256: str = "") -> Path:
    try:
        logged = store.client.get_logged_model(model_id)
        source = logged.artifact_location
        sha256 = sha256 or logged.tags["sha256"]
        if lies_here(source):
            path = fetched(source, _FILE, store.uri)
            _check(path, sha256)
            return path
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stm-lab" / "models"
        kept = base / f"{sha256}.onnx"
        if not kept.is_file() or sha256_of(kept) != sha256:
            with scratch() as folder:
                path = fetched(source, _FILE, store.uri, folder)
                _check(path, sha256)
                with atomic_path(kept) as part:
                    shutil.copyfile(path, part)
    except (MlflowException, OSError, KeyError) as error:
        raise InputError(
            f"cannot fetch the model {uri} from {store.location}: {first_line(error)}; "
            "if its files are gone, export and register it again"
        ) from error
    return kept


def _check(path: Path, sha256: str) -> None:
    got = sha256_of(path)
    if got != sha256:
        raise InputError(
            f"the model file {path} is not the one that was recorded: its SHA-256 is {got}, "
            f"expected {sha256}; export and log it again"
        )


def _tags(sha256: str, metadata: Mapping[str, Any]) -> dict[str, str]:
    tags = {"sha256": sha256}
    tags |= {key: str(metadata[key]) for key in ("task", "git_commit", "opset") if metadata.get(key)}
    tags |= {f"data.{key}": str(value) for key, value in (metadata.get("data") or {}).items()}
    for key, value in (metadata.get("metrics") or {}).items():
        if isinstance(value, int | float):
            tags[f"metric.{key}"] = repr(float(value))
    return tags


def _requirements() -> list[str]:
    found = installed(("onnx", "onnxruntime", "onnxruntime-gpu", "numpy"))
    return [f"{name}=={version}" for name, version in found.items()]


def _signature(proto: Any) -> Any:
    def specs(values: Any) -> Any:
        out = []
        for value in values:
            tensor = value.type.tensor_type
            shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim)
            out.append(TensorSpec(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name))
        return Schema(out)

    return ModelSignature(inputs=specs(proto.graph.input), outputs=specs(proto.graph.output))
