"""What `mkdocs` adds to the pages of this folder: README as the start, and the reference from docstrings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stm_models", "pipelines", "tracking", "deploy")
BESIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the reference of the navigation, a section per package."""
    sections = [{top: [{name: _page(name)} for name in _modules() if name.split(".")[0] == top]} for top in PACKAGES]
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = sections
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages that no file of this folder is the source of."""
    for source, page in BESIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, there in BESIDE.items():
            text = text.replace(f"]({other})", f"]({there})")
        files.append(File.generated(config, page, content=text))
    for name, modules in _modules().items():
        parts = "\n\n".join(f"::: {module}" for module in modules)
        files.append(File.generated(config, _page(name), content=f"# {name}\n\n{parts}\n"))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files of the checkout that the site has not, instead of leading nowhere."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def _page(package: str) -> str:
    return f"reference/{package}.md"


def _modules() -> dict[str, list[str]]:
    """Modules with a docstring and public names, by package."""
    found: dict[str, list[str]] = {}
    for top in PACKAGES:
        for path in sorted((ROOT / top).rglob("*.py")):
            if path.name != "__main__.py" and "__all__ = [" in path.read_text(encoding="utf-8"):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                package = module.rpartition(".")[0]
                found.setdefault(package, []).append(module.removesuffix(".__init__"))
    return found
