"""Receiving a file: its options checked, its bytes streamed to a private file with a name of ours."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request

from deploy.model.questions import Reading, parse_angle, parse_channel, parse_size, parse_width
from stm_models.data.readers import READABLE
from stm_models.errors import InputError, unknown
from stm_models.unfinished import scratch

__all__ = [
    "MAX_UPLOAD_BYTES", "SECONDS", "Room", "check_options", "fields_of", "parse_reading", "parse_suffix", "received",
]  # fmt: skip

MAX_UPLOAD_BYTES = 256 * 2**20
SECONDS = 120
"""In which an upload must have arrived."""
CONTENT = "application/octet-stream"
_LONGEST = 200
# What of a file's options a message speaks of; they bear the names of the command line's.
_FIELDS = {
    "size_nm": r"--size-nm|\bsize_nm\b",
    "key": r"--key|\bkey\b",
    "bias": r"--bias",
    "channel": r"--channel",
    "rotate": r"--rotate",
    "atom_width": r"--atom-width",
    "suffix": r"\bsuffix\b|by its content|expected \.3ds",
}
_OPTIONS = (*_FIELDS, "explain", "place")


class Room:
    """Where all uploads lie together: a slow one takes no more of it than what has arrived.

    Parameters
    ----------
    most : int
        Bytes of all of them.
    """

    def __init__(self, most: int) -> None:
        self.left = most

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes so many bytes more; they are free again when the block ends.

        It raises HTTPException (503) where there are not as many.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self.left:
                text = "the files of all requests together are too large: ask again in a few seconds"
                raise HTTPException(503, text, headers={"retry-after": "5", "connection": "close"})
            self.left -= size
            taken += size

        try:
            yield take
        finally:
            self.left += taken


def fields_of(message: str) -> list[str]:
    """Return the names of the options that an error message speaks of; those that it offers to choose from are none."""
    about = message.partition(": choose from ")[0]
    return [name for name, pattern in _FIELDS.items() if re.search(pattern, about)]


def check_options(names: Sequence[str]) -> None:
    """Refuse, of the names in an address's query, unknown and repeated ones.

    Raises
    ------
    InputError
        Naming the option.
    """
    for name in names:
        if name not in _OPTIONS:
            raise unknown("option", name[:_LONGEST], _OPTIONS)
        if names.count(name) > 1:
            raise InputError(f"option {name!r} is given {names.count(name)} times: give it once")


def parse_suffix(values: Mapping[str, str]) -> str:
    """Return the kind of file that the client says it sends: one of the readers' own suffixes, never its words."""
    given = values.get("suffix", "").lower()
    found = next((suffix for suffix in READABLE if suffix == given), None)
    if found is None:
        raise unknown("suffix", given[:_LONGEST], READABLE)
    return found


def parse_reading(values: Mapping[str, str]) -> Reading:
    """Read what the readers take, ``rotate`` and ``atom_width``, from text; empty ones are not given.

    Raises
    ------
    InputError
        Naming the option.
    """
    given = {name: values[name].strip() for name in _FIELDS if name != "suffix" and values.get(name)}
    for name, text in given.items():
        if len(text) > _LONGEST or not text.isprintable():
            raise InputError(f"{name} is longer than {_LONGEST} characters or not printable: give what the file has")
    size = parse_size(given["size_nm"]) if given.get("size_nm") else None
    channel = parse_channel(given["channel"]) if given.get("channel") else None
    angle = parse_angle(given["rotate"]) if given.get("rotate") else None
    width = parse_width(given["atom_width"]) if given.get("atom_width") else None
    return Reading(given.get("key") or None, _bias(given.get("bias")), channel, size, rotate=angle, atom_width=width)


@asynccontextmanager
async def received(request: Request, suffix: str, most: int, seconds: float, room: Room) -> AsyncIterator[Path]:
    """Stream the body to a private file and yield its path; it is gone when the block ends.

    Parameters
    ----------
    request : Request
        Its content type must be application/octet-stream.
    suffix : str
        Of the file's name, as `parse_suffix` returns it.
    most : int
        Bytes that the body may have.
    seconds : float
        In which it must have arrived.
    room : Room
        What its bytes are taken from while the block runs.

    Raises
    ------
    HTTPException
        413 for more than ``most`` bytes (before anything is read, where the client says how many they are), 415 for
        another content type, 408 when it takes longer than ``seconds``, 503 when ``room`` has not as many bytes.
    ClientDisconnect
        When the client goes before the body has ended.
    InputError
        For an empty body.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != CONTENT:
        # A page of another site cannot send this type without asking first, which is never granted.
        raise HTTPException(415, f"content-type must be {CONTENT}: send the bytes of the file as they are")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most:
        raise _too_large(most)
    with room.share() as take, scratch() as folder:
        path = folder / f"upload{suffix}"
        try:
            async with asyncio.timeout(seconds):
                size = await _stream(request, path, most, take)
        except TimeoutError:
            text = f"the file did not arrive within {seconds:g} s: send a smaller one"
            raise HTTPException(408, text, headers={"connection": "close"}) from None
        if size == 0:
            raise InputError("the body is empty: send the bytes of the file")
        yield path


async def _stream(request: Request, path: Path, most: int, take: Callable[[int], None]) -> int:
    size = 0
    with path.open("xb") as file:
        async for part in request.stream():
            size += len(part)
            if size > most:
                raise _too_large(most)
            take(len(part))
            file.write(part)
    return size


def _too_large(most: int) -> HTTPException:
    text = f"the file is larger than {most / 2**20:g} MiB: crop it, or ask on the command line with 'stm predict'"
    return HTTPException(413, text, headers={"connection": "close"})


def _bias(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"--bias is {text!r}: expected a voltage in V, e.g. -0.014")
    return value
