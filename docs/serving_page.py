"""Take the picture of the server's page: serving_page.png, from a model file and a file to ask about.

Example: python docs/serving_page.py demo-output/model.onnx image.npy
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from PIL import Image

from deploy.model.session import Session
from deploy.serving.server import running

WIDTH, HEIGHT = 900, 1450
COLOURS = 64


def main() -> None:
    """Serve, look, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo-output/model.onnx")
    parser.add_argument("file", nargs="?", default="image.npy")
    parser.add_argument("--size-nm", default="", metavar="HxW")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--out", default=str(Path(__file__).with_name("serving_page.png")))
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    session = Session(options.model, provider="cpu")
    with running({f"stm-{session.metadata.task}": session}) as url, sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="dark" if options.dark else "light"
        )
        page.goto(url)
        page.locator("#card h3").first.wait_for()
        if options.size_nm:
            page.locator("#options summary").click()
            page.fill("#size_nm", options.size_nm)
        page.set_input_files("#file", options.file)
        page.locator("#status", has_text=re.compile("^Answer: ")).wait_for(timeout=120_000)
        shot = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT})
        browser.close()
    # A page has few colours: a palette makes the file a quarter as large.
    picture = Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS)
    picture.save(options.out, optimize=True)
    print(f"{options.out}: {Path(options.out).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
