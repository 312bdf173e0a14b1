"""The page's addresses: its files, the models' cards, examples, and a question about a file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from deploy.model.session import Session
from deploy.model.stopping import start
from deploy.serving.page import upload
from deploy.serving.page.answers import describe_answer
from deploy.serving.page.card import card
from deploy.serving.page.examples import find_examples
from deploy.serving.page.static_files import PATHS, static_routes
from deploy.serving.reading.process import FileReader
from deploy.serving.refusals import busy
from stm_models.data.readers import READABLE
from stm_models.errors import InputError

__all__ = ["OPEN", "page_routes"]

OPEN = tuple(PATHS)
"""Paths that hold nothing of the models and need no token: a browser cannot send one with an address."""
_AT_ONCE = 2  # each may take what `FileReader` allows; the recipes give a process 6 GiB
_Result = TypeVar("_Result")


def page_routes(
    models: Mapping[str, Session],
    *,
    examples: str | Path | None = None,
    seconds: float = 60.0,
    answered: Callable[[str, int], None] = lambda model, images: None,
) -> list[Route]:
    """Return the routes of the page.

    Parameters
    ----------
    models : mapping of str to Session
        By name, the first one shown first; it may change while the server runs.
    examples : path, optional
        Folder whose readable files the page offers to try.
    seconds : float
        For an answer, from when its file is here.
    answered : callable
        Called with a model's name and how many images of a question it has answered.

    Raises
    ------
    InputError
        For a folder of examples that has none.
    """
    handlers = _Handlers(models, find_examples(examples, upload.MAX_UPLOAD_BYTES), seconds, answered)
    return [
        *static_routes(),
        Route("/page/models", handlers.cards),
        Route("/page/examples/{number}", handlers.example),
        Route("/v2/models/{model}/ask", handlers.ask, methods=["POST"]),
    ]


class _Handlers:
    def __init__(
        self,
        models: Mapping[str, Session],
        examples: list[Path],
        seconds: float,
        answered: Callable[[str, int], None],
    ) -> None:
        self.models, self.reader = models, FileReader()
        self.examples = [(path, path.stat().st_size) for path in examples]  # they may go while the server runs
        self.pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="stm-page")
        self.slots = threading.Semaphore(_AT_ONCE)
        self.room = upload.Room(_AT_ONCE * upload.MAX_UPLOAD_BYTES)
        self.seconds, self.answered = seconds, answered

    async def cards(self, request: Request) -> Response:
        # Whoever looks at the page is likely to ask soon.
        self.pool.submit(self.reader.prepare)
        return JSONResponse(
            {
                "models": [card(name, session) for name, session in dict(self.models).items()],
                "readable": READABLE,
                "max_bytes": upload.MAX_UPLOAD_BYTES,
                "examples": [{"name": path.name, "bytes": size} for path, size in self.examples],
            }
        )

    async def example(self, request: Request) -> Response:
        text = request.path_params["number"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else len(self.examples)
        if number >= len(self.examples):
            raise HTTPException(404, f"there is no example {text[:20]}: the server has {len(self.examples)}")
        path, _ = self.examples[number]
        if not path.is_file():
            raise HTTPException(404, f"example {number} ({path.name}) is gone: choose another one")
        # Whole, whatever part is asked for: the framework would answer a wrong range in a form of its own.
        request.scope["headers"] = [pair for pair in request.scope["headers"] if pair[0] != b"range"]
        return FileResponse(path, media_type=upload.CONTENT, headers={"accept-ranges": "none"})

    async def ask(self, request: Request) -> Response:
        name = request.path_params["model"]
        session = self.models.get(name)
        if session is None:
            raise HTTPException(404, f"unknown model {name[:128]!r}: choose from {', '.join(self.models)}")
        # Not taken before the file is here: those that arrive slowly would keep the others from asking.
        self._take_slot()
        self.slots.release()
        try:
            found = await self._answer(request, session)
            self.answered(name, 1)
            return JSONResponse({"model_name": name, **found})
        except InputError as error:
            return JSONResponse({"error": str(error), "fields": upload.fields_of(str(error))}, 400)

    async def _answer(self, request: Request, session: Session) -> dict[str, Any]:
        values = request.query_params
        upload.check_options([name for name, _ in values.multi_items()])
        suffix, reading = upload.parse_suffix(values), upload.parse_reading(values)
        explain, place = values.get("explain") or None, _number(values.get("place"))
        async with upload.received(request, suffix, upload.MAX_UPLOAD_BYTES, upload.SECONDS, self.room) as path:

            def work() -> dict[str, Any]:
                return describe_answer(session, self.reader.read(path, session.metadata, reading), explain, place)

            found = await self._compute(work)
        # For the next one; this one need not wait for it.
        self.pool.submit(self.reader.prepare)
        return found

    async def _compute(self, work: Callable[[], _Result]) -> _Result:
        self._take_slot()
        try:
            async with asyncio.timeout(self.seconds):
                return await start(self.pool, work, self.slots.release)  # it keeps its slot until it has really ended
        except TimeoutError:
            raise busy(f"the answer took more than {self.seconds:g} s", 5) from None

    def _take_slot(self) -> None:
        if not self.slots.acquire(blocking=False):
            text = f"{_AT_ONCE} files are being answered already: ask again in a few seconds"
            raise HTTPException(503, text, headers={"retry-after": "5", "connection": "close"})


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise InputError(f"place is {text[:20]!r}: expected the number of a place, from 0")
    return int(text)
