"""Who may ask: the Host header, the bearer token, and the headers every answer carries."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "OPEN_PATHS", "Guard", "is_loopback"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN_PATHS = ("/ping", "/v2/health/live", "/v2/health/ready")


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware that answers what must not reach the application.

    Parameters
    ----------
    app : ASGI application
    hosts : collection of str or None
        Names that the Host header may have, any port; ``None`` for any. A page of another site that
        resolves its own name to this machine is stopped by it.
    token : str or None
        Bearer token that every path but `OPEN_PATHS` and ``open_paths`` needs.
    open_paths : collection of str
        Paths that hold nothing that the token guards.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Collection[str] | None = None,
        token: str | None = None,
        open_paths: Collection[str] = (),
    ) -> None:
        self.app = app
        self.hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self.open_paths = frozenset((*OPEN_PATHS, *open_paths))
        self.expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request; hand every other one on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                headers["cache-control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        close = {"connection": "close"}
        hosts = headers.getlist("host")
        if self.hosts is not None and (len(hosts) != 1 or _name(hosts[0]) not in self.hosts):
            text = f"the Host header must name one of {', '.join(sorted(self.hosts))}"
            return JSONResponse({"error": text}, 403, headers=close)
        if self.expected is not None and path not in self.open_paths:
            given = headers.getlist("authorization")
            if len(given) != 1 or not hmac.compare_digest(given[0].encode("latin-1"), self.expected):
                text = "a valid token is needed: send 'Authorization: Bearer TOKEN'"
                return JSONResponse({"error": text}, 401, headers={**close, "www-authenticate": "Bearer"})
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            text = "compressed bodies are not taken: send the body without Content-Encoding"
            return JSONResponse({"error": text}, 415, headers=close)
        return None


def _name(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
