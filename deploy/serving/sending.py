"""Sending answers; a long one counts as memory until its client has taken it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Message, Send

from deploy.serving.body import Bodies
from deploy.serving.inference import Answer
from deploy.serving.limits import LONG
from deploy.serving.protocol import HEADER
from deploy.serving.security import PAGE_HEADERS, PLAIN_HEADERS

__all__ = ["send_answer", "send_refusal", "send_whole"]

_HEADER = HEADER.lower().encode()


async def send_answer(send: Send, bodies: Bodies, answer: Answer) -> None:
    """Send an answer, as `send_whole` does."""
    headers = [(b"content-type", answer.kind), (b"content-length", b"%d" % len(answer.body)), *PLAIN_HEADERS]
    if answer.header_length is not None:
        headers.append((_HEADER, b"%d" % answer.header_length))
    await send_whole(send, bodies, {"type": "http.response.start", "status": 200, "headers": headers}, answer.body)


async def send_refusal(send: Send, status: int, body: bytes, more: Mapping[str, str]) -> None:
    """Send what `deploy.serving.refusals.refusal` returns."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *PAGE_HEADERS]
    headers += [(name.lower().encode(), value.encode()) for name, value in more.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_whole(send: Send, bodies: Bodies, start: Message, body: bytes) -> None:
    """Send an answer that is in memory as a whole.

    Raises
    ------
    Refused
        503 before anything is sent: it is long, and so is what other clients have not taken yet.
    """
    if len(body) <= LONG:
        await send(start)
        await send({"type": "http.response.body", "body": body})
        return
    with bodies.holding(len(body)):
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})  # for which uvicorn waits until the client has taken the rest
