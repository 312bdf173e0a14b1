"""Who may ask: certificates, tokens, hosts and origins, and what a client's words can reach."""

import socket
import ssl
import subprocess
import sys
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.client import Client
from deploy.model.session import Session
from deploy.serving import listening
from deploy.serving.access import Access
from deploy.serving.cli import main
from deploy.serving.listening import Tls
from deploy.serving.protocol import HEADER, encode_request
from deploy.serving.refusals import Refused
from deploy.serving.security import Guard
from deploy.serving.server import running
from stm_models.errors import InputError
from support import http_asking as asking
from support import own_certificate

ask, raw, error_of = asking.ask, asking.raw, asking.error_of
BODY, LENGTH, POST = asking.BODY, asking.LENGTH, asking.POST


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return own_certificate.write(tmp_path_factory.mktemp("tls"))


def test_https_with_a_certificate_that_is_checked(session, tls, toy):
    images = toy.images(2)
    with running({"m": session}, tls=tls, token="secret-word") as url:
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(tls.certificate))
        assert ask(url, "GET", "/v2", context=trusting)[0] == 401
        client = triton.InferenceServerClient(
            urlsplit(url).netloc, ssl=True, ssl_context_factory=lambda: trusting, insecure=False
        )
        value = triton.InferInput("image", list(images.shape), "FP32")
        value.set_data_from_numpy(images)
        answer = client.infer("m", [value], headers={"Authorization": "Bearer secret-word"})
        np.testing.assert_allclose(
            answer.as_numpy("prediction"), toy.expected(images)["prediction"], rtol=1e-4, atol=1e-4
        )
        client.close()
        assert b"HTTP" not in raw(url, b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_who_speaks_no_tls_is_let_go(session, tls, monkeypatch):
    monkeypatch.setattr(listening, "_HANDSHAKE_SECONDS", 0.5)
    with running({"m": session}, tls=tls) as url:
        address = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_connection(address, timeout=20) as mute:
            began = time.monotonic()
            assert mute.recv(100) == b""
        assert 0.3 < time.monotonic() - began < 10
        trusting = ssl.create_default_context(cafile=str(tls.certificate))
        assert ask(url, "GET", "/ping", context=trusting)[0] == 200


def test_a_body_that_is_refused_while_it_is_still_sent_over_https(session, tls):
    images = np.zeros((50_000, *session.metadata.input.shape), np.float32)
    with running({"m": session}, tls=tls, max_body_bytes=10_000, max_rows=10**6) as url:
        client = Client(url, "m", cafile=tls.certificate)
        for _ in range(3):
            with pytest.raises(InputError, match="answered 413: the body is larger than 10000 bytes"):
                client.infer(images)


def test_a_certificate_and_a_key_must_belong_together(tls, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    with pytest.raises(InputError, match=r"two PEM files that belong together"):
        Tls(tls.certificate, other)


def test_behind_a_proxy_that_keeps_the_host_and_one_that_does_not():
    """As docs/deployment.md says: Host kept, with its port, and its name allowed."""
    page = b"https://stm.example:8443"
    allowing = Guard(Access(names=["stm.example"]).hosts)
    for guard, host, refused in (
        (allowing, b"stm.example:8443", None),
        (Guard(Access().hosts), b"stm.example:8443", "Host"),
        (allowing, b"127.0.0.1:8080", "Origin"),  # nginx's own way
        (allowing, b"stm.example", "Origin"),
    ):
        headers = {b"host": host, b"origin": page}
        scope = {"path": "/v2/models/m/ask", "headers": list(headers.items())}
        if refused is None:
            guard.check(scope, headers)
            continue
        with pytest.raises(Refused) as told:
            guard.check(scope, headers)
        assert told.value.status_code == 403
        assert told.value.detail.startswith(f"the {refused} header")


@pytest.mark.parametrize(
    ("access", "hosts"),
    [
        (Access(names=["stm.example."]), ["stm.example", "STM.example.:8443", "localhost."]),
        (Access(names=["fd00:0::7"]), ["[fd00::7]", "[fd00::7]:8443", "[FD00:0:0::7]"]),
        (Access(names=["[fd00::7]", "a_b-c"]), ["[fd00::7]", "a_b-c:1"]),
        (Access("::1"), ["[::1]:8080", "[0:0:0:0:0:0:0:1]", "127.0.0.1"]),
        (Access("0:0:0:0:0:0:0:1"), ["[::1]:8080"]),
        (Access("0.0.0.0", insecure=True, names=["stm.example"]), ["stm.example"]),
    ],
)
def test_names_of_the_host_are_compared_however_they_are_spelt(access, hosts):
    guard = Guard(access.hosts, probed=access.probed)

    def asked(path, host):
        try:
            guard.check({"path": path, "headers": [(b"host", host)]}, {b"host": host})
        except Refused as told:
            return told.status_code
        return 200

    assert [asked("/v2", host.encode()) for host in hosts] == [200] * len(hosts)
    for host in (b"10.0.0.5:8443", b"stm.example.evil", b"[::2]", b"fd00::7", b"", b"."):
        assert asked("/v2", host) == 403, host
    # As what probes a container does.
    for path in ("/v2/health/ready", "/v2/health/live", "/ping"):
        assert asked(path, b"10.0.0.5:8443") == (200 if access.host == "0.0.0.0" else 403)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a token and TLS"),
        ({"token": "t"}, "needs TLS"),
        ({"tls": True}, "needs a token"),
    ],
)
def test_an_address_for_others_needs_token_and_tls(tls, options, message):
    given = {**options, **({"tls": tls} if "tls" in options else {})}
    with pytest.raises(InputError, match=message):
        Access("0.0.0.0", **given)
    assert Access("0.0.0.0", insecure=True, **given).hosts is None
    assert Access("0.0.0.0", token="t", tls=tls, names=["stm.example"]).hosts[-1] == "stm.example"
    assert Access("127.0.0.1").hosts == ("127.0.0.1", "localhost", "::1", "127.0.0.1")


