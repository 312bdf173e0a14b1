"""The recipes of deployments: what they name exists, what they start can start, and they give away no right."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.model.session import Session
from deploy.serving import cli, listening, workers
from deploy.serving.access import Access
from deploy.serving.limits import Limits
from deploy.serving.security import OPEN_PATHS
from deploy.serving.server import running
from support import own_certificate

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "deploy" / "recipes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def accepts(arguments):
    """The server's own command line takes these, and lets such a server listen."""
    parsed = cli._parser().parse_args(arguments)
    assert parsed.port > 1024
    assert parsed.token_file
    tls = object() if parsed.tls_cert and parsed.tls_key else None  # their files are not on this machine
    Access(parsed.host, parsed.port, "a-token", tls, parsed.insecure)
    return parsed


def no_foreign_host(text):
    for line in text.splitlines():
        assert not re.search(r"https?://(?!127\.0\.0\.1)|\b[\w-]+\.(?:io|com|org)/", line.partition("#")[0]), line


@pytest.fixture(scope="module")
def dockerfile():
    text = (RECIPES / "Dockerfile").read_text()
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]


def test_the_dockerfile_copies_what_there_is(dockerfile):
    kept = {line[1:] for line in (RECIPES / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    copied = set()
    for word, rest in dockerfile:
        if word == "COPY" and not rest.startswith("--from="):
            *sources, _ = rest.split()
            copied.update(sources)
    for source in copied:
        assert (ROOT / source).exists(), source
    assert copied == kept
    roots = {name.partition(".")[0] for name in PROJECT["tool"]["setuptools"]["packages"]}
    assert roots <= copied
    assert set(PROJECT["tool"]["setuptools"]["package-dir"].values()) <= copied
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied


def test_the_image_runs_as_nobody_and_starts_the_server(dockerfile):
    said = dict(dockerfile)
    assert [rest for word, rest in dockerfile if word == "FROM"] == ["python:3.11-slim AS build", "python:3.11-slim"]
    uid, gid = map(int, said["USER"].split(":"))
    assert min(uid, gid) > 0
    entry = yaml.safe_load(said["ENTRYPOINT"])
    assert Path(entry[0]).name in PROJECT["project"]["scripts"]
    parsed = accepts(yaml.safe_load(said["CMD"]))
    assert str(parsed.port) == said["EXPOSE"]
    assert any(f":{parsed.port}{path}'" in said["HEALTHCHECK"] for path in OPEN_PATHS)
    words = [word for word, _ in dockerfile]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert "ADD" not in words
    no_foreign_host((RECIPES / "Dockerfile").read_text())


@pytest.mark.parametrize("scheme", ["http", "https", None])
def test_the_image_is_healthy_with_and_without_tls(dockerfile, model_file, tmp_path, scheme):
    _, command = dict(dockerfile)["HEALTHCHECK"].split(" CMD ")
    python = "/opt/stm/bin/python"
    assert python in command

    # A container often has its builder's proxies in its environment.
    proxies = dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"), "http://127.0.0.1:9"
    )
    environment = {**os.environ, **proxies, "no_proxy": "", "NO_PROXY": ""}

    def healthy(port):
        here = command.replace(python, shlex.quote(sys.executable)).replace(":8080/", f":{port}/")
        done = subprocess.run(["sh", "-c", here], env=environment, capture_output=True, timeout=60, check=False)
        return done.returncode

    if scheme is None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            assert healthy(nobody.getsockname()[1]) == 1
        return
    session = Session(model_file, provider="cpu", threads=1)
    tls = own_certificate.write(tmp_path) if scheme == "https" else None
    with running({"m": session}, token="a-token", tls=tls) as url:
        assert url.startswith(f"{scheme}://")
        assert healthy(urlsplit(url).port) == 0


def test_the_pins_without_hashes_are_the_pins():
    done = subprocess.run(["sh", ROOT / "bin" / "serve-pins"], capture_output=True, text=True, check=True)
    pins = [line for line in done.stdout.splitlines() if "==" in line]
    locked = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if re.match(r"[\w.\[\]-]+==", line)
    ]
    assert [pin.strip() for pin in pins] == [line.rstrip("\\").strip() for line in locked]
    assert "--hash" not in done.stdout


