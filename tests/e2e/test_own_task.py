"""docs/own_task.md as written: another distribution's task and network, from its physics to the comparison page."""

from __future__ import annotations

import importlib
import io
import json
import re
import shlex
import subprocess
import sys
import urllib.request
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray

from deploy.client import Client
from pipelines.cli import main
from stm_models import plugins
from stm_models.networks import bundle
from stm_models.networks import registry as networks
from stm_models.tasks import registry as tasks
from support import example_distribution as distribution
from support.stm_server import served
from tracking import runs
from tracking.store import connect

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "own_task.md").read_text()
COMMANDS = [
    shlex.split(line.split("#")[0])[1:]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    for line in block.splitlines()
    if line.startswith(".venv/bin/stm ")
]
SERVERS = [words for words in COMMANDS if words[0] in ("serve", "compare")]


@dataclass(frozen=True)
class Made:
    """Where the page's commands were run, with what environment, and what they said by their first word."""

    folder: Path
    environment: dict[str, str]
    said: dict[str, str]

    @property
    def store(self):
        return connect(f"sqlite:///{self.folder}/mlflow.db")


@pytest.fixture(scope="module")
def made(tmp_path_factory, clean):
    site = distribution.install(tmp_path_factory.mktemp("honeycomb"))
    folder, said = tmp_path_factory.mktemp("own task"), {}
    path = f"{site}:{clean['PYTHONPATH']}"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", path)  # for the process that exports
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        patch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
        patch.setattr(networks, "_NETWORKS", dict(networks._NETWORKS))
        plugins.names.cache_clear()
        for words in COMMANDS:
            if words not in SERVERS:
                with redirect_stdout(io.StringIO()) as out:
                    assert main(words) == 0
                said[words[0]] = out.getvalue()
        yield Made(folder, {**clean, "PYTHONPATH": path}, said)
    plugins.names.cache_clear()


@pytest.fixture(scope="module")
def trained(made):
    """The row of the run that the page's training made."""
    (row,) = [row for row in runs.find(made.store, "honeycomb") if row.name.startswith("train") and row.parent is None]
    return row


def test_the_page_goes_all_the_way():
    assert [words[0] for words in COMMANDS] == [
        "simulate", "tune", "train", "promote", "predict", "serve", "compare", "models",
    ]  # fmt: skip


def test_the_task_has_as_few_lines_as_the_page_says():
    folder = distribution.EXAMPLE / "stm_honeycomb"
    texts = [(folder / name).read_text() for name in ("task.py", "network.py")]
    task, network = (sum(bool(line.strip()) for line in text.splitlines()) for text in texts)
    assert task < 100
    said = " ".join((distribution.EXAMPLE.parents[1] / "docs" / "own_task.md").read_text().split())
    assert f"has {task} lines that are not blank, the network {network}." in said


def test_the_mean_field_is_that_of_plain_iteration(made):
    """An independent solution: 2 x 2 matrices by LAPACK, filled up to half, iterated at the U that the task says."""
    task = importlib.import_module("stm_honeycomb.task")
    k = 2 * np.pi * (np.arange(48) + 0.5) / 48
    f = (1 + np.exp(1j * k) + np.exp(1j * k[:, None])).ravel()
    for moment in (0.3, 0.7):
        interaction, m = 2 * task.field(moment) / moment, 0.9
        for _ in range(400):
            d = interaction * m / 2
            up = np.array([[np.full(len(f), -d), -f], [-f.conj(), np.full(len(f), d)]]).transpose(2, 0, 1)
            lower = np.linalg.eigh(up)[1][:, :, 0]
            m = np.mean(np.abs(lower[:, 0]) ** 2 - np.abs(lower[:, 1]) ** 2)
        assert m == pytest.approx(moment, abs=1e-6)


def test_the_mean_field_has_its_limits(made):
    task = importlib.import_module("stm_honeycomb.task")
    assert 2 * task.field(0.01) / 0.01 == pytest.approx(2.23, abs=0.03)  # Sorella and Tosatti, where m sets in
    assert task.field(0.999) == pytest.approx(np.sqrt(3 / (2 * 0.001)), rel=0.01)  # <|f|^2> = 3, so m = 1 - 3 / 2 D^2


