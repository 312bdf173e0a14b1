"""The server under load and under attack.

``--minutes 30``: mixed load while the model changes 20 times, and 5 bad versions are offered. ``--fuzz 100000``: that
many malformed requests. Run by ``make campaign``; the tests do a minute of the one and a thousand of the other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from support.serving_fuzz import fuzz
from support.serving_soak import soak


def check_soak(found, growth=0.05):
    """Hold a soak's result against what is promised."""
    assert found["answers"] > found["seconds"], found
    assert found["failed"] == found["wrong"] == 0, found
    assert found["versions_unseen"] == [], found
    assert found["memory_growth"] <= growth, found
    assert found["descriptors_after"] <= found["descriptors_before"], found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--bad", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--fuzz", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()

    def report(text):
        print(text, flush=True)

    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        if asked.minutes:
            result = soak(Path(folder), asked.minutes, asked.moves, asked.bad, workers=asked.workers, report=report)
            report(json.dumps(result))
            check_soak(result)
        if asked.fuzz:
            report(json.dumps(fuzz(Path(folder), asked.fuzz, asked.seed, report)))
