"""The page's own files, read once: the server opens no path that a client has a say in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = ["PATHS", "static_routes"]

# No inline script or style, nothing from elsewhere, no frame around it; blob: is what downloads are made of.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_NAMES = (
    "index.html", "page.css", "icon.svg",
    "main.js", "api.js", "answer.js", "card.js", "colours.js", "download.js", "elements.js", "picture.js",
)  # fmt: skip

PATHS = {"/" if name == "index.html" else f"/page/{name}": name for name in _NAMES}


def static_routes() -> list[Route]:
    """Return a route per file."""
    folder = files("deploy.serving.page") / "static"
    return [Route(path, _sender((folder / name).read_bytes(), name.rpartition(".")[2])) for path, name in PATHS.items()]


def _sender(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        return Response(content, media_type=_TYPES[kind], headers=_HEADERS)

    return send
