"""The documentation as a site: no warning, every page, the reference from docstrings, nothing from elsewhere."""

from __future__ import annotations

import html
import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Seen(HTMLParser):
    """Addresses that a page loads or leads to, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded, self.links, self.anchors = [], [], set()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") == "stylesheet":
            self.loaded.append(found["href"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get("id"):
            self.anchors.add(found["id"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = {}
    for path in site.rglob("*.html"):
        found[path.relative_to(site)] = Seen()
        found[path.relative_to(site)].feed(path.read_text(encoding="utf-8"))
    return found


def test_every_page_of_docs_is_there_and_in_the_navigation(site, pages):
    start = {link.split("#")[0] for link in pages[Path("index.html")].links}
    for path in (ROOT / "docs").glob("*.md"):
        assert f"{path.stem}.html" in start, path.name
    assert {"contributing.html", "changelog.html", "reference/stm_models.tasks.html"} <= start
    assert (ROOT / "README.md").read_text().splitlines()[0].removeprefix("# ") in (site / "index.html").read_text()


def test_no_link_leads_nowhere(site, pages):
    for page, seen in pages.items():
        if page.name == "404.html":  # may be shown at any address
            continue
        for address in seen.links + seen.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (site / page.parent / parts.path).resolve() if parts.path else site / page
            assert target.exists(), f"{page}: {address}"
            if parts.fragment and target.suffix == ".html":
                anchors = pages[target.relative_to(site.resolve())].anchors
                assert parts.fragment in anchors, f"{page}: {address}"


def test_nothing_is_loaded_from_elsewhere(pages):
    for page, seen in pages.items():
        assert [address for address in seen.loaded if urlsplit(address).netloc] == [], page


def test_the_reference_has_every_public_name(site, pages):
    anchors = set().union(*(seen.anchors for page, seen in pages.items() if page.parent.name == "reference"))
    for top in ("stm_models", "tracking", "deploy", "pipelines"):
        for path in (ROOT / top).rglob("*.py"):
            listed = re.search(r"^__all__ = \[(.*?)\]", path.read_text(encoding="utf-8"), re.S | re.M)
            if listed and path.stem not in ("__init__", "__main__"):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                assert module in anchors, module


@pytest.mark.parametrize("name", ["stm_models.tasks.base.Task", "stm_models.plugins.load", "deploy.client.Client"])
def test_the_reference_says_what_the_docstring_says(site, name):
    module, _, kind = name.rpartition(".")
    first = getattr(importlib.import_module(module), kind).__doc__.splitlines()[0]
    page = (site / "reference" / f"{module.rpartition('.')[0]}.html").read_text(encoding="utf-8")
    _, _, after = page.partition(f'id="{name}"')
    plain = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", after)))[:3000]
    assert first.split(";")[0].replace("``", "").replace("`", "") in plain


def test_the_page_on_clusters_repeats_the_measured_cost():
    (measured,) = re.findall(r"^\| paper, 100,000 samples \|(.+)\|$", (ROOT / "docs/cost.md").read_text(), re.MULTILINE)
    rate, hours, size = (float(cell.replace(",", "")) for cell in measured.split("|")[2:])
    states = re.findall(r"^\| paper \|(.+)\|$", (ROOT / "docs/cost.md").read_text(), re.MULTILINE)
    seconds = float(states[0].split("|")[6])
    text = (ROOT / "docs/cluster.md").read_text()
    cells = text.split("<!-- cost")[1].split("<!-- end")[0].splitlines()[-1].split("|")[1:-1]
    said = [float(re.sub("[^0-9.]", "", cell)) for cell in cells]
    chain = 61 * seconds / 60
    wanted = [seconds, rate, hours, max(hours * 60 / 110, chain), max(hours * 60 / 328, chain), size]
    assert said == pytest.approx(wanted, rel=0.03)
