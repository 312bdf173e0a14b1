"""The process that reads one uploaded file and ends; the server starts it with nothing but two pipes.

A file from outside meets other people's parsers here. Whatever it does to them, this process has limits of memory and
of processor time, can write no file, and is gone after one answer.
"""

from __future__ import annotations

import json
import os
import resource
import select
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["main"]

_IDLE_SECONDS = 900


def main() -> None:
    """Announce with a line that imports are done, then answer the one request of stdin on stdout."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print must not mix with the answer
    from deploy.model.metadata import ModelMetadata
    from deploy.model.questions import read_file
    from deploy.serving.reading import wire
    from stm_models.errors import InputError
    from stm_models.tasks import registry

    for name in registry.names():
        with suppress(InputError):  # another distribution's broken task is told where a model of it is asked
            registry.get(name)
    os.write(answer, b"\n")
    if not select.select([sys.stdin], [], [], _IDLE_SECONDS)[0]:
        return
    line = sys.stdin.buffer.readline()
    if not line:
        return  # the server has gone
    request = json.loads(line)
    _confine(request["memory"], request["seconds"])
    try:
        about = ModelMetadata.model_validate(request["metadata"])
        question = read_file(Path(request["path"]), about, wire.reading_from(request["reading"]))
        content = wire.encode_question(question)
    except InputError as error:
        content = wire.encode_error(str(error))
    except MemoryError:
        content = wire.encode_error("the file asks for more memory than a file may take here: crop it first")
    with os.fdopen(answer, "wb") as stream:
        stream.write(content)


def _confine(memory: int, seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime) + 1
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, spent + seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main()
