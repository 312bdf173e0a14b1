"""Answering the requests that compute: infer, explain, and MLflow's invocations."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from starlette.types import Receive

from deploy.serving.body import Bodies
from deploy.serving.catalog import Loaded, Model
from deploy.serving.compute import Compute
from deploy.serving.invocations import decode_invocation, encode_predictions
from deploy.serving.json_array import NUMBER_BYTES
from deploy.serving.limits import Limits
from deploy.serving.metrics import Metrics
from deploy.serving.protocol import HEADER, InferRequest, decode_request, encode_response
from deploy.serving.refusals import Refused
from stm_models.errors import InputError

__all__ = ["Answer", "Decode", "Inference", "task_answers"]

_HEADER = HEADER.lower().encode()
_JSON, _BINARY = b"application/json", b"application/octet-stream"
_LARGE = 65536
_ANSWER_VALUES = 4096
_NUMBER_AT_MOST = 32  # bytes of JSON: 17 digits, sign, point, exponent, comma, and some space
_AROUND = 65536  # bytes of JSON that are no numbers: names, shapes, parameters

Decode = Callable[[Mapping[str, Any], Mapping[str, Any]], list[dict[str, Any]]]
"""Makes one answer in words per row, from raw outputs and a model's metadata."""


class Answer(NamedTuple):
    """Body, content type and, for one with binary tensors, the length of the JSON before them."""

    body: bytes
    kind: bytes
    header_length: int | None = None


