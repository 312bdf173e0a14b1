"""Asking a served model from Python: standard library and numpy only."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import NDArray

from deploy.serving.protocol import HEADER, decode_response, encode_request
from stm_models.errors import InputError

__all__ = ["Client"]


class Client:
    """A connection to a served model; one object may be used from several threads.

    Parameters
    ----------
    url : str
        As the server printed it, e.g. ``http://127.0.0.1:8080``.
    model : str, optional
        Name of the model; by default the server's first one.
    token : str, optional
        Bearer token, where the server needs one.
    timeout : float
        Seconds to wait for an answer.

    Examples
    --------
    >>> client = Client("http://127.0.0.1:8080", model="stm-hubbard")
    >>> client.infer(images)["prediction"]  # doctest: +SKIP
    """

    def __init__(self, url: str, model: str | None = None, token: str | None = None, timeout: float = 10.0) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or parts.scheme not in ("http", "https"):
            raise InputError(f"url is {url!r}, expected something like http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._prefix = host, port, parts.path.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._model = model
        self._local = threading.local()

    @property
    def model(self) -> str:
        """Name of the model that is asked."""
        if self._model is None:
            names = self._json("/v2/models").get("models")
            if not isinstance(names, list) or not names:
                raise InputError(f"{self.url} names no model: give model=NAME")
            self._model = str(names[0])
        return self._model

    def ready(self) -> bool:
        """Tell whether the server answers and has the model ready; False when nothing answers."""
        try:
            return self._request("GET", "/v2/health/ready")[0] == 200
        except InputError:
            return False

    def wait_ready(self, seconds: float) -> None:
        """Wait until the server is ready.

        Raises
        ------
        InputError
            When it is not within ``seconds``.
        """
        end = time.monotonic() + seconds
        while not self.ready():
            if time.monotonic() >= end:
                raise InputError(f"{self.url} was not ready within {seconds:g} s: look at the server's log")
            time.sleep(0.05)

    def metadata(self) -> dict[str, Any]:
        """Return inputs and outputs of the model, and in ``parameters`` all that it says about itself."""
        return self._json(f"/v2/models/{quote(self.model, safe='')}")

    def infer(self, images: NDArray[Any], outputs: Sequence[str] = ("prediction",)) -> dict[str, NDArray[np.float32]]:
        """Compute ``outputs`` of ``images``.

        Parameters
        ----------
        images : (batch, C, H, W) float32
            In the model's input unit; other real numbers are converted.
        outputs : sequence of str
            Names of outputs; only these are computed.

        Returns
        -------
        dict of str to (batch, ...) float32

        Raises
        ------
        InputError
            With the server's own message, or when no server answers.
        """
        images = np.asarray(images)
        if images.dtype.kind not in "fiu":
            raise InputError(f"images are {images.dtype}, expected float32 numbers")
        with np.errstate(over="ignore"):
            body, length = encode_request(images.astype(np.float32, copy=False), outputs)
        headers = {"Content-Type": "application/octet-stream"}
        if length is not None:
            headers[HEADER] = str(length)
        path = f"/v2/models/{quote(self.model, safe='')}/infer"
        answer, back = self._checked("POST", path, body, headers)
        return decode_response(answer, back.get(HEADER))[0]

    def close(self) -> None:
        """Close this thread's connection; the next call opens one again."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _json(self, path: str) -> dict[str, Any]:
        try:
            value = json.loads(self._checked("GET", path)[0])
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{self.url}{path} is no JSON object: is this the address of a model server?")
        return value

    def _checked(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[bytes, http.client.HTTPMessage]:
        status, answer, back = self._request(method, path, body, headers)
        if status != 200:
            raise InputError(f"{self.url} answered {status}: {_message(answer)}")
        return answer, back

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        kept = getattr(self._local, "connection", None)
        # A kept connection may have been closed by the server since; a new one gets no second try.
        for connection in [kept, self._connect()] if kept is not None else [self._connect()]:
            self._local.connection = connection
            try:
                connection.request(method, self._prefix + path, body, {**self._headers, **(headers or {})})
                response = connection.getresponse()
                return response.status, response.read(), response.headers
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if connection is kept and isinstance(error, ConnectionError | http.client.BadStatusLine):
                    continue
                raise self._no_answer(error) from error
        raise AssertionError("unreachable")

    def _connect(self) -> http.client.HTTPConnection:
        return self._kind(self._host, self._port, timeout=self.timeout)

    def _no_answer(self, error: Exception) -> InputError:
        if isinstance(error, TimeoutError):
            return InputError(f"no answer from {self.url} within {self.timeout:g} s: give a longer timeout")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return InputError(
            f"no answer from {self.url} ({reason}): is the server running? start it with 'stm serve MODEL'"
        )


def _message(answer: bytes) -> str:
    try:
        value = json.loads(answer)
        return str(value["error"])
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode("utf-8", "replace").strip() or "no message"
