"""Every command that README and docs show is run, in the folder of a demo."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"```sh\n(.*?)```", re.S)
# What CI itself runs (make) and what has a test of its own (mlflow, behind its PATH).
ELSEWHERE = {"make", 'PATH=".venv/bin:$PATH"'}
SERVERS = {"serve", "compare"}
# Needs another distribution installed: test_own_task.py runs it.
APART = "own_task.md"


def lines():
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]:
        for block in BLOCK.findall(path.read_text()):
            for line in block.strip().splitlines():
                yield pytest.param(line.split("#")[0].strip(), id=f"{path.name}: {line[:60]}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tutorial_goes_through_in_an_empty_folder(tmp_path, clean):
    shown = [line.split()[1:] for block in BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())
             for line in block.splitlines() if line.startswith(".venv/bin/stm")]  # fmt: skip
    assert {words[0] for words in shown} >= {"simulate", "train", "tune", "promote", "evaluate", "predict", "explain"}
    for words in shown:
        promotes = words[0] == "promote"
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", *words, *["--json"] * promotes], cwd=tmp_path, env=clean,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, (words, done.stderr)
        assert not promotes or json.loads(done.stdout)["promoted"], done.stdout  # as the page says


@contextmanager
def _killed_after(process, seconds):
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    yield
    timer.cancel()


def test_there_is_something_to_run():
    commands = [parameter.values[0].split() for parameter in lines()]
    assert len([words for words in commands if words[0] == ".venv/bin/stm"]) >= 10
    assert {words[0] for words in commands} <= {".venv/bin/stm", ".venv/bin/python", *ELSEWHERE}
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert {words[1] for words in commands if words[0] == "make"} <= targets


def test_named_files_exist():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
    folders = "tests|benchmarks|examples|configs|stm_models|tracking|deploy|pipelines"
    path = re.compile(rf"(?<![\w/.-])(?:{folders})/[\w/]+(?:\.\w+)?")
    named = {one for page in pages for one in path.findall(page.read_text())}
    assert len(named) >= 30
    assert "deploy/serving" in named
    assert {one for one in named if not (ROOT / one).exists()} == {"benchmarks/NAME.py"}  # stands for any


@pytest.mark.parametrize(
    "line", [p for p in lines() if p.values[0].startswith(".venv/bin/stm") and not p.id.startswith(APART)]
)
def test_command_runs_as_written(line, command, clean, demo, as_before):  # one of them promotes
    words = shlex.split(line)[1:]
    if words[0] not in SERVERS:
        code, _, err = command(*words)
        assert code == 0, err
        return
    if "--port" in words:
        words[words.index("--port") + 1] = "0"
    else:
        words += ["--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", *words], cwd=demo.folder, env=clean, stderr=subprocess.PIPE, text=True
    )
    # A server that never says so is killed, which ends the loop.
    with _killed_after(process, 300):
        ready = any("ready: http://127.0.0.1:" in heard for heard in iter(process.stderr.readline, ""))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    process.stderr.close()
    assert ready


@pytest.mark.parametrize("path", ["README.md", *(f"docs/{name}.md" for name in ("comparing", "tutorial", "serving"))])
def test_links_lead_somewhere(path):
    source = ROOT / path
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", source.read_text()):
        assert (source.parent / target).exists(), target
