"""The page as a part of MLflow's own server: ``mlflow server --app-name stm-compare``, at ``/compare``."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from typing import Any

from starlette.routing import Mount

from tracking.store import connect
from tracking.ui.app import create_app

__all__ = ["create"]

# What mlflow's server tells its workers.
_STORE = "_MLFLOW_SERVER_FILE_STORE"
_SERVES, _DESTINATION = "_MLFLOW_SERVER_SERVE_ARTIFACTS", "_MLFLOW_SERVER_ARTIFACT_DESTINATION"


def create() -> Any:
    """Return MLflow's ASGI application with the page in it; MLflow looks at the Host header of both."""
    app = importlib.import_module("mlflow.server.fastapi_app").app
    destination = os.environ.get(_DESTINATION) if os.environ.get(_SERVES) == "true" else None
    store = replace(connect(os.environ.get(_STORE)), destination=destination)
    # Before MLflow's own pages, which take every other address.
    app.router.routes.insert(0, Mount("/compare", create_app(store, hosts=None)))
    return app