def test_an_atom_is_as_bright_as_its_eigenvectors_say(made, monkeypatch):
    """The middle pixel lies on an atom: spin by spin, by LAPACK, (1 + P) up and (1 - P) down."""
    task = importlib.import_module("stm_honeycomb.task")
    monkeypatch.setattr(task, "ATOM", 0.05)  # atoms do not overlap
    config, d, width, tip = task.Honeycomb(noise=0), 0.8, 0.3, 0.4

    class Unmoved:
        uniform = staticmethod(lambda low, high, size=None: 0.0 if size is None else np.zeros(size))
        normal = staticmethod(np.random.default_rng(0).normal)

    shown = task.image(config, d, width, tip, Unmoved())
    k = 2 * np.pi * (np.arange(48) + 0.5) / 48
    f = (1 + np.exp(1j * k) + np.exp(1j * k[:, None])).ravel()
    expected = np.zeros(len(config.energies))
    for spin in (1, -1):
        field = np.full(len(f), spin * d)
        bands, states = np.linalg.eigh(np.array([[-field, -f], [-f.conj(), field]]).transpose(2, 0, 1))
        weight = np.abs(states[:, 0, :]) ** 2  # of the first sublattice
        for number, energy in enumerate(config.energies):
            expected[number] += (1 + spin * tip) * np.sum(weight * np.exp(-(((energy - bands) / width) ** 2) / 2))
    middle = shown[:, config.size // 2, config.size // 2]
    np.testing.assert_allclose(middle / middle.sum(), expected / expected.sum(), atol=1e-6)
    assert expected[0] > 1.1 * expected[-1]  # the majority spin is filled


def test_the_gap_is_dark_where_the_moment_is_large(made):
    data = xarray.open_zarr(made.folder / "honeycomb.zarr")
    middle = data.image.sel(channel=2).mean(("y", "x")).values
    moment, interaction = data.moment.values, data.U.values
    assert np.abs(middle[moment > 0.6]).max() < 0.05
    assert middle[moment < 0.2].min() > 0.05
    order = np.argsort(moment)
    assert (np.diff(interaction[order]) >= 0).all()
    assert 2.23 < interaction.min() < 2.5


def test_the_model_is_better_than_the_mean_and_became_champion(made, trained):
    metrics = trained.metrics
    assert metrics["unseen_mae"] < 0.25 * metrics["mean.unseen_mae"]
    assert metrics["unseen_r2"] > 0.9
    assert "is the champion now" in made.said["promote"]


def test_the_search_varied_the_networks_own_options(made):
    rows = runs.find(made.store, "honeycomb")
    (parent,) = [row for row in rows if row.name.startswith("tune")]
    trials = [row for row in rows if row.parent == parent.id]
    assert {row.status for row in trials} == {"FINISHED"}
    first, *drawn = (row.params["contrast.hidden"] for row in sorted(trials, key=lambda row: row.name))
    assert first == "32"  # as it is without a search
    assert len(drawn) == 3
    assert len({first, *drawn}) > 1


@pytest.mark.parametrize("known", [True, False], ids=["installed", "not installed"])
def test_the_served_answer_is_that_of_torch(made, trained, clean, known):
    """Also of a server that has not the task, which then gives tensors and no words."""
    samples = xarray.open_zarr(made.folder / "honeycomb.zarr").image.values[:7]
    model = bundle.load(runs.download(made.store, trained.id, "bundle")).model.eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(samples)).numpy()
    (serve,) = [words for words in SERVERS if words[0] == "serve"]
    with served(serve, made.folder, made.environment if known else clean) as url, closing(Client(url)) as client:
        answer = client.infer(samples, ("prediction", "lower", "upper"))
        shape, values = [1, *samples.shape[1:]], samples[0].ravel().tolist()
        tensor = {"name": "image", "shape": shape, "datatype": "FP32", "data": values}
        request = urllib.request.Request(
            f"{url}/v2/models/stm-honeycomb/explain", json.dumps({"inputs": [tensor]}).encode()
        )
        with urllib.request.urlopen(request, timeout=60) as said:
            answers = json.load(said)["parameters"].get("answers", [])
    np.testing.assert_allclose(answer["prediction"], expected, rtol=1e-5, atol=1e-6)
    assert (answer["lower"] < answer["prediction"]).all()
    assert (answer["prediction"] < answer["upper"]).all()
    assert np.ptp(expected) > 0.01
    if known:
        assert answers[0]["moment"]["unit"] == "µB"
        assert answers[0]["moment"]["value"] == pytest.approx(float(expected[0, 0]), abs=1e-5)
    else:
        assert answers == []


def test_it_keeps_the_contract_of_our_own_tasks(made):
    (line,) = re.findall(r"^\.venv/bin/python (.*)$", PAGE, re.M)
    done = subprocess.run(
        [sys.executable, *shlex.split(line)],
        cwd=ROOT,
        env=made.environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"1\d passed", done.stdout), done.stdout


def test_the_comparison_shows_the_runs(made, trained):
    (compare,) = [words for words in SERVERS if words[0] == "compare"]
    with served(compare, made.folder, made.environment) as url, urllib.request.urlopen(url, timeout=60) as answer:
        page = answer.read().decode()
    assert trained.id in page
    assert "honeycomb" in page


def test_an_own_map_is_read_as_the_task_says(made, monkeypatch, capsys):
    monkeypatch.chdir(made.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    stack = xarray.open_zarr(made.folder / "honeycomb.zarr").image.values[40]
    np.savez("map.npz", data=5e-10 * stack.astype(float), size_nm=[0.5, 0.5])  # any unit: the task divides by the mean
    found = []
    for words in (["map.npz"], ["honeycomb.zarr", "--sample", "40"]):
        assert main(["predict", "models:/stm-honeycomb@champion", *words, "--out", "own", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["answers"][0]["moment"])
    own, simulated = found
    assert own["value"] == pytest.approx(simulated["value"], abs=0.01)
    assert own["unit"] == "µB"