@pytest.mark.parametrize(
    ("given", "right"),
    [
        *((scheme + b" t-0", True) for scheme in (b"Bearer", b"bearer", b"BEARER", b"Bearer ")),
        *(
            (word, False)
            for word in (b"", b"t-0", b"Basic t-0", b"Bearer", b"Bearer ", b"Bearer T-0", b"Bearer t-0 t-0")
        ),
        *(
            (word, False)
            for word in (b"Bearert-0", b"Bearer t-0x", b"Bearer Bearer t-0", b"Bearer\tt-0", b"bearer \xff")
        ),
    ],
)
def test_the_scheme_of_a_token_is_taken_however_it_is_written(given, right):
    """RFC 9110, 11.1: schemes have no case."""
    headers = {b"host": b"localhost", b"authorization": given}
    scope = {"path": "/v2", "headers": list(headers.items())}
    guard = Guard(token="t-0")
    if right:
        guard.check(scope, headers)
        return
    with pytest.raises(Refused) as told:
        guard.check(scope, headers)
    assert told.value.status_code == 401


def test_every_answer_carries_the_security_headers(session):
    with running({"m": session}) as url:
        for method, path, body in (("GET", "/v2", None), ("GET", "/nowhere", None), ("POST", "/invocations", b"{")):
            _, _, headers = ask(url, method, path, body)
            assert headers["content-security-policy"].startswith("default-src 'self'")
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-content-type-options"] == "nosniff"
            assert "access-control-allow-origin" not in headers
            assert "server" not in headers
        _, _, headers = ask(url, "POST", "/v2/models/m/infer", BODY, {HEADER: str(LENGTH)})
        assert headers["x-content-type-options"] == "nosniff"


def test_pages_of_other_sites_may_not_ask(session):
    with running({"m": session}) as url:
        netloc = urlsplit(url).netloc
        good = {HEADER: str(LENGTH), "Origin": f"http://{netloc}"}
        for _ in range(12):  # the short way too
            assert ask(url, "POST", "/v2/models/m/infer", BODY, good)[0] == 200
            for origin in ("http://evil.example", "null", f"http://{netloc}.evil.example", "http://127.0.0.1:1"):
                status, answer, _ = ask(url, "POST", "/v2/models/m/infer", BODY, {**good, "Origin": origin})
                assert status == 403, origin
                assert b"Origin" in answer


def test_a_clients_words_do_not_write_the_log(model_file, capfd):
    class Broken(Session):
        def run(self, image, outputs=("prediction",)):
            raise RuntimeError("first line\nERROR forged line \x1b[31m")

    from deploy.serving.logs import log_to_stderr

    log_to_stderr()
    with running({"m": Broken(model_file, provider="cpu", threads=1)}) as url:
        assert ask(url, "POST", "/v2/models/m/infer", BODY, {HEADER: str(LENGTH)})[0] == 500
    said = capfd.readouterr().err
    assert "\nERROR forged" not in said
    assert "\x1b" not in said


def test_the_server_needs_no_right_to_write_where_its_models_are(model_file, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(model_file.read_bytes())
    folder.chmod(0o555)
    (folder / "m.onnx").chmod(0o444)
    try:
        with running({"m": Session(folder / "m.onnx", provider="cpu", threads=1)}) as url:
            assert ask(url, "POST", "/v2/models/m/infer", BODY, {HEADER: str(LENGTH)})[0] == 200
        assert [path.name for path in folder.iterdir()] == ["m.onnx"]
    finally:
        folder.chmod(0o755)


def test_options_reach_the_server(model_file, tmp_path):
    """``--max-rows``, ``--max-body-mb``, ``--rate`` and ``--allow-host``, in a process of its own that others reach."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.serving.cli", f"m={model_file}", "--port", "0", "--provider", "cpu",
         "--max-rows", "2", "--max-body-mb", "0.01", "--rate", "100", "--allow-host", "stm.example",
         "--host", "0.0.0.0", "--insecure"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        url = next(line for line in process.stderr if line.startswith("ready:")).split()[1]
        url = url.replace("0.0.0.0", "127.0.0.1")
        body, length = encode_request(np.ones((3, 2, 4, 5), np.float32), ["prediction"])
        assert b"at most 2" in ask(url, "POST", "/v2/models/m/infer", body, {HEADER: str(length)})[1]
        assert ask(url, "POST", "/v2/models/m/infer", b"x" * 20_000)[0] == 413
        assert ask(url, "GET", "/v2", headers={"Host": "stm.example"})[0] == 200
        assert ask(url, "GET", "/v2", headers={"Host": "other.example"})[0] == 403
        assert ask(url, "GET", "/v2/health/ready", headers={"Host": "10.0.0.5:8443"})[0] == 200
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert main([str(model_file), "--max-body-mb", "0"]) == 2


@pytest.mark.parametrize("limit", ["max_body_bytes", "max_rows"])
def test_a_limit_of_nothing_is_refused_and_not_the_default(model_file, limit):
    with pytest.raises(InputError, match="is 0, expected"), running({"m": Session(model_file)}, **{limit: 0}):
        pass
