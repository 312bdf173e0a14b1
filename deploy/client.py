"""Asking a served model from Python: standard library and numpy only."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from deploy.serving.protocol import HEADER, decode_response, encode_request
from deploy.serving.tokens import check_token
from stm_models.errors import InputError

__all__ = ["Client"]

_LONGEST = 1e6  # seconds that one may wait for an answer


class Client:
    """A connection to a served model; one object may be used from several threads.

    Parameters
    ----------
    url : str
        As the server printed it, e.g. ``http://127.0.0.1:8080``.
    model : str, optional
        Name of the model; by default the server's first one.
    token : str, optional
        Bearer token, where the server needs one; white space around it, as of a file that holds it, does not count.
    timeout : float
        Seconds to wait for an answer.
    retries : int
        So often a question is asked again when the server is too busy (503), after as many seconds as it says.
    cafile : path, optional
        Certificates that an https server's must be signed by, where the system's do not do.

    Examples
    --------
    >>> client = Client("http://127.0.0.1:8080", model="stm-hubbard")
    >>> client.infer(images)["prediction"]  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        token: str | None = None,
        timeout: float = 10.0,
        *,
        retries: int = 3,
        cafile: str | Path | None = None,
    ) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or parts.scheme not in ("http", "https"):
            raise InputError(f"url is {url!r}, expected something like http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        if not isinstance(retries, int | np.integer) or retries < 0:
            raise InputError(f"retries is {retries!r}, expected 0 or more")
        self.timeout, self.retries = _seconds(timeout), int(retries)
        self._tls = _trust(cafile) if parts.scheme == "https" else None
        self._host, self._port, self._prefix = host, port, parts.path.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {check_token(token.strip())}"}
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

    def ready(self, timeout: float | None = None) -> bool:
        """Tell whether the server answers and has the model ready; False when nothing answers within ``timeout``.

        Where no model was named and none asked yet, the server is meant: it has one.
        """
        seconds = self.timeout if timeout is None else _seconds(timeout)
        try:
            return self._readiness(seconds)[0] == 200
        except InputError:
            return False

    def wait_ready(self, seconds: float) -> None:
        """Wait until `ready`.

        Raises
        ------
        InputError
            When it is not within ``seconds``, with what the server said last.
        """
        end = time.monotonic() + seconds
        while True:
            said = ""
            try:
                status, answer = self._readiness(min(self.timeout, max(0.01, end - time.monotonic())))
                if status == 200:
                    return
                said = f" (it answered {status}: {_message(answer)})"
            except InputError:
                pass
            if time.monotonic() >= end:
                raise InputError(f"{self.url} was not ready within {seconds:g} s{said}: look at the server's log")
            time.sleep(0.05)

    def metadata(self) -> dict[str, Any]:
        """Return inputs and outputs of the model, and in ``parameters`` all that it says about itself."""
        return self._json(self._address())

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
        return self._tensors("infer", images, outputs)[0]

    def explain(
        self, images: NDArray[Any], method: str | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], list[dict[str, Any]]]:
        """Compute an explanation of ``images`` with their predictions.

        Parameters
        ----------
        images
            See `infer`.
        method : str, optional
            One of the model's explanations, by default its first.

        Returns
        -------
        outputs : dict of str to (batch, ...) float32
        answers : list of dict
            One per image, in words and with units; empty where the server does not know the model's task.

        Raises
        ------
        InputError
            As `infer`, and for a model without explanations.
        """
        outputs, head = self._tensors("explain", images, [] if method is None else [method])
        return outputs, list(head.get("parameters", {}).get("answers", []))

    def ask(
        self,
        path: str | Path,
        *,
        explain: str | None = None,
        place: int | None = None,
        size_nm: tuple[float, float] | None = None,
        key: str | None = None,
        bias: float | None = None,
        channel: int | str | None = None,
        rotate: float | None = None,
        atom_width: float | None = None,
        timeout: float = 180.0,
    ) -> dict[str, Any]:
        """Send a measured map, as any file that `stm_models.data.readers.read` knows, and return the answer to it.

        Parameters
        ----------
        path : path
            The server learns its content and its suffix.
        explain : str, optional
            An explanation to compute too.
        place : int, optional
            Number of the position whose score is explained, where the model answers with positions.
        size_nm, key, bias, channel
            What the file does not say, as for the readers: (height, width) in nm, the name of an array, V, and a
            signal or the number of a map.
        rotate : float, optional
            Degrees counter-clockwise by which the map is turned first.
        atom_width : float, optional
            Standard deviation in nm of one atom in the map.
        timeout : float
            Seconds to wait for the answer; large files take a while to read.

        Returns
        -------
        dict
            See `deploy.serving.page.answers.describe_answer`; its arrays have their values as ``array``, float32.

        Raises
        ------
        InputError
            With the server's own message, for a file that cannot be read, or when no server answers.
        """
        path = Path(path)
        size = None if size_nm is None else _size(size_nm)
        given = {
            "suffix": path.suffix.lower(), "explain": explain, "place": place, "size_nm": size, "key": key,
            "bias": bias, "channel": channel, "rotate": rotate, "atom_width": atom_width,
        }  # fmt: skip
        query = urlencode({name: value for name, value in given.items() if value is not None})
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        headers = {"Content-Type": "application/octet-stream"}
        answer, _ = self._checked("POST", f"{self._address('ask')}?{query}", content, headers, _seconds(timeout))
        try:
            found: dict[str, Any] = json.loads(answer)
            for values in (found["image"], *found["maps"].values()):
                values["array"] = np.frombuffer(base64.b64decode(values.pop("base64")), "<f4").reshape(values["shape"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self.url} answers no question: is this the address of a model server?") from error
        return found

    def close(self) -> None:
        """Close this thread's connection; the next call opens one again."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _address(self, *parts: str) -> str:
        return "/".join(("/v2/models", quote(self.model, safe=""), *parts))

    def _readiness(self, seconds: float) -> tuple[int, bytes]:
        path = "/v2/health/ready" if self._model is None else self._address("ready")
        return self._request("GET", path, timeout=seconds)[:2]

    def _tensors(
        self, how: str, images: NDArray[Any], outputs: Sequence[str]
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
        try:
            images = np.asarray(images)
        except ValueError as error:
            raise InputError(f"images are no array, expected (batch, C, H, W) float32 numbers: {error}") from error
        if images.dtype.kind not in "fiu":
            raise InputError(f"images are {images.dtype}, expected float32 numbers")
        with np.errstate(over="ignore"):
            body, length = encode_request(images.astype(np.float32, copy=False), outputs)
        headers = {"Content-Type": "application/octet-stream"}
        if length is not None:
            headers[HEADER] = str(length)
        answer, back = self._checked("POST", self._address(how), body, headers)
        return decode_response(answer, back.get(HEADER))

    def _json(self, path: str) -> dict[str, Any]:
        try:
            value = json.loads(self._checked("GET", path)[0])
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise InputError(f"{self.url}{path} is no JSON object: is this the address of a model server?")
        return value

    def _checked(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[bytes, http.client.HTTPMessage]:
        for again in range(self.retries, -1, -1):
            status, answer, back = self._request(method, path, body, headers, timeout)
            if status != 503 or not again:
                break
            time.sleep(_pause(back.get("Retry-After"), self.timeout))
        if status != 200:
            raise InputError(f"{self.url} answered {status}: {_message(answer)}")
        return answer, back

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        kept = getattr(self._local, "connection", None)
        # A kept connection may have been closed by the server since; a new one gets no second try.
        for connection in [kept, self._connect()] if kept is not None else [self._connect()]:
            self._local.connection = connection
            seconds = self.timeout if timeout is None else timeout
            try:
                if connection.sock is None:
                    connection.timeout = seconds
                    connection.connect()
                connection.sock.settimeout(seconds)
                whole = _send(connection, method, self._prefix + path, body, {**self._headers, **(headers or {})})
                response = connection.getresponse()
                answer = response.status, response.read(), response.headers
                if not whole:
                    self.close()
                return answer
            except BaseException as error:
                self.close()  # an interrupted one, too, is in the midst of a request
                if not isinstance(error, http.client.HTTPException | OSError | ValueError):
                    raise
                if connection is kept and isinstance(error, ConnectionError | http.client.BadStatusLine):
                    continue
                raise self._no_answer(error, seconds) from error
        raise AssertionError("unreachable")

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port)
        return http.client.HTTPSConnection(self._host, self._port, context=self._tls)

    def _no_answer(self, error: Exception, seconds: float) -> InputError:
        if isinstance(error, TimeoutError):
            return InputError(f"no answer from {self.url} within {seconds:g} s: give a longer timeout")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return InputError(
            f"no answer from {self.url} ({reason}): is the server running? start it with 'stm serve MODEL'"
        )


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> bool:
    """Send a request; False where the server ended it before all was sent, as one does that refuses a large body.

    Its answer (413, 503) may be there to read all the same.
    """
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
        return False
    return True


def _seconds(timeout: float) -> float:
    if not isinstance(timeout, int | float | np.number) or not 0 < timeout <= _LONGEST:
        raise InputError(f"timeout is {timeout!r}, expected seconds: more than 0, at most {_LONGEST:g}")
    return float(timeout)


def _size(size_nm: tuple[float, float]) -> str:
    try:
        height, width = map(float, size_nm)
    except (ValueError, TypeError):
        raise InputError(f"size_nm is {size_nm!r}, expected (height, width) in nm") from None
    return f"{height!r}x{width!r}"


def _trust(cafile: str | Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        raise InputError(f"cannot read the certificates {cafile}: {error}") from error


def _pause(said: str | None, most: float) -> float:
    """Return the seconds of a Retry-After, one where it says none, never more than one would wait for an answer."""
    return min(float(said), most) if said is not None and said.isascii() and said.isdigit() else min(1.0, most)


def _message(answer: bytes) -> str:
    try:
        value = json.loads(answer)
        return str(value["error"])
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode("utf-8", "replace").strip() or "no message"
