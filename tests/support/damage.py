"""Read damaged copies of files within 1 GiB; run as ``damage.py SEED COPIES FILE...``, one line of JSON per file.

Every copy is cut somewhere or has bytes flipped, half of them near the start, where formats keep what they promise.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from stm_models.data.readers import read
from stm_models.errors import InputError

GIB = 1024**3


def damaged(content: bytes, number: int, rng: random.Random) -> bytes:
    near = min(len(content), 2000)
    if number % 4 == 0:
        return content[: rng.randrange(1, len(content) if number % 8 else near)]
    copy = bytearray(content)
    for _ in range(rng.choice((1, 3, 20))):
        copy[rng.randrange(len(copy) if number % 4 == 1 else near)] = rng.randrange(256)
    return bytes(copy)


def peak_bytes() -> int:
    """Most memory that this process held: ru_maxrss would tell of the process that it was forked from."""
    held = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    return 1024 * int(held.split()[0])


def main(seed: int, copies: int, sources: list[Path]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (GIB, GIB))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # C libraries of pictures print what they think
    for source in sources:
        rng, content = random.Random(f"{seed} {source.name}"), source.read_bytes()
        found = {"file": source.name, "read": 0, "refused": 0, "wrong": [], "slowest": 0.0}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / source.name
            for number in range(copies):
                path.write_bytes(damaged(content, number, rng))
                begin = time.monotonic()
                try:
                    raw = read(path)
                    found["read"] += 1
                    if raw.values.ndim != 3 or not abs(raw.values).max() < float("inf"):
                        found["wrong"].append(f"copy {number}: no map")
                except InputError as error:
                    found["refused"] += 1
                    if "\n" in str(error):
                        found["wrong"].append(f"copy {number}: {error}")
                except BaseException as error:
                    found["wrong"].append(f"copy {number}: {error!r}")
                found["slowest"] = max(found["slowest"], time.monotonic() - begin)
        print(json.dumps(found), flush=True)
    print(json.dumps({"peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
