"""The routes that need not be fast: health, metadata, metrics, the interface's description, and versions by number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from deploy.serving.catalog import Catalog, Model
from deploy.serving.inference import Inference
from deploy.serving.metrics import CONTENT_TYPE, Metrics
from deploy.serving.openapi import describe
from deploy.serving.process import open_files, resident_bytes
from deploy.serving.protocol import HEADER
from deploy.serving.refusals import Refused, refusal
from deploy.serving.security import OPEN_PATHS
from deploy.serving.strict_json import dump_json
from stm_models.errors import InputError
from stm_models.versions import version_of

__all__ = ["build_routes", "route_label"]

_MODEL = "/v2/models/{model}"


def build_routes(
    catalog: Catalog, inference: Inference, metrics: Metrics, page: Sequence[BaseRoute], token: str | None
) -> Starlette:
    """Return the application of all routes; what is refused or fails in it is answered as `refusal` says.

    Parameters
    ----------
    catalog : Catalog
        The models, which may change their versions while it runs.
    inference : Inference
        Answers what computes.
    metrics : Metrics
        What ``/metrics`` tells.
    page : sequence of BaseRoute
        Routes of the page, tried first.
    token : str or None
        That requests must carry, for the description of the interface alone: nothing is checked here.
    """
    handlers = _Handlers(catalog, inference, metrics, token is not None)
    routes: list[BaseRoute] = [
        *page,
        Route("/ping", handlers.ping),
        Route("/version", handlers.version),
        Route("/metrics", handlers.metrics_text),
        Route("/openapi.json", handlers.openapi),
        Route("/invocations", handlers.invocations, methods=["POST"]),
        Route("/v2", handlers.server),
        Route("/v2/models", handlers.models),
        Route("/v2/health/live", handlers.live),
        Route("/v2/health/ready", handlers.ready),
    ]
    for prefix in (_MODEL, _MODEL + "/versions/{version}"):
        routes += [
            Route(prefix, handlers.model),
            Route(prefix + "/ready", handlers.model_ready),
            Route(prefix + "/infer", handlers.infer, methods=["POST"]),
            Route(prefix + "/explain", handlers.explain, methods=["POST"]),
        ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _refuse, InputError: _refuse, ClientDisconnect: _gone, Exception: _refuse},
    )
    app.router.redirect_slashes = False  # an address is right or wrong; and a redirect would repeat the client's words
    return app


def route_label(path: str) -> str:
    """Return what a request to ``path`` is counted as."""
    if path in OPEN_PATHS or (path.startswith("/v2/") and path.endswith("/ready")):
        return "health"
    if path.startswith("/v2/models/"):
        for end in ("infer", "explain"):
            if path.endswith("/" + end):
                return end
        return "page" if path.endswith("/ask") else "metadata"
    if path in ("/v2", "/v2/models", "/version", "/openapi.json"):
        return "metadata"
    if path in ("/metrics", "/invocations"):
        return path[1:]
    return "page" if path == "/" or path.startswith("/page/") else "other"


class _Handlers:
    def __init__(self, catalog: Catalog, inference: Inference, metrics: Metrics, needs_token: bool) -> None:
        self.catalog, self.inference, self.counts = catalog, inference, metrics
        self.description = dump_json(describe(list(catalog.models), _version(), needs_token))

    async def ping(self, request: Request) -> Response:
        return Response("\n", media_type="text/plain")

    async def version(self, request: Request) -> Response:
        return _json({"name": "stm-lab", "version": _version()})

    async def openapi(self, request: Request) -> Response:
        return Response(self.description, media_type="application/json")

    async def metrics_text(self, request: Request) -> Response:
        return Response(self.counts.text(_information(self.catalog, self.counts)), media_type=CONTENT_TYPE)

    async def server(self, request: Request) -> Response:
        about = {"name": "stm-lab", "version": _version(), "extensions": ["binary_tensor_data"]}
        return _json({**about, "models": list(self.catalog.models)})

    async def models(self, request: Request) -> Response:
        paths = ["GET /", "GET /v2", "GET /v2/models", "GET /v2/health/live", "GET /v2/health/ready", "GET /ping"]
        paths += ["GET /version", "GET /metrics", "GET /openapi.json", "POST /invocations"]
        for name in self.catalog.models:
            base = f"/v2/models/{name}"
            paths += [f"GET {base}", f"GET {base}/ready"]
            paths += [f"POST {base}/infer", f"POST {base}/explain", f"POST {base}/ask"]
        return _json({"models": list(self.catalog.models), "endpoints": paths})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        return _json({"ready": True})

    async def model_ready(self, request: Request) -> Response:
        model = self._model(request)
        answer: dict[str, Any] = {"name": model.name, "ready": True, "version": model.current.label}
        if model.refused is not None:
            answer["refused"] = model.refused
        return _json(answer)

    async def model(self, request: Request) -> Response:
        return _json(self._model(request).describe())

    async def infer(self, request: Request) -> Response:
        return await self._of_version(request, self.inference.infer)

    async def explain(self, request: Request) -> Response:
        return await self._of_version(request, self.inference.explain)

    async def invocations(self, request: Request) -> Response:
        return await self._answer(request, self.inference.invocations, self.catalog.first)

    async def _of_version(self, request: Request, handler: Any) -> Response:
        # Asked again once the body is here: another version may have taken over meanwhile.
        handler = partial(handler, version=request.path_params.get("version"))
        return await self._answer(request, handler, self._model(request))

    async def _answer(self, request: Request, handler: Any, model: Model) -> Response:
        answer = await handler(model, dict(request.scope["headers"]), request.receive)
        headers = {} if answer.header_length is None else {HEADER: str(answer.header_length)}
        return Response(answer.body, media_type=answer.kind.decode(), headers=headers)

    def _model(self, request: Request) -> Model:
        name, version = request.path_params["model"], request.path_params.get("version")
        model = self.catalog.models.get(name)
        if model is None:
            raise Refused(404, f"unknown model {name[:128]!r}: choose from {', '.join(self.catalog.models)}")
        model.version(version)
        return model


def _information(
    catalog: Catalog, metrics: Metrics
) -> list[tuple[str, str, str, Sequence[tuple[dict[str, str], float]]]]:
    models = catalog.models.items()
    about = []
    for name, model in models:
        loaded = model.current
        labels = {"model": name, "version": loaded.label, "task": loaded.session.metadata.task}
        about.append(({**labels, "sha256": loaded.session.metadata.sha256, "provider": loaded.session.provider}, 1.0))
    refused = [({"model": name}, float(model.refused is not None)) for name, model in models]
    held = [({"model": name}, float(model.held)) for name, model in models]
    processes = metrics.processes()
    return [
        ("stm_model_info", "gauge", "What is served.", about),
        ("stm_model_refused", "gauge", "1 while the newest version is refused and an old one goes on.", refused),
        ("stm_model_versions_held", "gauge", "Versions in this process's memory: two while one drains.", held),
        ("stm_workers", "gauge", "Processes that answer.", [({}, float(len(processes)))]),
        ("process_resident_memory_bytes", "gauge", "Of all workers.", [({}, resident_bytes(processes))]),
        (
            "process_cpu_seconds_total",
            "counter",
            "Of all workers, ended ones too.",
            [({}, metrics.processor_seconds())],
        ),
        ("process_open_fds", "gauge", "Of all workers.", [({}, open_files(processes))]),
    ]


def _json(value: Any) -> Response:
    return Response(dump_json(value), media_type="application/json")


def _version() -> str:
    return version_of("stm-lab") or "unknown"


async def _refuse(request: Request, error: Exception) -> Response:
    status, body, headers = refusal(error)
    return Response(body, status, media_type="application/json", headers=dict(headers))


async def _gone(request: Request, error: Exception) -> Response:
    body = dump_json({"error": "the client closed the connection before its body ended"})
    return Response(body, 400, media_type="application/json")
