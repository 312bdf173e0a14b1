"""The experiment-comparison page: read-only, rendered here, no scripts."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from stm_models.errors import InputError, unknown
from tracking import registry, rows
from tracking.store import Store
from tracking.ui import files, pages, table

__all__ = ["create_app"]

_HOSTS = ["127.0.0.1", "localhost", "::1", "[::1]"]
_COLUMNS = {
    "name": "run", "experiment": "experiment", "outcome": "outcome", "network": "network", "digest": "data",
    "seconds": "duration",
}  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(store: Store) -> Starlette:
    """Return the ASGI application over ``store``; it answers only under a loopback name."""

    def index(request: Request) -> Response:
        return HTMLResponse(_index(store, request))

    def run(request: Request) -> Response:
        return HTMLResponse(_run(store, request.path_params["id"]))

    def file(request: Request) -> Response:
        row = rows.get(store, request.path_params["id"])
        found = files.picture(store, row.id, request.path_params["path"])
        if found is None:
            raise InputError("this run has no such picture")
        return Response(found[0], media_type=found[1])

    def style(request: Request) -> Response:
        return Response(pages.STYLE, media_type="text/css")

    def missing(request: Request, error: Exception) -> Response:
        message = str(error) if isinstance(error, InputError) else "There is no such page."
        return HTMLResponse(pages.render("problem", title="Not found", message=message), 404)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/style.css", style),
            Route("/runs/{id}", run),
            Route("/runs/{id}/files/{path:path}", file),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_secure),
            Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS, www_redirect=False),
        ],
        exception_handlers={InputError: missing, 404: missing},
    )


async def _secure(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await answer(request)
    response.headers.update(_HEADERS)
    return response


def _index(store: Store, request: Request) -> str:
    given = {key: request.query_params.get(key, "").strip() for key in ("experiment", "q", "sort", "desc")}
    experiments = sorted(store.experiments().values())
    if given["experiment"] and given["experiment"] not in experiments:
        raise unknown("experiment", given["experiment"], experiments)
    found = rows.find(store, given["experiment"] or None)
    shown = table.build(found, given["q"], given["sort"], given["desc"] == "1")
    badges = _badges(store)
    heads = [_head(key, title, given) for key, title in _COLUMNS.items()]
    heads += [_head(name, name, given) for name in shown.metrics]
    lines = [
        {
            "id": line.run.id, "name": line.run.name, "depth": line.depth,
            "badges": badges.get(line.run.id, []), "experiment": line.run.experiment,
            "status": line.run.status, "outcome": line.run.outcome, "network": table.network(line.run),
            "digest": line.run.tags.get("data.digest", "")[:12],
            "seconds": _duration(line.run.seconds),
            "metrics": [_number(line.run.metrics.get(name)) for name in shown.metrics],
        }
        for line in shown.lines
    ]  # fmt: skip
    return pages.render(
        "index", location=store.location, experiments=experiments, chosen=given["experiment"],
        query=given["q"], heads=heads, lines=lines,
    )  # fmt: skip


def _run(store: Store, run_id: str) -> str:
    row = rows.get(store, run_id)
    found = files.listing(store, row.id)
    images = [path for path, _ in found if any(path.lower().endswith(suffix) for suffix in files.MEDIA)]
    tags = {key: text for key, text in row.tags.items() if not key.startswith("mlflow.")}
    sections = [
        ("Metrics", [(key, _number(value)) for key, value in sorted(row.metrics.items())]),
        ("Parameters", sorted(row.params.items())),
        ("Tags", sorted(tags.items())),
        ("Files", [(path, f"{size:,} bytes") for path, size in found]),
    ]
    return pages.render(
        "run", run=row, badges=_badges(store).get(row.id, []), seconds=_duration(row.seconds), images=images,
        sections=sections,
    )  # fmt: skip


def _badges(store: Store) -> dict[str, list[str]]:
    badges: dict[str, list[str]] = {}
    for model in store.client.search_registered_models():
        for info in registry.versions(store, model.name) if model.aliases else []:
            for alias in info.aliases:
                badges.setdefault(info.run_id, []).append(f"{alias} · {info.name} {info.version}")
    return badges


def _head(key: str, title: str, given: dict[str, str]) -> dict[str, Any]:
    current = given["sort"] == key
    down = given["desc"] == "1"
    query = {name: given[name] for name in ("experiment", "q") if given[name]} | {"sort": key}
    if current and not down:
        query["desc"] = "1"
    order = ("descending" if down else "ascending") if current else ""
    return {"title": title, "link": f"/?{urlencode(query)}", "order": order}


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "running"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
