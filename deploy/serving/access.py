"""Where a server listens, and what whoever asks there must show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.serving.listening import Tls
from deploy.serving.tokens import check_token
from stm_models.errors import InputError
from stm_models.hosts import LOOPBACK, is_loopback, spelt

__all__ = ["Access"]

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*|[0-9a-f:]*:[0-9a-f:.]*")


@dataclass(frozen=True)
class Access:
    """Address, token and certificate of a server.

    Attributes
    ----------
    host : str
        Address to listen on; another than a loopback one needs a token and TLS, or ``insecure``.
    port : int
        0 picks a free one.
    token : str, optional
        Bearer token that requests must carry.
    tls : Tls, optional
        Speak HTTPS.
    insecure : bool
        Go without the token, TLS or both on an address that others reach.
    names : sequence of str
        Names that the Host header may have beside the machine's own; any, where none is given and the address is no
        loopback one.

    Raises
    ------
    InputError
        For an address that lacks what it needs, a token that no header can carry, or a name that no header can have.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    tls: Tls | None = None
    insecure: bool = False
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        token = self.token
        if token is not None:
            check_token(token)
        for name in self.names:
            if not _NAME.fullmatch(spelt(name)):
                raise InputError(
                    f"--allow-host is {name!r}, expected a name or an address alone, with no scheme, port or path, as "
                    "in stm.example.org: it is allowed on every port"
                )
        if is_loopback(self.host) or self.insecure:
            return
        missing = [what for what, got in (("a token", token), ("TLS", self.tls)) if got is None]
        if missing:
            raise InputError(
                f"host {self.host} can be reached from other machines and needs {' and '.join(missing)}: give "
                "--token-file, --tls-cert and --tls-key, or use --host 127.0.0.1, or say --insecure where something "
                "in front of it guards it"
            )

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Names that the Host header may have; None for any."""
        if is_loopback(self.host):
            return (*LOOPBACK, self.host, *self.names)
        return (*LOOPBACK, self.host, *self.names) if self.names else None

    @property
    def probed(self) -> bool:
        """Whether health is told under any Host: others than this machine reach the address."""
        return not is_loopback(self.host)
