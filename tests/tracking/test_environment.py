from __future__ import annotations

import importlib.metadata
import os
import platform

from tracking.environment import describe


def test_versions_machine_and_seeds():
    found = describe({"split": 1})
    assert found["python"] == platform.python_version()
    assert found["packages"]["numpy"] == importlib.metadata.version("numpy")
    assert found["cpu"]["model"]
    assert 0 < found["memory_gb"] < 1e5
    assert found["seeds"] == {"split": 1}


def test_a_command_is_recorded_without_its_passwords(monkeypatch):
    address = "postgresql://stm:SECRET@db/stm"
    monkeypatch.setattr("sys.argv", ["/bin/stm", "tune", "hubbard", "--storage", address, f"--storage={address}"])
    hidden = "postgresql://stm:***@db/stm"
    assert describe()["command"] == ["stm", "tune", "hubbard", "--storage", hidden, f"--storage={hidden}"]


def test_gpus_as_the_driver_lists_them(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771, 570.1'\necho 'NVIDIA X, [N/A], 570.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert describe()["gpu"] == [
        {"name": "NVIDIA H200", "memory_mb": 143771, "driver": "570.1"},
        {"name": "NVIDIA X", "memory_mb": None, "driver": "570.1"},
    ]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert describe()["gpu"] == []