@pytest.fixture(scope="module")
def unit():
    lines = (RECIPES / "stm-serve.service").read_text().splitlines()
    return [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]


def test_the_unit_is_strict(unit):
    said = dict(unit)
    for key in ("NoNewPrivileges", "DynamicUser", "PrivateTmp", "PrivateDevices", "ProtectHome", "RestrictNamespaces"):
        assert said[key] == "yes"
    assert said["ProtectSystem"] == "strict"
    assert said["CapabilityBoundingSet"] == ""
    words = shlex.split(said["ExecStart"])
    assert Path(words[0]).name in PROJECT["project"]["scripts"]
    parsed = accepts(words[1:])
    assert int(said["LimitNOFILE"]) > 2 * Limits().connections
    # A store that is away is waited for another ten seconds.
    assert int(said["TimeoutStopSec"]) > workers._STOP_SECONDS + 10 > listening.DRAIN_SECONDS + 11
    assert parsed.host == "127.0.0.1"
    assert parsed.token_file.startswith("${CREDENTIALS_DIRECTORY}/")
    assert said["LoadCredential"].split(":")[0] == Path(parsed.token_file).name


def test_systemd_finds_no_fault(unit, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze: install Debian's package systemd")
    text = (RECIPES / "stm-serve.service").read_text()
    started = dict(unit)["ExecStart"]
    here = tmp_path / "stm-serve.service"
    here.write_text(text.replace(started.split()[0], shutil.which("true")))  # /opt/stm is not on this machine
    done = subprocess.run(["systemd-analyze", "verify", here], capture_output=True, text=True, timeout=60, check=False)
    about_it = [line for line in (done.stdout + done.stderr).splitlines() if "stm-serve" in line]
    assert (done.returncode, about_it) == (0, [])
    score = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", here],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Unknown" not in score.stderr
    assert score.returncode == 0, score.stdout[-300:]  # an exposure of at most 2.0 of 10


@pytest.fixture(scope="module")
def objects():
    text = (RECIPES / "kubernetes.yaml").read_text()
    no_foreign_host(re.sub(r"networking\.k8s\.io/v1|app\.kubernetes\.io/name", "", text))
    found = {one["kind"]: one for one in yaml.safe_load_all(text)}
    assert set(found) == {"Deployment", "Service", "NetworkPolicy"}
    return found


def test_pods_have_no_more_rights_than_they_need(objects):
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    rights = container["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod["volumes"]}
    assert mounts["/models"]["readOnly"] is True
    assert not mounts["/tmp"].get("readOnly")  # uploads are held there
    assert "/" not in container["image"]


def test_what_the_pods_start_and_how_they_are_asked(objects):
    template = objects["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    parsed = accepts([str(word) for word in container["args"]])
    (port,) = container["ports"]
    assert port["containerPort"] == parsed.port
    for probe, path in (("startup", "ready"), ("readiness", "ready"), ("liveness", "live")):
        asked = container[f"{probe}Probe"]["httpGet"]
        assert asked == {"path": f"/v2/health/{path}", "port": port["name"], "scheme": "HTTPS"}
        assert asked["path"] in OPEN_PATHS  # a probe has no token
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    needed = (parsed.model[0], parsed.token_file, parsed.tls_cert, parsed.tls_key)
    assert {str(Path(path).parent) for path in needed} <= mounts
    assert not parsed.insecure
    labels = template["metadata"]["labels"]
    for selector in (
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector == labels
    assert objects["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]


def test_the_wheel_takes_the_page_along():
    packages = PROJECT["tool"]["setuptools"]["packages"]
    for folder in sorted((ROOT / "deploy").rglob("__init__.py")):
        assert ".".join(folder.parent.relative_to(ROOT).parts) in packages
    assert PROJECT["tool"]["setuptools"]["package-data"]["deploy.serving.page"] == ["static/*"]
