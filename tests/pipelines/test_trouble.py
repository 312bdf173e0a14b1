"""A full or a protected disk, whoever notices it, and a tracking store that refuses."""

import errno
import io
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from deploy.exporting.errors import ExportError
from pipelines import cli, trouble
from tracking.backend import MlflowException, RestException


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b.onnx"), "no space left writing /a/b.onnx"),
        (OSError(errno.EFBIG, "File too large"), "no space left writing a file"),
        (caused(RuntimeError("cannot log"), sqlite3.OperationalError("database or disk is full")), "no space left"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "no space left"),
        (OSError("1024 requested and 992 written"), "no space left"),  # numpy's
        (UnicodeEncodeError("utf-8", "\udcc3", 0, 1, "surrogates not allowed"), "PYTHONUTF8=1"),
        (PermissionError(errno.EACCES, "Permission denied", "/a"), "/a: Permission denied; choose a place"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), "longer than the file system allows"),
        (
            caused(ValueError("x"), sqlite3.OperationalError("attempt to write a readonly database")),
            "cannot be written",
        ),
        (
            RestException({"error_code": "PERMISSION_DENIED", "message": "Permission denied"}),
            "the tracking store refuses: PERMISSION_DENIED: Permission denied; run the same command again",
        ),
        (requests.HTTPError("403 Client Error: FORBIDDEN"), "the tracking store refuses: 403 Client Error"),
        (caused(KeyError("run"), MlflowException("API request to http://me:***@h failed")), "store refuses: API"),
        (caused(MlflowException("x"), sqlite3.OperationalError("database or disk is full")), "no space left"),
    ],
)
def test_told_in_one_line(error, words, monkeypatch, capsys):
    def fail(command, arguments):
        raise error

    assert words in trouble.told(error)
    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["models"]) == 2
    assert words in capsys.readouterr().err


def test_a_password_is_not_told():
    assert "secret" not in str(trouble.told(MlflowException("API request to http://me:secret@host/api failed")))


def test_everything_else_stays_an_error(monkeypatch):
    def fail(command, arguments):
        raise ZeroDivisionError("a fault of ours")

    assert trouble.told(caused(RuntimeError("x"), ValueError("y"))) is None
    monkeypatch.setattr(cli, "_run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["models"])


def test_a_letter_that_the_locale_has_not_is_no_reason_to_fail(monkeypatch):
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", plain)
    monkeypatch.setattr(cli, "_overview", lambda: "±1 eV")
    assert cli.main([]) == 0
    plain.flush()
    assert plain.buffer.getvalue() == b"?1 eV\n"


def ended(command, folder):
    """Run ``stm`` as a shell does that lacks something."""
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        ["sh", "-c", command.replace("stm", f"'{sys.executable}' -P -m pipelines")],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(root), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
    )  # fmt: skip


def test_with_standard_error_closed_commands_end_as_where_it_goes_nowhere(tmp_path):
    done = ended("stm models linear 2>&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "linear" in done.stdout
    refused = ended("stm models linaer 2>&-", tmp_path)
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", "")


@pytest.mark.parametrize(
    "command",
    [["doctor"], ["simulate", "hubbard", "--out", "a.zarr"], ["lineage", "a.onnx"]],
    ids=lambda words: words[0],
)
def test_a_working_directory_that_was_removed_is_told(command, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert trouble.told(FileNotFoundError(errno.ENOENT, "No such file or directory", "a")) is None
    folder.rmdir()
    assert cli.main(command) == 2
    assert capsys.readouterr().err == (
        "error: the working directory was removed: change to one that exists and run the same command again\n"
    )


def test_a_failed_export_is_told_without_a_traceback(monkeypatch, capsys):
    def fail(command, arguments):
        raise ExportError("maps differ:\ngradient 0.1")

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["export"]) == 1
    assert capsys.readouterr() == ("", "error: maps differ:\ngradient 0.1\n")
