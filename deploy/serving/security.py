"""Who may ask: the Host and Origin headers, the bearer token, the rate; and the headers every answer carries."""

from __future__ import annotations

import hmac
import math
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.types import Scope

from deploy.serving.rate import RateLimit
from deploy.serving.refusals import Refused
from stm_models.hosts import host_name, spelt

__all__ = ["OPEN_PATHS", "PAGE_HEADERS", "PLAIN_HEADERS", "Guard"]

OPEN_PATHS = ("/ping", "/v2/health/live", "/v2/health/ready")
_UNLIMITED = frozenset(OPEN_PATHS)
_ONCE = (b"host", b"authorization", b"content-length", b"content-encoding", b"inference-header-content-length")

PLAIN_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
PAGE_HEADERS = (
    *PLAIN_HEADERS,
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """Refuses what must not reach the application.

    Parameters
    ----------
    hosts : collection of str or None
        Names that the Host header may have, any port; ``None`` for any. A page of another site that
        resolves its own name to this machine is stopped by it.
    token : str or None
        Bearer token that every path but ``open_paths`` needs.
    rate : RateLimit, optional
        Of every client address, wrong tokens too; health is not counted.
    open_paths : collection of str
        Paths that need no token; one that ends in ``/`` stands for all below it.
    probed : bool
        Whether health is told under any Host: what probes a server names the address where it found it.
    """

    def __init__(
        self,
        hosts: Collection[str] | None = None,
        token: str | None = None,
        rate: RateLimit | None = None,
        open_paths: Collection[str] = OPEN_PATHS,
        probed: bool = False,
    ) -> None:
        self.hosts = None if hosts is None else frozenset(map(spelt, hosts))
        self.expected = None if token is None else token.encode()
        self.rate = rate
        self.open_paths = frozenset(path for path in open_paths if path == "/" or not path.endswith("/"))
        self.open_below = tuple(path for path in open_paths if path != "/" and path.endswith("/"))
        self._any_host = frozenset(OPEN_PATHS if probed else ())
        self._known: set[bytes] = set()

    def check(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a request that may not be answered.

        Parameters
        ----------
        scope
            Of ASGI.
        headers : mapping
            Its headers, of every name the last one.

        Raises
        ------
        Refused
            400, 401, 403, 415 or 429.
        """
        if len(headers) != len(scope["headers"]):
            names = [name for name, _ in scope["headers"]]
            for name in _ONCE:
                if names.count(name) > 1:
                    status = {b"host": 403, b"authorization": 401}.get(name, 400)
                    raise Refused(status, f"the header {name.decode()} is given twice: send one", close=True)
        path = scope["path"]
        self._check_host(path, headers)
        # Before the token, else they could be tried as fast as one likes.
        if self.rate is not None and path not in _UNLIMITED:
            seconds = self.rate.wait(scope["client"][0] if scope.get("client") else "")
            if seconds > 0:
                text = f"more than {self.rate.rate:g} requests per second from this address: ask more slowly"
                raise Refused(429, text, close=True, headers={"retry-after": str(math.ceil(seconds))})
        if self.expected is not None and path not in self.open_paths and not path.startswith(self.open_below or "\0"):
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(b" "), self.expected):
                text = "a valid token is needed: send 'Authorization: Bearer TOKEN'"
                raise Refused(401, text, close=True, headers={"www-authenticate": "Bearer"})
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            text = "compressed bodies are not taken: send the body without Content-Encoding"
            raise Refused(415, text, close=True)

    def _check_host(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"")
        if self.hosts is not None and host not in self._known and path not in self._any_host:
            if host_name(host.decode("latin-1")) not in self.hosts:
                text = f"the Host header must name one of {', '.join(sorted(self.hosts))}"
                raise Refused(403, text, close=True)
            if len(self._known) < 64:
                self._known.add(host)
        origin = headers.get(b"origin")
        if origin is not None and not self._own(origin, host):
            raise Refused(403, "the Origin header names another site: pages of others may not ask", close=True)

    def _own(self, origin: bytes, host: bytes) -> bool:
        try:
            parts = urlsplit(origin.decode("latin-1"))
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.decode("latin-1").lower()
