"""Draw the pictures of docs/comparing.md from the tracking store here: python docs/compare_pictures.py.

The store (MLFLOW_TRACKING_URI, or mlflow.db here) holds a demo, and evaluations of two of its models on the same data
set; what it lacks, e.g. evaluated impurity models, is left out and said. Needs Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from deploy.serving.listening import beside, listen
from tracking.rows import RunRow
from tracking.store import connect
from tracking.ui.app import create_app
from tracking.ui.grouping import REPEATS
from tracking.ui.site import Site
from tracking.ui.tuning import searches

LARGEST = 150_000  # bytes
WIDTH = 1120
FOLDER = Path(__file__).parent


def main() -> None:
    """Take every picture."""
    store = connect()
    site = Site(store)
    rows = site.reader.read().rows
    evaluated = {row.tags["evaluated.run"] for row in rows if "evaluated.run" in row.tags}

    def chosen(experiment: str, most: int = 2) -> list[RunRow]:
        return [row for row in rows if row.experiment == experiment and row.id in evaluated][:most]

    hubbard, impurity = chosen("hubbard"), chosen("impurity")
    repeated = [row for row in rows if REPEATS in row.tags][:1]
    found, models = searches(site), {info.name for info in site.versions()}
    ids = ",".join(row.id for row in hubbard)
    addresses = {
        "table": ("/?experiment=hubbard" + "".join(f"&open={row.id}" for row in repeated), 640, bool(rows)),
        "runs": (f"/compare?runs={','.join(row.id for row in [*hubbard, *repeated])}", 900, bool(hubbard)),
        "panels": (f"/panels?runs={ids}&sample=5", 720, len(hubbard) > 1),
        "impurities": (f"/panels?runs={','.join(row.id for row in impurity)}&sample=3", 560, bool(impurity)),
        "search": (f"/tuning/{found[0].id}" if found else "", 620, bool(found)),
        "model": ("/models/stm-hubbard", 700, "stm-hubbard" in models),
    }
    listener, url = listen("127.0.0.1", 0)
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with listener, beside(create_app(store), listener), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for name, (address, height, there) in addresses.items():
            if not there:
                print(f"{name}: left out, the store has no such runs", file=sys.stderr)
                continue
            page = browser.new_page(viewport={"width": WIDTH, "height": height})
            page.set_default_timeout(120_000)
            page.goto(url + address)
            page.wait_for_load_state("networkidle")
            page.evaluate("for (const one of document.querySelectorAll('h1 + p.quiet')) one.remove()")  # where it lies
            out = FOLDER / f"compare_{name}.png"
            out.write_bytes(small(page.screenshot()))
            print(out)
        browser.close()


def small(png: bytes) -> bytes:
    """Return a picture with as many colours as fit."""
    picture, colours = Image.open(io.BytesIO(png)).convert("RGB"), 256
    while True:
        file = io.BytesIO()
        few = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(file, "PNG", optimize=True)
        if len(file.getvalue()) <= LARGEST or colours <= 16:
            return file.getvalue()
        colours //= 2


if __name__ == "__main__":
    main()
