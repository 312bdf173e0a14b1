"""All benchmarks in one table: one that fails, hangs or says nothing is named, and the others are measured."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GOOD = """
import json, sys
print("a library's own words")
quick = "--quick" in sys.argv
result = {"ratios": {"fast": 12.3456789}, "errors": {"rest": 2e-9}, "detail": {"quick": quick}}
print(json.dumps({"name": "good", "machine": {}, **result}))
"""
HANGING = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(__file__ + ".pid", "w").write(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def run_all(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location("benchmark_run_all", BENCHMARKS / "run_all.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def gone(pid):
    """Wait until a process has ended; an unread exit code counts as ended."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_what_fails_is_named_and_harms_no_other(run_all, tmp_path, capsys):
    folder, out = tmp_path / "them", tmp_path / "out"
    folder.mkdir()
    others = {
        "a_broken": "raise SystemExit('error: no | such thing')",
        "b_silent": "",
        "hanging": HANGING,
        "z_good": GOOD,
    }
    for name, code in {**others, "_helper": "raise SystemExit(1)", "cost": "raise SystemExit(1)"}.items():
        (folder / f"{name}.py").write_text(code)
    assert run_all.main(["--quick", "--minutes", "0.1", "--out", str(out)], folder) == 1
    said = capsys.readouterr()
    made = json.loads((out / "BENCHMARKS.json").read_text())
    found = {result["name"]: result for result in made["results"]}
    assert list(found) == sorted(others)
    assert found["a_broken"]["problem"] == "exit code 1: error: no | such thing"
    assert "no result" in found["b_silent"]["problem"]
    assert found["hanging"]["problem"] == "not done after 0.1 minutes"
    assert found["z_good"]["ratios"] == {"fast": 12.3456789}
    assert found["z_good"]["detail"] == {"quick": True}
    assert made["machine"]["cores"] == os.cpu_count()
    table = (out / "BENCHMARKS.md").read_text()
    assert made["date"] in table
    for row in (
        "| z_good | fast | 12.35 |",
        "|  | rest (error) | 2e-09 |",
        "| a_broken | **failed** | exit code 1: error: no \\| such",
    ):
        assert row in table
    assert table in said.out
    assert "failed: a_broken, b_silent, hanging" in said.err
    assert gone(int((folder / "hanging.py.pid").read_text()))


def test_ended_from_outside_it_leaves_nothing_running(tmp_path):
    (tmp_path / "hanging.py").write_text(HANGING)
    code = "import sys, run_all, pathlib; run_all.main(['--out', sys.argv[1]], pathlib.Path(sys.argv[1]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(BENCHMARKS)}
    )
    noted = tmp_path / "hanging.py.pid"
    for _ in range(1200):
        if noted.exists() and noted.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert gone(int(noted.read_text()))


def test_a_real_benchmark_is_measured(run_all, tmp_path, capsys):
    assert {"fourier", "serving", "training"} <= set(run_all.names(BENCHMARKS))
    assert not run_all.APART & set(run_all.names(BENCHMARKS))
    assert run_all.main(["--quick", "--only", "fourier", "--out", str(tmp_path)]) == 0
    (result,) = json.loads((tmp_path / "BENCHMARKS.json").read_text())["results"]
    assert result["ratios"]["direct_sum"] > 1
    assert "| fourier | direct_sum |" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--only", "no_such"], ["--minutes", "soon"]])
def test_a_wrong_option_is_refused(run_all, words, capsys):
    with pytest.raises(SystemExit) as stop:
        run_all.main(words)
    assert stop.value.code == 2
    assert "error: argument" in capsys.readouterr().err
