"""The names under which the comparison page answers."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from starlette.testclient import TestClient

from pipelines import compare
from pipelines.cli import main


@pytest.mark.parametrize("command", [["compare"], ["serve", "absent.onnx"]])
def test_a_token_file_without_a_name_is_no_leave_to_go_without(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(compare, "listen", lambda host, port: pytest.fail("it opened"))
    assert main([*command, "--token-file", ""]) == 2
    assert capsys.readouterr().err.startswith("error: --token-file is ''")


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", ["127.0.0.1:8081", "localhost", "LOCALHOST:8081", "[::1]:8081"]),
        ("127.0.0.2", ["127.0.0.2:8081", "127.0.0.1"]),
        ("0:0:0:0:0:0:0:1", ["[::1]:8081", "[0:0:0:0:0:0:0:1]:8081", "[0::1]"]),
    ],
)
def test_it_answers_under_the_host_that_it_was_given(tmp_path, monkeypatch, host, names):
    apps = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr(compare, "listen", lambda host, port: (nullcontext(), f"http://{host}:{port}"))
    monkeypatch.setattr(compare, "until_signal", lambda app, listener, ready: apps.append(app))
    assert main(["compare", "--host", host]) == 0
    page = TestClient(apps[0])
    assert [page.get("/", headers={"Host": name}).status_code for name in names] == [200] * len(names)
    for name in ("evil.example", "127.0.0.3", "[::2]", ""):
        assert page.get("/", headers={"Host": name}).status_code == 403, name
