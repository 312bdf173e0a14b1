"""The HTTP application: Open Inference Protocol V2, explanations, and MLflow's scoring protocol."""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deploy.serving.invocations import decode_invocation, encode_predictions
from deploy.serving.protocol import HEADER, decode_request, encode_response
from deploy.serving.security import Guard
from deploy.serving.session import INPUT, Session
from stm_models.errors import InputError

__all__ = ["MAX_BODY_BYTES", "MAX_ROWS", "Decode", "create_app", "task_answers"]

MAX_BODY_BYTES = 64 * 2**20
MAX_ROWS = 256
VERSION = "1"

Decode = Callable[[Mapping[str, Any], Mapping[str, Any]], list[dict[str, Any]]]
_Result = TypeVar("_Result")


def task_answers(outputs: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Let the model's task make one answer per row of raw outputs; none where the task is not known."""
    try:
        from stm_models.tasks import registry
    except ModuleNotFoundError:
        return []
    name = str(metadata["task"])
    return registry.get(name).decode(outputs, metadata) if name in registry.names() else []


def create_app(
    models: Mapping[str, Session],
    *,
    decode: Decode | None = task_answers,
    max_body_bytes: int = MAX_BODY_BYTES,
    max_rows: int = MAX_ROWS,
    hosts: Collection[str] | None = None,
    token: str | None = None,
) -> Starlette:
    """Build the application that serves ``models``.

    Parameters
    ----------
    models : mapping of str to Session
        By the name in the address; the first one answers ``/invocations``.
    decode : callable or None
        Makes the answers of ``/explain`` from the outputs and the model's metadata.
    max_body_bytes, max_rows : int
        Largest request.
    hosts, token
        See `deploy.serving.security.Guard`.

    Raises
    ------
    InputError
        Without models, or with a name that cannot stand in an address.
    """
    if not models:
        raise InputError("no model to serve: give at least one model file")
    for name in models:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", name):
            raise InputError(f"model name {name!r} cannot stand in an address: use letters, digits, '.', '_', '-'")
    handlers = _Handlers(dict(models), decode, max_body_bytes, max_rows)
    model = "/v2/models/{model}"
    routes = [
        Route("/", handlers.index),
        Route("/ping", handlers.ping),
        Route("/invocations", handlers.invocations, methods=["POST"]),
        Route("/v2", handlers.server),
        Route("/v2/health/live", handlers.live),
        Route("/v2/health/ready", handlers.ready),
    ]
    for prefix in (model, model + "/versions/{version}"):
        routes += [
            Route(prefix, handlers.model),
            Route(prefix + "/ready", handlers.model_ready),
            Route(prefix + "/infer", handlers.infer, methods=["POST"]),
            Route(prefix + "/explain", handlers.explain, methods=["POST"]),
        ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
        exception_handlers={
            InputError: _bad_input,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _failure,
        },
    )


class _Handlers:
    def __init__(self, models: dict[str, Session], decode: Decode | None, max_body_bytes: int, max_rows: int) -> None:
        self.models, self.decode = models, decode
        self.max_body_bytes, self.max_rows = max_body_bytes, max_rows
        # Two at least: one request is read and written while another one computes.
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="stm-infer")

    async def index(self, request: Request) -> Response:
        paths = ["GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "GET /ping", "POST /invocations"]
        for name in self.models:
            base = f"/v2/models/{name}"
            paths += [f"GET {base}", f"GET {base}/ready", f"POST {base}/infer", f"POST {base}/explain"]
        return JSONResponse({"models": list(self.models), "endpoints": paths})

    async def ping(self, request: Request) -> Response:
        return Response("\n", media_type="text/plain")

    async def server(self, request: Request) -> Response:
        return JSONResponse({"name": "stm-lab", "version": _version(), "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        name, _ = self._model(request)
        return JSONResponse({"name": name, "ready": True})

    async def model(self, request: Request) -> Response:
        name, session = self._model(request)
        shape = [-1, *session.metadata.input.shape]
        return JSONResponse(
            {
                "name": name,
                "versions": [VERSION],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": INPUT, "datatype": "FP32", "shape": shape}],
                "outputs": [{"name": out, "datatype": "FP32", "shape": list(size)} for out, size in session.outputs],
                "parameters": {"provider": session.provider, "metadata": session.metadata.as_dict()},
            }
        )

    async def infer(self, request: Request) -> Response:
        name, session = self._model(request)
        body, header = await self._body(request), request.headers.get(HEADER)

        def work() -> Response:
            asked = decode_request(
                body,
                header,
                image=session.metadata.input.shape,
                outputs=session.output_names,
                max_rows=self.max_rows,
            )
            outputs = session.run(asked.image, asked.outputs or session.output_names)
            return _answer(encode_response(name, VERSION, outputs, asked))

        return await self._compute(work)

    async def explain(self, request: Request) -> Response:
        name, session = self._model(request)
        about = session.metadata
        if not about.explanations:
            raise InputError(f"model {name!r} holds no explanation: export it with one")
        body, header = await self._body(request), request.headers.get(HEADER)

        def work() -> Response:
            asked = decode_request(
                body, header, image=about.input.shape, outputs=session.output_names, max_rows=self.max_rows
            )
            maps = [out for out in asked.outputs if out in about.explanations] or [about.explanations[0]]
            beside = [out for out in about.answers if out in session.output_names]
            outputs = session.run(asked.image, [*beside, *maps])
            parameters = {"explained": about.targets[about.explained].name}
            answers = self.decode(outputs, about.as_dict()) if self.decode else []
            if answers:
                parameters["answers"] = _plain(answers)
            return _answer(encode_response(name, VERSION, outputs, asked, parameters))

        return await self._compute(work)

    async def invocations(self, request: Request) -> Response:
        session = next(iter(self.models.values()))
        body = await self._body(request)

        def work() -> Response:
            image = decode_invocation(body, image=session.metadata.input.shape, max_rows=self.max_rows)
            prediction = session.run(image)["prediction"]
            return Response(encode_predictions(prediction), media_type="application/json")

        return await self._compute(work)

    def _model(self, request: Request) -> tuple[str, Session]:
        name, version = request.path_params["model"], request.path_params.get("version", VERSION)
        if name not in self.models:
            raise HTTPException(404, f"unknown model {name[:128]!r}: choose from {', '.join(self.models)}")
        if version != VERSION:
            raise HTTPException(404, f"model {name!r} has no version {version[:32]!r}: only {VERSION}")
        return name, self.models[name]

    async def _body(self, request: Request) -> bytes:
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self.max_body_bytes:
            raise self._too_large()
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.max_body_bytes:
                raise self._too_large()
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> HTTPException:
        text = f"the body is larger than {self.max_body_bytes} bytes: send fewer images at a time"
        return HTTPException(413, text, headers={"connection": "close"})

    async def _compute(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)


def _answer(encoded: tuple[bytes, int | None]) -> Response:
    body, header = encoded
    if header is None:
        return Response(body, media_type="application/json")
    return Response(body, media_type="application/octet-stream", headers={HEADER: str(header)})


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _version() -> str:
    try:
        return importlib.metadata.version("stm-lab")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


async def _bad_input(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return JSONResponse({"error": error.detail}, error.status_code, headers=dict(error.headers or {}))


async def _gone(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the client closed the connection before its body ended"}, 400)


async def _failure(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the server failed on this request; its log says why"}, 500)
