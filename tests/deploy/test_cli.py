import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.model.provider import Runtime
from deploy.model.session import Session
from deploy.serving import plan
from deploy.serving.access import Access
from deploy.serving.cli import main
from deploy.serving.compute import Schedule
from deploy.serving.limits import Limits
from deploy.serving.listening import Tls
from deploy.serving.options import options, plan_from
from deploy.serving.plan import Plan
from deploy.serving.server import serve
from stm_models.errors import InputError

TOKEN = "a-long-random-word"


def test_a_port_in_use_is_a_one_line_error(model_file, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main([str(model_file), "--port", str(port), "--provider", "cpu"]) == 2
    assert capsys.readouterr().err == (f"error: port {port} on 127.0.0.1 is in use; give another with --port\n")


def test_a_package_that_is_missing_is_named(tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('no', name='onnxruntime.capi')")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.serving.cli", "model.onnx"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == "error: stm-serve needs the package 'onnxruntime': install stm-lab[serve]\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "needs a token and TLS"),
        (["--host", "0.0.0.0", "--token-file", "TOKEN"], "needs TLS"),
        (["--tls-cert", "a.pem"], "belong together"),
        (["--tls-cert", "absent.pem", "--tls-key", "absent.pem"], "cannot use the certificate absent.pem"),
        (["--tls-cert", "", "--tls-key", ""], "--tls-cert is ''"),
        (["--tls-cert", "a.pem", "--tls-key", ""], "--tls-key is ''"),
        (["--workers", "0"], "--workers is 0"),
        (["--batch-rows", "0"], "batch-rows is 0"),
        (["--batch-delay-ms", "-1"], "batch-delay is -1 ms"),
        (["--queue-rows", "0"], "queue_rows is 0"),
        (["--rate", "-2"], "rate is -2"),
        (["--poll-seconds", "-1"], "--poll-seconds is -1"),
        (["--poll-seconds", "nan"], "--poll-seconds is nan"),
        (["--poll-seconds", "inf"], "--poll-seconds is inf"),
        (["--max-body-mb", "nan"], "--max-body-mb is nan"),
        (["--max-body-mb", "inf"], "--max-body-mb is inf"),
        (["--timeout", "inf"], "request_seconds is inf"),
        (["--threads", "0"], "threads is 0, expected at least 1\n"),
        (["models:/stm-hubbard@champion"], "stm-serve takes .onnx files"),
        (["--port", "70000"], "port is 70000"),
        (
            ["--port", "1", "--host", "192.0.2.1", "--insecure"],
            "cannot listen on port 1 of 192.0.2.1",
        ),
        (["--host", "no such host", "--insecure"], "no address of this machine"),
        (["--name", "a/b"], "cannot stand in an address"),
        (["--provider", "tpu"], "choose from auto, cpu, cuda"),
        (["--allow-host", "stm.example:8443"], "--allow-host is 'stm.example:8443', expected a name or an address"),
        (["--allow-host", "https://stm.example"], "--allow-host is 'https://stm.example'"),
        (["--allow-host", "stm.example/"], "--allow-host is 'stm.example/'"),
        (["--allow-host", "[::1]:8443"], "--allow-host is '[::1]:8443'"),
        (["--allow-host", "*"], "--allow-host is '*'"),
        (["--allow-host", ""], "--allow-host is ''"),
        (["--token-file", ""], "--token-file is ''"),
        (["--token-file", "absent"], "cannot read the token file"),
        (["--token-file", os.devnull], "is empty"),
    ],
)
def test_bad_options_are_one_line_and_exit_2(model_file, tmp_path, capsys, options, message):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    options = [str(token) if option == "TOKEN" else option for option in options]
    assert main([str(model_file), *options]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert message in error
    assert "Traceback" not in error


def test_every_option_has_its_place_in_the_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(Tls, "__post_init__", lambda self: None)  # which reads the files
    (tmp_path / "token").write_text(TOKEN)
    values = [
        "--name", "n", "--host", "192.0.2.7", "--port", "81", "--examples", "maps", "--poll-seconds", "3",
        "--provider", "cuda", "--allow-cpu", "--tf32", "--threads", "5", "--runs", "6", "--workers", "2",
        "--batch-rows", "7", "--batch-delay-ms", "8", "--token-file", str(tmp_path / "token"), "--tls-cert",
        "cert.pem", "--tls-key", "key.pem", "--insecure", "--allow-host", "one", "--allow-host", "two", "--rate", "9",
        "--max-rows", "10", "--max-body-mb", "0.5", "--queue-rows", "11", "--timeout", "12", "--body-timeout", "13",
    ]  # fmt: skip
    parser = argparse.ArgumentParser()
    options(parser)
    given = parser.parse_args(values)
    # Each is another than when it is left out.
    usual = vars(parser.parse_args([]))
    assert [name for name, value in vars(given).items() if value == usual[name]] == []
    found = plan_from(given)
    assert found == Plan(
        access=Access("192.0.2.7", 81, TOKEN, Tls("cert.pem", "key.pem"), True, ("one", "two")),
        limits=Limits(body_bytes=2**19, rows=10, queue_rows=11, body_seconds=13.0, request_seconds=12.0, rate=9.0),
        schedule=Schedule(runs=6, batch_rows=7, batch_seconds=0.008),
        runtime=Runtime("cuda", 5, allow_cpu=True, tf32=True),
        examples="maps",
        poll_seconds=3.0,
        workers=2,
    )
    served = {}
    monkeypatch.setattr(plan, "Session", lambda path, **how: (path, how))
    monkeypatch.setattr(plan, "serve", lambda catalog, **how: served.update(how))
    how = {"provider": "cuda", "threads": 5, "allow_cpu": True, "tf32": True}
    assert found.open(Path("m.onnx")) == (Path("m.onnx"), how)
    found.serve(None)
    assert {name: value for name, value in served.items() if value is not None} == {
        "access": found.access, "limits": found.limits, "schedule": found.schedule, "examples": "maps",
    }  # fmt: skip


@pytest.mark.parametrize(("megabytes", "together"), [("64", 512), ("256", 512), ("600", 1200)])
def test_there_is_room_for_two_of_the_largest_bodies(megabytes, together):
    parser = argparse.ArgumentParser()
    options(parser)
    limits = plan_from(parser.parse_args(["--max-body-mb", megabytes])).limits
    assert (limits.body_bytes, limits.total_bytes) == (int(megabytes) * 2**20, together * 2**20)


def test_a_body_for_which_there_can_be_no_room_is_refused():
    with pytest.raises(InputError, match="body_bytes is 11, expected at most total_bytes, which is 10"):
        Limits(body_bytes=11, total_bytes=10)
    assert Limits(body_bytes=10, total_bytes=10).body_bytes == 10


def test_a_missing_model_file_is_one_line_and_exit_2(tmp_path):
    command = [sys.executable, "-m", "deploy.serving.cli", str(tmp_path / "absent.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot read the model file")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("token", ["", "two words", "käse"])
def test_a_token_that_no_header_can_carry_is_refused(model_file, token):
    session = Session(model_file, provider="cpu", threads=1)
    with pytest.raises(InputError, match="token"):
        serve({"m": session}, port=0, token=token)


def test_no_models_is_refused():
    with pytest.raises(InputError, match="no model to serve"):
        serve({}, port=0)


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from deploy.serving.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'onnxruntime', 'numpy', 'starlette'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_the_serving_half_imports_no_training_stack():
    code = (
        "import deploy.serving.server, deploy.model.session, deploy.serving.cli, deploy.client, sys\n"
        "assert not {'torch', 'mlflow', 'onnx', 'scipy', 'zarr'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
