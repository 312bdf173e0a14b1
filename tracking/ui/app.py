"""The comparison page: read-only, made here, with nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from stm_models.errors import InputError
from stm_models.figures import tiles
from stm_models.hosts import LOOPBACK
from tracking import rows
from tracking.store import Store
from tracking.ui import compare, files, models_page, panels_page, render, run_page, svg, table_page, tuning
from tracking.ui.away import TROUBLE, words
from tracking.ui.compare import Asked
from tracking.ui.security import HEADERS, INERT, Guard
from tracking.ui.site import Site
from tracking.ui.table import View

__all__ = ["create_app"]

_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path fill="none" stroke="#0072b2" stroke-width="2" '
    'd="M1 14L6 6L10 10L15 2"/></svg>'
)
_KEPT = HEADERS | {"cache-control": "private, max-age=300"}


def create_app(
    store: Store, *, studies: str | None = None, token: str | None = None,
    hosts: tuple[str, ...] | None = LOOPBACK,
) -> Starlette:  # fmt: skip
    """Return the ASGI application over ``store``.

    Parameters
    ----------
    store : Store
    studies : str, optional
        Address of the Optuna storage, where it is not beside the store.
    token : str, optional
        What every request must carry.
    hosts : tuple of str or None
        Names under which it answers; ``None`` for any.
    """
    site = Site(store, studies)

    def shown(name: str, context: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            values = context(request)
            return HTMLResponse(render.page(name, base=_base(request), **values))

        return answer

    def csv(request: Request) -> Response:
        return _download(table_page.csv(site, View.of(_asked(request))).encode(), "text/csv; charset=utf-8", "runs.csv")

    def plot(request: Request) -> Response:
        name = request.query_params.get("plot", "")
        return _svg(str(compare.plot_of(site, Asked.of(_asked(request)), name).render()), "comparison")

    def trials(request: Request) -> Response:
        found, name = tuning.plots(tuning.read(site, request.path_params["id"])), request.path_params["name"]
        if name not in found:
            raise InputError(f"this search has no plot {name[:60]!r}: it has {', '.join(found) or 'none'}")
        return _svg(str(found[name]), name)

    def tile(request: Request) -> Response:
        return Response(panels_page.tile(site, _asked(request)), media_type="image/png", headers=_KEPT)

    def bar(request: Request) -> Response:
        if request.path_params["colours"] not in tiles.MAPS:
            raise InputError("there are no such colours")
        return Response(tiles.bar(request.path_params["colours"]), media_type="image/png", headers=_KEPT)

    def file(request: Request) -> Response:
        row = rows.get(store, request.path_params["id"])
        whole = request.query_params.get("download") == "1"
        found = files.fetch(store, row.id, request.path_params["path"], whole=whole)
        if found is None:
            raise InputError(
                "this run has no such picture" if not whole else "this run has no such file, or it is too large"
            )
        content, media = found
        if whole:
            return _download(content, "application/octet-stream", request.path_params["path"].rpartition("/")[2])
        return Response(content, media_type=media, headers=INERT)

    def own(text: Callable[[], str], media: str) -> Callable[[Request], Response]:
        return lambda request: Response(text(), media_type=media, headers=HEADERS | {"cache-control": "no-cache"})

    def problem(request: Request, error: Exception) -> Response:
        if (away := words(store, error)) is not None:
            page = render.page("problem", base=_base(request), title="No answer", message=away)
            return HTMLResponse(page, 503)
        message = str(error) if isinstance(error, InputError) else "There is no such page."
        return HTMLResponse(render.page("problem", base=_base(request), title="Not found", message=message), 404)

    def searched(request: Request) -> dict[str, Any]:
        search = tuning.read(site, request.path_params["id"])
        return {"search": search, "plots": tuning.plots(search)}

    def pictures(request: Request) -> dict[str, Any]:
        asked = _asked(request)
        return panels_page.context(site, Asked.of(asked).runs, panels_page.choice_of(asked))

    def model(request: Request) -> dict[str, Any]:
        return models_page.context(site, request.path_params["name"], _base(request))

    app = Starlette(
        routes=[
            Route("/", shown("table", lambda request: table_page.context(site, View.of(_asked(request))))),
            Route("/table.csv", csv),
            Route("/compare", shown("compare", lambda request: compare.context(site, Asked.of(_asked(request))))),
            Route("/compare/plot.svg", plot),
            Route("/panels", shown("panels", pictures)),
            Route("/panels/tile.png", tile),
            Route("/panels/bar-{colours}.png", bar),
            Route("/tuning", shown("tuning", lambda request: {"search": None, "searches": tuning.searches(site)})),
            Route("/tuning/{id}", shown("tuning", searched)),
            Route("/tuning/{id}/{name}.svg", trials),
            Route("/models", shown("models", lambda request: {"models": models_page.listing(site)})),
            Route("/models/{name:path}", shown("model", model)),
            Route("/runs/{id}", shown("run", lambda request: run_page.context(site, request.path_params["id"]))),
            Route("/runs/{id}/files/{path:path}", file),
            Route("/style.css", own(render.style, "text/css")),
            Route("/live.js", own(render.script, "text/javascript")),
            Route("/icon.svg", own(lambda: _ICON, "image/svg+xml")),
        ],
        middleware=[Middleware(Guard, hosts=hosts, token=token)],
        exception_handlers={InputError: problem, 404: problem, **dict.fromkeys(TROUBLE, problem)},
    )
    app.state.site = site
    return app


def _asked(request: Request) -> list[tuple[str, str]]:
    return request.query_params.multi_items()


def _base(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


def _svg(text: str, name: str) -> Response:
    return _download(svg.standalone(text).encode(), "image/svg+xml", f"{name}.svg")


def _download(content: bytes, media: str, name: str) -> Response:
    disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, media_type=media, headers=INERT | {"content-disposition": disposition})
