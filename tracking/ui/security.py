"""Who may look, and the headers that make whatever a run holds inert."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from urllib.parse import urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stm_models.hosts import LOOPBACK, host_name, spelt

__all__ = ["HEADERS", "INERT", "Guard"]

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every page: nothing from elsewhere, no script but the own file."""
INERT = HEADERS | {"content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'"}
"""Of a run's files: nothing in them runs, even when opened by themselves."""
_COOKIE = "stm_compare"


class Guard:
    """ASGI middleware: names of this machine alone, reading alone, and a token where one is set.

    Parameters
    ----------
    hosts : collection of str or None
        Names that the Host header may have, any port; ``None`` where another server has looked at it. A page of
        another site that resolves its own name to this machine is stopped by it.
    token : str or None
        Needed as ``Authorization: Bearer TOKEN``, or once as ``?token=TOKEN``, which a cookie of this site replaces.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None = LOOPBACK, token: str | None = None) -> None:
        self.app = app
        self.hosts = None if hosts is None else frozenset(map(spelt, hosts))
        self.token = None if token is None else token.encode()
        # What a browser keeps is not the token itself.
        self.cookie = "" if token is None else hashlib.sha256(b"stm compare " + token.encode()).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request; hand every other one on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(Request(scope), Headers(scope=scope))
        await (refusal or self.app)(scope, receive, with_headers)

    def _refusal(self, request: Request, headers: Headers) -> Response | None:
        hosts = headers.getlist("host")
        if self.hosts is not None and (len(hosts) != 1 or host_name(hosts[0]) not in self.hosts):
            return PlainTextResponse(f"the Host header must name one of {', '.join(sorted(self.hosts))}", 403)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("this page only reads: send GET", 405, {"allow": "GET, HEAD"})
        return None if self.token is None else self._stranger(request, headers)

    def _stranger(self, request: Request, headers: Headers) -> Response | None:
        given = request.query_params.get("token")
        if given is not None and self._right(given.encode(errors="replace")):
            # Gone from the address bar and from what is copied from it.
            rest = urlencode([(key, value) for key, value in request.query_params.multi_items() if key != "token"])
            answer = RedirectResponse(f"/{request.url.path.lstrip('/')}" + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(_COOKIE, self.cookie, httponly=True, samesite="strict", path="/")
            return answer
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        kept = request.cookies.get(_COOKIE, "").encode(errors="replace")
        if scheme.lower() == "bearer" and self._right(bearer.strip().encode("latin-1")):
            return None
        if hmac.compare_digest(kept, self.cookie.encode()):
            return None
        return PlainTextResponse(
            "a token is needed: open the address that `stm compare` has printed, or send 'Authorization: Bearer TOKEN'",
            401, {"www-authenticate": "Bearer"},
        )  # fmt: skip

    def _right(self, given: bytes) -> bool:
        return self.token is not None and hmac.compare_digest(given, self.token)
