"""The whole chain, simulate to predict, under everything a machine does to it: the same digests, metrics and answers.

Each case runs the real command line in folders of its own and is compared with an undisturbed chain; nothing may be
left behind but what docs/campaign.md names. Run by ``make campaign``; the tests do a few cases.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from support.chain import Chain
from support.chain_faults import FAULTS
from support.chain_limits import Skipped


def undisturbed(place):
    """Run the chain where nothing happens, or take the one that is there."""
    kept = place / "undisturbed.json"
    calm = Chain(place / "undisturbed")
    if kept.exists():
        calm.found = json.loads(kept.read_text())
    else:
        calm.whole()
        calm.check_left()
        kept.write_text(json.dumps(calm.found))
    return calm


def case(name, place, calm):
    """Run one case; return what is printed about it."""
    began = time.monotonic()
    folder = place / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        row = {"what": FAULTS[name](folder, calm)}
    except Skipped as reason:
        row = {"skipped": str(reason)}
    except Exception as error:
        row = {"failed": f"{type(error).__name__}: {error}"[-3000:]}
    return {"fault": name, **row, "seconds": round(time.monotonic() - began)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(FAULTS), choices=list(FAULTS), metavar="NAME")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here, and take the undisturbed chain from here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="campaign-chain-") as name:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            name = options.keep.resolve()
        calm = undisturbed(Path(name))
        print(json.dumps({"fault": "none", "seconds": calm.found["seconds"]}), flush=True)
        rows = []
        for each in options.only:
            rows.append(case(each, Path(name), calm))
            print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    failed = [row["fault"] for row in rows if "failed" in row]
    skipped = [row["fault"] for row in rows if "skipped" in row]
    print(json.dumps({"cases": len(rows), "failed": failed, "skipped": skipped}))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
