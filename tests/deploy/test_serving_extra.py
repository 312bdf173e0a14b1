"""A serving host: the extra ``serve`` alone, from the same pins, serves, shows the page and predicts."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow
MOST_BYTES = 1.2e9
MUST_NOT = ("torch", "mlflow", "onnx", "zarr", "xarray", "matplotlib", "optuna", "pandas")


def run(*command, cwd):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=cwd, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    return done.stdout


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A fresh environment, and a folder far from the project."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "pins.txt").write_text(run("sh", ROOT / "bin" / "serve-pins", cwd=folder))
    # A copy: a build leaves files beside pyproject.toml.
    source = folder / "source"
    names = ("pyproject.toml", "README.md", "LICENSE", "configs", "stm_models", "tracking", "pipelines", "deploy")
    source.mkdir()
    for name in names:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    uv = shutil.which("uv") or shutil.which(str(ROOT / ".venv/uv/bin/uv"))
    wanted = [f"{source}[serve]", "-c", folder / "pins.txt"]
    if uv:
        run(uv, "venv", "-q", "--python", sys.executable, "venv", cwd=folder)
        run(uv, "pip", "install", "-q", "--python", "venv/bin/python", *wanted, cwd=folder)
    else:
        run(sys.executable, "-m", "venv", "venv", cwd=folder)
        run("venv/bin/python", "-m", "pip", "install", "-q", *wanted, cwd=folder)
    shutil.rmtree(source)
    return folder


@pytest.fixture(scope="module")
def model(host, toy):
    ft = {"kind": "ft_ldos", "channels": 2, "height": 4, "width": 5, "unit": "1", "kx_max": 1.5, "ky_max": 2.0}
    return toy.write(host / "model.onnx", change={"task": "hubbard", "input": ft})


def test_nothing_heavy_is_there_and_imports_are_quick(host, record_property):
    code = f"import importlib.util as u; print([n for n in {MUST_NOT!r} if u.find_spec(n)])"
    assert run("venv/bin/python", "-c", code, cwd=host).strip() == "[]"
    size = sum(path.lstat().st_size for path in (host / "venv").rglob("*") if path.is_file())
    timed = "import time, deploy.serving.server; print(time.process_time())"
    seconds = min(float(run("venv/bin/python", "-c", timed, cwd=host)) for _ in range(3))
    record_property("bytes", size)
    record_property("import_seconds", seconds)
    print(f"serving extra: {size / 1e9:.2f} GB, imported in {seconds:.2f} s of processor time")
    assert size < MOST_BYTES


def test_it_predicts(host, model, toy):
    images = toy.images(1)
    np.save(host / "image.npy", images[0])
    found = json.loads(run("venv/bin/stm", "predict", model, "image.npy", "--json", cwd=host))
    expected = toy.expected(images)["prediction"][0]
    answer = found["answers"][0]
    np.testing.assert_allclose([answer["U"]["value"], answer["gap"]["value"]], expected, rtol=1e-4)


def test_it_serves_the_page_and_answers_about_a_file(host, model, toy):
    images = toy.images(1)
    np.save(host / "image.npy", images[0])
    server = subprocess.Popen(
        ["venv/bin/stm-serve", model, "--port", "0", "--provider", "cpu"], cwd=host, stderr=subprocess.PIPE, text=True
    )
    try:
        url = next(line.split()[1] for line in server.stderr if line.startswith("ready: "))
        with urllib.request.urlopen(url) as page:
            html = page.read().decode()
        for path in re.findall(r'(?:src|href)="([^"]+)"', html):
            with urllib.request.urlopen(url + path) as part:
                assert part.status == 200
        client = (
            "import sys, json; from deploy.client import Client; "
            "print(json.dumps(Client(sys.argv[1]).ask('image.npy')['values']))"
        )
        values = json.loads(run("venv/bin/python", "-c", client, url, cwd=host))
        np.testing.assert_allclose([v["value"] for v in values], toy.expected(images)["prediction"][0], rtol=1e-4)
    finally:
        server.terminate()
        assert server.wait(30) == 0
        server.stderr.close()
