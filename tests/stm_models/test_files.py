"""Files that are written whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stm_models import files
from stm_models.files import atomic_path


@pytest.fixture
def umask():
    """Set the umask, and put it back in the end."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode_of(path):
    with atomic_path(path):
        pass
    return path.stat().st_mode & 0o777


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc")
def test_a_file_has_the_mode_that_the_umask_says_which_no_other_thread_sees_changed(umask, tmp_path, monkeypatch):
    umask(0o027)
    monkeypatch.setattr(files.os, "umask", lambda mask: pytest.fail("the umask of all threads is changed"))
    assert mode_of(tmp_path / "a") == 0o640


def test_a_system_without_proc_gives_files_the_same_mode(umask, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "Path", lambda path: tmp_path / "none" if path == "/proc/self/status" else Path(path))
    umask(0o077)
    assert mode_of(tmp_path / "a") == 0o600
    assert umask(0o022) == 0o077


def test_the_identity_of_values_never_changes():
    known = "c912a251d940de4350b8f9d331742e45e769a5405686ca7bbaf7a143c523ae99"  # of {"a": [2.5, null], "b": 1}
    assert files.sha256_of_json({"b": 1, "a": [2.5, None]}) == known