class Inference:
    """Reads a request, computes, and writes the answer, all with one version of a model.

    Parameters
    ----------
    compute : Compute
    bodies : Bodies
    limits : Limits
    metrics : Metrics
    decode : Decode or None
        Makes the answers in words of explain.
    """

    def __init__(
        self, compute: Compute, bodies: Bodies, limits: Limits, metrics: Metrics, decode: Decode | None
    ) -> None:
        self.compute, self.bodies, self.limits, self.metrics, self.decode = compute, bodies, limits, metrics, decode

    async def infer(
        self, model: Model, headers: Mapping[bytes, bytes], receive: Receive, version: str | None = None
    ) -> Answer:
        """Answer ``POST /v2/models/M/infer``; 404 unless ``version``, if given, is served once the body is here."""
        return await self._in_time(headers, receive, partial(self._infer, model, headers, version))

    async def explain(
        self, model: Model, headers: Mapping[bytes, bytes], receive: Receive, version: str | None = None
    ) -> Answer:
        """Answer ``.../explain``, as `infer`: the asked maps or the default one, all that is cheap, and words."""
        return await self._in_time(headers, receive, partial(self._explain, model, headers, version))

    async def invocations(self, model: Model, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        """Answer ``POST /invocations``."""
        return await self._in_time(headers, receive, partial(self._invocations, model))

    async def _in_time(
        self,
        headers: Mapping[bytes, bytes],
        receive: Receive,
        answer: Callable[[bytes, float], Coroutine[Any, Any, Answer]],
    ) -> Answer:
        """Read the body, and answer it; what is waited for from then on has one time together, which ends at a moment.

        The clock is set where something is waited for: a short run on the event loop costs less than it.
        """
        body = await self.bodies.read(headers, receive)
        try:
            return await answer(body, asyncio.get_running_loop().time() + self.limits.request_seconds)
        finally:
            self.bodies.release(len(body))

    async def _infer(
        self, model: Model, headers: Mapping[bytes, bytes], version: str | None, body: bytes, until: float
    ) -> Answer:
        loaded = model.version(version)
        length = headers.get(_HEADER, b"")
        offset = int(length) if length.isdigit() and len(length) < 8 else -1
        head = loaded.heads.find(body, offset) if offset > 0 else None
        if head is not None:
            outputs = await self.compute.run(loaded, head.image(body, offset), head.names, until=until)
            self.metrics.rows(model.name, head.rows)
            text, tensors = head.answer(model.name, loaded.label, outputs)
            return Answer(b"".join((text, *tensors)), _BINARY, len(text))
        asked = await self._asked(body, headers, loaded, until)
        names = asked.outputs or loaded.session.answer_names
        self._check_answer(loaded, names, asked)
        outputs = await self.compute.run(loaded, asked.image, names, asked.focus, until=until)
        if offset > 0:
            loaded.heads.remember(body, offset, asked, names)
        self.metrics.rows(model.name, len(asked.image))
        return await self._written(model, loaded, outputs, asked, until)

    async def _explain(
        self, model: Model, headers: Mapping[bytes, bytes], version: str | None, body: bytes, until: float
    ) -> Answer:
        loaded = model.version(version)
        about = loaded.session.metadata
        if not about.explanations:
            raise InputError(f"model {model.name!r} holds no explanation: export it with one")
        asked = await self._asked(body, headers, loaded, until)
        maps = [out for out in asked.outputs if out in about.explanations] or [about.explanations[0]]
        names = (*loaded.session.answer_names, *maps)
        self._check_answer(loaded, names, asked)
        outputs = await self.compute.run(loaded, asked.image, names, asked.focus, until=until)
        self.metrics.rows(model.name, len(asked.image))
        parameters: dict[str, Any] = {"explained": about.targets[about.explained].name}
        if self.decode is not None:
            decode = self.decode
            answers = await self.compute.aside(lambda: decode(outputs, about.as_dict()), until)
            if answers:
                parameters["answers"] = _plain(answers)
        return await self._written(model, loaded, outputs, asked, until, parameters)

    async def _invocations(self, model: Model, body: bytes, until: float) -> Answer:
        loaded = model.current
        shape = loaded.session.metadata.input.shape
        self._check_json(len(body), loaded)

        def read() -> Any:
            return decode_invocation(body, image=shape, max_rows=self.limits.rows)

        image = read() if len(body) < _LARGE else await self.compute.aside(read, until)
        self._check_numbers(loaded, ["prediction"], len(image))
        outputs = await self.compute.run(loaded, image, ("prediction",), until=until)
        self.metrics.rows(model.name, len(image))
        found = outputs["prediction"]

        def write() -> Answer:
            return Answer(encode_predictions(found), _JSON)

        return write() if found.size < _ANSWER_VALUES else await self.compute.aside(write, until)

    async def _asked(self, body: bytes, headers: Mapping[bytes, bytes], loaded: Loaded, until: float) -> InferRequest:
        length = headers.get(_HEADER)
        text = None if length is None else length.decode("latin-1")
        counted = text is not None and text.isascii() and text.isdigit()  # `decode_request` refuses what is not
        json_bytes = min(int(length[:15]), len(body)) if length and counted else len(body)
        self._check_json(json_bytes, loaded)
        session = loaded.session

        def read() -> InferRequest:
            return decode_request(
                body,
                text,
                image=session.metadata.input.shape,
                outputs=session.output_names,
                max_rows=self.limits.rows,
            )

        return read() if json_bytes < _LARGE else await self.compute.aside(read, until)

    async def _written(
        self,
        model: Model,
        loaded: Loaded,
        outputs: Mapping[str, Any],
        asked: InferRequest,
        until: float,
        parameters: Mapping[str, Any] | None = None,
    ) -> Answer:
        def write() -> Answer:
            body, length = encode_response(model.name, loaded.label, outputs, asked, parameters)
            return Answer(body, _JSON if length is None else _BINARY, length)

        as_text = sum(
            values.size for name, values in outputs.items() if not asked.binary.get(name, asked.default_binary)
        )
        return write() if as_text < _ANSWER_VALUES else await self.compute.aside(write, until)

    def _check_answer(self, loaded: Loaded, names: Sequence[str], asked: InferRequest) -> None:
        as_text = [name for name in names if not asked.binary.get(name, asked.default_binary)]
        self._check_numbers(loaded, as_text, len(asked.image))

    def _check_numbers(self, loaded: Loaded, as_text: Collection[str], rows: int) -> None:
        """Refuse, before anything is computed, what would be too long an answer in JSON."""
        sizes = loaded.session.output_sizes
        count = rows * sum(sizes[name] for name in as_text)
        if count * NUMBER_BYTES > self.limits.json_bytes:
            most = self.limits.json_bytes // NUMBER_BYTES
            text = f"the answer would be {count} numbers in JSON, at most {most} are written: "
            text += "ask infer or explain for binary tensors (binary_data), or send fewer images"
            raise Refused(413, text)

    def _check_json(self, size: int, loaded: Loaded) -> None:
        """Refuse, before it is parsed, JSON that is longer than what the model can take."""
        if size > self.limits.json_bytes:
            text = f"the JSON is larger than {self.limits.json_bytes} bytes: send binary tensors, or fewer images"
            raise Refused(413, text)
        rows, shape = self.limits.rows, loaded.session.metadata.input.shape
        most = rows * (math.prod(shape) + 1) * _NUMBER_AT_MOST + _AROUND
        if size > most:
            shown = ", ".join(map(str, shape))
            raise Refused(
                413,
                f"the JSON is larger than {most} bytes, in which {rows} images ({shown}) of this model have room: send "
                "fewer, with less space between their numbers, or binary tensors",
            )


def task_answers(outputs: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Let the model's task make one answer per row of raw outputs; none where the task is not known."""
    try:
        from stm_models.tasks import registry
    except ModuleNotFoundError:
        return []
    name = str(metadata["task"])
    return registry.get(name).decode(outputs, metadata) if name in registry.names() else []


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
