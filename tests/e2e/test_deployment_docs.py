"""What docs/deployment.md shows in bash and Python is run as it stands, against a server of the demo's model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.model.session import Session
from deploy.serving.server import running

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text()
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.S)
SAID = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def url(demo):
    with running({"stm-hubbard": Session(demo.onnx, provider="cpu", threads=1)}) as url:
        yield url


def test_every_example_runs_in_its_order(demo, clean, url):
    assert [kind for kind, _ in BLOCKS].count("bash") == 2
    assert [kind for kind, _ in BLOCKS].count("python") == 2
    said = {"bash": "", "python": ""}
    for kind, code in BLOCKS:
        command = ["bash", "-euc", code] if kind == "bash" else [sys.executable, "-c", code]
        command[-1] = command[-1].replace(SAID, url)
        done = subprocess.run(command, cwd=demo.folder, env=clean, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, (code, done.stderr)
        said[kind] += done.stdout
    found = json.loads((demo.folder / "answer.json").read_text())
    assert found["words"].startswith("U = ")
    assert found["words"] in said["python"]
    assert "ready" in said["bash"]
    assert json.loads((demo.folder / "model.json").read_text())["name"] == "stm-hubbard"


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", TEXT))
def test_links_lead_somewhere(target):
    assert (ROOT / "docs" / target).exists()
