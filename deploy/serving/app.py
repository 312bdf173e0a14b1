"""The HTTP application: Open Inference Protocol V2, explanations, MLflow's scoring protocol, metrics and the page."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.model.session import Session
from deploy.serving import page
from deploy.serving.body import Bodies
from deploy.serving.catalog import Catalog, Model
from deploy.serving.compute import Compute, Schedule
from deploy.serving.express import Express
from deploy.serving.inference import Decode, Inference, task_answers
from deploy.serving.limits import Limits
from deploy.serving.metrics import ENDED, Metrics
from deploy.serving.rate import RateLimit
from deploy.serving.refusals import Refused, busy, refusal
from deploy.serving.routes import build_routes, route_label
from deploy.serving.security import OPEN_PATHS, PAGE_HEADERS, Guard
from deploy.serving.sending import send_answer, send_refusal, send_whole

__all__ = ["Application", "create_app"]


class Application:
    """ASGI application: guards every request, answers the hot routes itself, and hands the others to Starlette.

    Parameters
    ----------
    cold : ASGI application
        Every other route.
    hot : mapping
        (label, handler, model) by path, of routes that take POST.
    guard : Guard
    metrics : Metrics
    bodies : Bodies
        Where long answers count while they are sent.
    express : Express
        The shortest way, for connections that know it.
    """

    def __init__(
        self,
        cold: ASGIApp,
        hot: Mapping[str, tuple[str, Any, Model]],
        guard: Guard,
        metrics: Metrics,
        bodies: Bodies,
        express: Express,
    ) -> None:
        self.cold, self.hot, self.guard, self.metrics, self.express = cold, dict(hot), guard, metrics, express
        self.bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        route = self.hot.get(scope["path"])
        label, status = "other", 500

        async def receiving() -> Message:
            nonlocal began
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                began = time.perf_counter()  # as for a body that the connection has held until it was whole
            return message

        try:
            try:
                label = route[0] if route is not None else route_label(scope["path"])
                self.guard.check(scope, headers)
                if route is not None and scope["method"] == "POST":
                    try:
                        answer = await route[1](route[2], headers, receiving)
                    except asyncio.CancelledError:
                        raise _ending() from None
                    status = 200
                    await send_answer(send, self.bodies, answer)
                else:
                    status = await self._hand_on(scope, receiving, send)
            except Exception as error:  # every one becomes an answer
                status, body, more = refusal(error)
                await send_refusal(send, status, body, more)
        except asyncio.CancelledError:
            pass  # the server ends in the middle of an answer: the connection is cut off
        finally:
            self.metrics.request(label, scope.get(ENDED, status), time.perf_counter() - began)

    async def _hand_on(self, scope: Scope, receive: Receive, send: Send) -> int:
        seen = 0
        start: Message | None = None

        async def sending(message: Message) -> None:
            nonlocal seen, start
            if message["type"] == "http.response.start":
                given = {name for name, _ in message["headers"]}
                more = [pair for pair in PAGE_HEADERS if pair[0] not in given]
                start = {**message, "headers": [*message["headers"], *more]}
                return
            first, start = start, None
            if first is None:
                await send(message)
                return
            seen = first["status"]
            if message.get("more_body"):
                await send(first)
                await send(message)
                return
            try:
                await send_whole(send, self.bodies, first, message.get("body", b""))
            except Refused as error:
                seen, body, others = refusal(error)
                await send_refusal(send, seen, body, others)

        try:
            with contextlib.suppress(Exception):  # answered and logged by the handler of the routes
                await self.cold(scope, receive, sending)
        except asyncio.CancelledError:
            if not seen:
                raise _ending() from None
        return seen or 500


def _ending() -> Refused:
    """Return the answer to what is still under way when the server must end: uvicorn cancels it."""
    return busy("the server ends, and this was not done", close=True)


def create_app(
    models: Mapping[str, Session] | Catalog,
    *,
    decode: Decode | None = task_answers,
    limits: Limits = Limits(),  # noqa: B008
    schedule: Schedule = Schedule(),  # noqa: B008
    hosts: Collection[str] | None = None,
    token: str | None = None,
    probed: bool = False,
    examples: str | Path | None = None,
    cells: tuple[NDArray[np.float64], NDArray[np.float64], int] | None = None,
) -> Application:
    """Build the application that serves ``models``.

    Parameters
    ----------
    models : Catalog, or mapping of str to Session
        By the name in the address; the first one answers ``/invocations``.
    decode : callable or None
        Makes the answers of ``/explain`` from the outputs and the model's metadata.
    limits, schedule
        What may be asked for, and how it is computed.
    hosts, token, probed
        See `deploy.serving.security.Guard`.
    examples : path, optional
        Folder of files that the page offers.
    cells : (counters, buckets, row), optional
        Memory that worker processes share: see `Metrics` and `RateLimit`.

    Raises
    ------
    InputError
        Without models, or with a name that cannot stand in an address.
    """
    catalog = models if isinstance(models, Catalog) else Catalog.of(models)
    counters, buckets, row = cells or (None, None, 0)
    metrics = Metrics(list(catalog.models), counters, row)
    compute = Compute(limits, metrics, schedule)
    bodies = Bodies(limits, metrics)
    inference = Inference(compute, bodies, limits, metrics, decode)
    guard = Guard(
        hosts,
        token,
        RateLimit(limits.rate, limits.burst, buckets) if limits.rate else None,
        (*OPEN_PATHS, *page.OPEN),
        probed,
    )
    more = page.page_routes(catalog.sessions, examples=examples, seconds=limits.request_seconds, answered=metrics.rows)
    cold = build_routes(catalog, inference, metrics, more, token)
    hot: dict[str, tuple[str, Any, Model]] = {}
    for name, model in catalog.models.items():
        hot[f"/v2/models/{name}/infer"] = ("infer", inference.infer, model)
        hot[f"/v2/models/{name}/explain"] = ("explain", inference.explain, model)
    hot["/invocations"] = ("invocations", inference.invocations, catalog.first)
    paths = {f"/v2/models/{name}/infer".encode(): model for name, model in catalog.models.items()}
    return Application(cold, hot, guard, metrics, bodies, Express(paths, guard, metrics, compute))
