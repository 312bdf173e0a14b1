# ruff: noqa: E402
"""The one door to mlflow: imported quietly, without telemetry, pickle or endless retries."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
for _name in ("alembic", "mlflow.utils.environment", "urllib3.connectionpool"):
    logging.getLogger(_name).setLevel(logging.ERROR)
# It writes the traceback of every error of a database that it then raises.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

import mlflow.onnx as onnx_flavour
from mlflow import MlflowClient, set_tracking_uri
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException, RestException
from mlflow.models import Model, ModelSignature
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import Schema, TensorSpec
from mlflow.utils.uri import append_to_uri_path

__all__ = [
    "Dataset", "DatasetInput", "InputTag", "LoggedModelOutput", "Metric", "MlflowClient", "MlflowException",
    "Model", "ModelSignature", "Param", "RestException", "RunTag", "Schema", "TensorSpec", "ViewType",
    "append_to_uri_path", "create_database", "get_artifact_repository", "onnx_flavour", "resolve_tags", "selected",
]  # fmt: skip


def create_database(uri: str, artifacts: str) -> None:
    """Make mlflow's tables, its default experiment keeping files at ``artifacts``.

    Left to itself it takes the working folder for that, and fails where this has a quote in its name.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # sqlalchemy, which a server's client needs not

    SqlAlchemyStore(uri, artifacts)


@contextmanager
def selected(uri: str) -> Iterator[None]:
    """Make ``uri`` mlflow's global store for the few of its calls that ignore their client's."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    set_tracking_uri(uri)
    try:
        yield
    finally:
        set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
