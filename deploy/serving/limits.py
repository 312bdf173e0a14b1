"""How much one client, and all of them together, may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass

from stm_models.errors import InputError

__all__ = ["LONG", "Limits"]

LONG = 65536
"""Bytes of an answer above which it counts as one of the bodies until its client has taken it."""
_LONGEST = 1e6  # seconds


@dataclass(frozen=True)
class Limits:
    """Bounds that a server holds every request against.

    Attributes
    ----------
    body_bytes : int
        Of one request's body.
    json_bytes : int
        Of the JSON in it, of which a number takes eight times its text in memory and anything else up to 25 times;
        where that is less, 32 bytes for each number that `rows` images of the asked model have. And of that in its
        answer.
    total_bytes : int
        Of all bodies that are being read or answered, and of all long answers that are being taken.
    rows : int
        Images in one request.
    queue_rows : int
        Images that wait or are being computed; the next request is answered 503.
    body_seconds, request_seconds : float
        For a body to arrive, and for its answer from then on.
    connections : int
        Open at once.
    rate, burst : float
        Requests per second of one client address, and how many at once; rate 0 for no limit.
    """

    body_bytes: int = 64 * 2**20
    json_bytes: int = 32 * 2**20
    total_bytes: int = 512 * 2**20
    rows: int = 256
    queue_rows: int = 2048
    body_seconds: float = 20.0
    request_seconds: float = 60.0
    connections: int = 1024
    rate: float = 0.0
    burst: float = 0.0

    def __post_init__(self) -> None:
        for name in ("body_bytes", "json_bytes", "total_bytes", "rows", "queue_rows", "connections"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.body_bytes > self.total_bytes:
            raise InputError(
                f"body_bytes is {self.body_bytes}, expected at most total_bytes, which is {self.total_bytes}: for a "
                "larger body there would never be room"
            )
        for name in ("body_seconds", "request_seconds"):
            if not 0 < getattr(self, name) <= _LONGEST:
                raise InputError(f"{name} is {getattr(self, name)}, expected more than 0, at most {_LONGEST:g}")
        for name in ("rate", "burst"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}, expected 0 (no limit) or more")
