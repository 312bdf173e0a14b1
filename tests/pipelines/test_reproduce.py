"""Making a paper's results again: the command, on a toy task, and what the impurity task concludes, on made-up ones."""

import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure
from scipy import stats
from scipy.ndimage import gaussian_filter

from pipelines import reproduce as command
from pipelines import settings
from pipelines.reproducing import trainings
from stm_models.config import Config, validate
from stm_models.errors import InputError
from stm_models.tasks import registry
from stm_models.tasks.findings import compare
from stm_models.tasks.impurity.labels import heat_map, padded
from stm_models.tasks.impurity.occlusion import occlusion
from stm_models.tasks.impurity.reproduction import ImpurityReproduction, by_tiles
from stm_models.tasks.impurity.reproduction_config import ReproductionConfig
from stm_models.tasks.impurity.reproduction_report import ABLATIONS, OURS, markdown, numbers
from stm_models.tasks.reproduction import Ask, Conclusion, DataSet, Finished, Reproduction, Training
from support import toy_map_task as toy
from tracking import runs
from tracking.store import connect


class ToyConfig(Config):
    epochs: int = 2
    seeds: int = 2


class ToyReproduction(Reproduction):
    config = ToyConfig
    presets: ClassVar = {"quick": {}}
    fails: ClassVar[set[int]] = set()
    watched: ClassVar[list[tuple[int, ...]]] = []

    def data_sets(self, config):
        return {"toy data": DataSet("test", {"groups": 12})}

    def trainings(self, config):
        names = ("toy data",)
        train = {"epochs": config.epochs}
        return [
            Training("plain", seed, "toy data", "test", train, "toy data" if seed else None, names, names)
            for seed in range(config.seeds)
        ]

    def untrained(self, config):
        return [Training("untrained", 3, "toy data", "test", judged=("toy data",))]

    def methods(self, config, training, train):
        assert training.seed == 3
        assert len(train) > 0
        return {"nothing": lambda samples: np.zeros_like(samples.images)}

    def watch(self, config, ask, samples):
        wide = np.concatenate([samples["toy data"].images[:1]] * 2, axis=3)
        self.watched.append(ask.raw(wide).shape)
        return {"loudest": float(ask.prediction(wide).max())}

    def judge(self, config, training, ask, samples, calibration):
        if training is not None and training.seed in self.fails:
            raise RuntimeError("stopped")
        part = samples["toy data"]
        return {"hits": registry.get("toy-map").metrics(ask.prediction(part.images), part, calibration)["hits"]}

    def conclude(self, config, finished, baselines, samples):
        assert {one.training.name for one in baselines} == {"untrained"}
        hits = [one.scores["hits"] for one in finished] + [
            one.scores["hits"] for name in ("brightest", "nothing") for one in baselines if one.method == name
        ]
        assert finished[0].ask().prediction(samples["toy data"].images[:2]).shape == (2, 1, toy.SIDE, toy.SIDE)
        figure = Figure()
        figure.subplots().plot(hits)
        return Conclusion({"hits": hits, "findings": ["found"]}, "# toy\n", {"hits": figure})


class ReproducibleToy(toy.ToyMapTask):
    def reproduction(self):
        return ToyReproduction()


def test_finished_trainings_are_kept(tmp_path, monkeypatch):
    task = ReproducibleToy()
    monkeypatch.setattr(registry, "_TASKS", {**registry._TASKS, task.name: task})
    monkeypatch.setattr(settings, "_CONFIGS", tmp_path / "configs")
    monkeypatch.setattr("pipelines.learning.fitting.Run.environment", lambda *_: None)
    (tmp_path / "configs" / task.name).mkdir(parents=True)
    train = {"options": {"width": 4, "dilations": [1]}, "batch_size": 8, "device": "cpu"}
    for name in ("test", "quick"):
        (tmp_path / "configs" / task.name / f"{name}.yaml").write_text(yaml.safe_dump({"train": train}))
    store, made, config = connect(f"sqlite:///{tmp_path}/mlflow.db"), ToyReproduction(), ToyConfig()

    monkeypatch.setattr(ToyReproduction, "fails", {1})
    with pytest.raises(RuntimeError, match="stopped"):
        command.reproduce(store, task, made, config, tmp_path / "out", workers=1)
    (first,) = [row for row in runs.find(store, "reproduce toy-map") if row.parent and row.status == "FINISHED"]
    monkeypatch.setattr(ToyReproduction, "fails", set())
    result = command.reproduce(store, task, made, config, tmp_path / "out", workers=1)
    assert result["runs"]["plain, seed 0"] == first.id
    monkeypatch.setattr(trainings, "fit", None)  # nothing is trained any more
    again = command.reproduce(store, task, made, config, tmp_path / "out", workers=1)
    assert (again["run_id"], again["runs"]) == (result["run_id"], result["runs"])

    rows = {row.id: row for row in runs.find(store, "reproduce toy-map")}
    assert [row.id for row in rows.values() if row.parent is None] == [result["run_id"]]
    assert {rows[run_id].parent for run_id in result["runs"].values()} == {result["run_id"]}
    tags = [rows[run_id].tags.get("transductive") for run_id in result["runs"].values()]
    assert tags == [None, "true"]
    assert "loudest" in first.metrics
    assert made.watched[0] == (1, 1, toy.SIDE, 2 * toy.SIDE)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["hits"][2] == 1  # the brightest pixels
    assert report["hits"][3] < 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"data", "hits.png", "report.json", "report.md"}
    assert result["run_id"] in (tmp_path / "out" / "report.md").read_text()
    assert "found" in command.describe(result)


def test_a_data_set_may_change_the_presets_config(tmp_path, monkeypatch):
    made = {}
    monkeypatch.setattr(trainings, "simulate", lambda task, config, path, workers: made.update({path.name: config}))
    wanted = {
        "own": DataSet("test", {"seed": 3}),
        "larger": DataSet("test", {"seed": 3}, changed=lambda own: own.model_copy(update={"draws": own.draws + 1})),
    }
    trainings.simulated(registry.get("hubbard"), wanted, tmp_path, 1)
    own, larger = made["own.zarr"], made["larger.zarr"]
    assert (own.seed, larger.seed) == (3, 3)
    assert larger.draws == own.draws + 1


def test_what_cannot_be_reproduced_is_refused(tmp_path, monkeypatch):
    given = {"preset": "quick", "assignments": [], "out": str(tmp_path), "workers": 1}
    task = toy.ToyMapTask()
    monkeypatch.setattr(registry, "_TASKS", {**registry._TASKS, task.name: task})
    with pytest.raises(InputError, match=r"toy-map has nothing to reproduce yet: choose from hubbard, impurity"):
        command.run(Namespace(task=task.name, **given))
    with pytest.raises(InputError, match=r"unknown reproduction of impurity 'qick'.*did you mean 'quick'"):
        command.run(Namespace(task="impurity", **given | {"preset": "qick"}))
    with pytest.raises(InputError, match="seeds"):
        command.run(Namespace(task="impurity", **given | {"assignments": ["seeds=0"]}))
    with pytest.raises(InputError, match="is not made of tiles of 21 px"):
        validate(ReproductionConfig, {"tile": 21}, "here")


# What is seen: the spot or the rings.


def _weighted(inner, outer):
    y, x = np.mgrid[-9:10, -9:10]
    kernel = ((np.hypot(y, x) >= inner) & (np.hypot(y, x) < outer)).astype(float)

    def score(images):
        # One bright pixel in each place tells where the detector looks; correlation by sums over shifts.
        total = images.sum(axis=1)
        padded_maps = np.pad(total, ((0, 0), (9, 9), (9, 9)))
        shape = total.shape[1:]
        return sum(
            kernel[i, j] * padded_maps[:, i : i + shape[0], j : j + shape[1]] for i in range(19) for j in range(19)
        )

    return score


@pytest.mark.parametrize(("inner", "outer", "core", "rings"), [(0, 1.2, 0, 1), (4, 5.5, 1, 0)])
def test_occlusion_tells_cores_from_rings(inner, outer, core, rings):
    place = np.array([[20.0, 17.0]])
    y, x = np.mgrid[:40, :36]
    distance = np.hypot(y - 20, x - 17)
    image = np.exp(-(distance**2)) + np.exp(-((distance - 4.7) ** 2) * 4)
    images = np.stack([image, 0.5 * image])[None]
    before = images.copy()
    kept = occlusion(_weighted(inner, outer), images, [place], window=30)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_allclose([kept.without_core[0], kept.without_rings[0]], [core, rings], atol=0.06)
    assert kept.record()["occluded_peaks"] == 1


def test_occlusion_draws_and_leaves_out_the_border():
    images, score = np.ones((2, 1, 40, 40)), lambda images: np.ones((len(images), *images.shape[2:]))
    places = [np.array([[3.0, 20.0], [20.0, 20.0], [20.0, 36.5]]), np.array([[10.0, 10.0], [25.0, 12.0]])]
    assert len(occlusion(score, images, places).without_core) == 3
    assert len(occlusion(score, images, places, most=2).without_core) == 2
    assert occlusion(score, images, [np.empty((0, 2))] * 2).record() == {"occluded_peaks": 0.0}


# Scores of an epoch.


def test_tiles_are_seen_alone_and_put_back():
    images = np.random.default_rng(0).normal(size=(2, 3, 12, 18))
    shapes = []

    def raw(tiles):
        shapes.append(tiles.shape)
        return tiles[:, 1:2] - tiles[:, 1:2].mean(axis=(2, 3), keepdims=True)

    whole = by_tiles(raw, images, 6)
    assert shapes == [(2 * 6, 3, 6, 6)]
    for y in (0, 6):
        for x in (0, 6, 12):
            part = images[:, 1, y : y + 6, x : x + 6]
            expected = part - part.mean(axis=(1, 2), keepdims=True)
            np.testing.assert_allclose(whole[:, y : y + 6, x : x + 6], expected)


def test_an_oracle_reaches_the_ceiling_and_noise_the_chance_level():
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid(*[np.arange(5, 40, 7.0)] * 2), -1).reshape(-1, 2)
    truth = (grid + rng.uniform(-0.4, 0.4, grid.shape))[rng.permutation(len(grid))[:12]]
    noise = gaussian_filter(rng.normal(size=(40, 40)), 0.5)
    images = np.stack([heat_map(truth, (40, 40)) + 0.01 * noise, noise])[None].astype(np.float32)
    part = SimpleNamespace(images=images, arrays={"positions": padded(truth, 20)[None]}, path=Path("here"))
    made, config = ImpurityReproduction(), ReproductionConfig(field=40)
    made._references["here"] = [truth]
    oracle, blind = (
        made.watch(config, Ask(lambda x: x, lambda x, c=c: x[:, c : c + 1]), {"hard": part}) for c in (0, 1)
    )
    assert oracle["hard.top.ratio"] == oracle["hard.top.f1"] == oracle["hard.all.ratio"] == 1
    assert oracle["hard.top.count"] == 12
    # Many peaks are often right by chance: what the ratio alone does not tell.
    assert oracle["hard.all.count"] > 50
    assert oracle["hard.all.chance"] > 0.2 > oracle["hard.top.chance"]
    assert oracle["hard.all.f1"] < 0.4
    assert blind["hard.all.ratio"] < blind["hard.all.chance"] + 0.35
    assert blind["hard.top.f1"] < 0.4
    with pytest.raises(InputError, match="answers with numbers"):
        made.watch(config, Ask(lambda x: x), {"hard": part})


def test_trainings_of_the_paper():
    config = ReproductionConfig()
    trainings = ImpurityReproduction().trainings(config)
    names = [one.name for one in trainings]
    assert {name: names.count(name) for name in names} == {
        OURS: 3, "no noise": 10, "noise": 10, "no noise + reg (std)": 10, "no noise + reg (hard)": 10,
        "noise + reg (std)": 10, "noise + reg (hard)": 10,
    }  # fmt: skip
    for one in trainings:
        assert (one.unlabelled is not None) == ("reg" in one.name)
        assert one.unlabelled in (None, *one.watched)
    sets = ImpurityReproduction().data_sets(config)
    assert sets["no noise"].simulate["eta"] == [0, 0]
    assert sets["noise"].simulate | {"eta": 0} == sets["no noise"].simulate | {"eta": 0}
    for name, one in sets.items():
        settings.load("impurity", one.preset, recorded={"simulate": dict(one.simulate)})
        assert (one.simulate.get("generator") == "experiment") == (name.split()[0] in config.experiments)


# Words made from numbers.


def test_more_seeds_leave_finished_trainings_their_key():
    made = ImpurityReproduction()
    few, more = ReproductionConfig(seeds=2, our_seeds=1), ReproductionConfig(seeds=5, our_seeds=3)
    assert made.scoring(few) == made.scoring(more)
    assert {repr(one) for one in made.trainings(few)} <= {repr(one) for one in made.trainings(more)}
    for change in ({"tile": 16}, {"peaks": 3}):
        assert made.scoring(few) != made.scoring(few.model_copy(update=change))


def test_comparing_is_a_paired_t_test():
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(0.5, 0.1, 10), rng.normal(0.4, 0.1, 10)
    found = compare(dict(enumerate(ours)), dict(enumerate(theirs)) | {99: 0.0})
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], [interval.low, interval.high])
    assert found.wins == np.count_nonzero(ours > theirs)
    assert compare({0: 1.0}, {0: 0.0}).verdict == "undecided"
    assert compare({0: 1.0}, {0: 0.0}).record()["interval"] is None
    with pytest.raises(ValueError, match="no seed in common"):
        compare({0: 1.0}, {1: 1.0})


def _finished(levels, seeds=4):
    made = []
    table = {"f1": 0.5, "without_core": 0.1, "without_rings": 0.9}
    for number, (ablation, level) in enumerate(levels.items(), 1):
        for seed in range(seeds):
            name = f"{ablation} (std)" if "reg" in ablation else ablation
            jitter = 0.002 * number * (-1) ** seed  # no mean, nor has the difference of two
            values = dict.fromkeys(("ratio", "f1"), level + jitter) | {"chance": 0.3, "count": 500.0}
            entry = {f"std.{rule}.{key}": value for rule in ("all", "top") for key, value in values.items()}
            scores = {f"std.{key}": value for key, value in table.items()}
            training = Training(name, seed, "noise", "paper")
            made.append(Finished(training, f"{ablation}-{seed}", [{"epoch": 1, **entry}], scores, lambda: None))
    ours = {"std.f1": 0.9, "std.without_core": 0.97, "std.without_rings": 0.4}
    return [*made, Finished(Training(OURS, 0, OURS, "quick"), "ours-0", [], ours, lambda: None)]


@pytest.mark.parametrize(
    ("levels", "verdicts"),
    [
        ((0.5, 0.7, 0.6, 0.8), ["holds", "holds", "holds"]),
        ((0.7, 0.5, 0.8, 0.6), ["does not hold", "holds", "does not hold"]),
        ((0.6, 0.6, 0.6, 0.6), ["undecided", "undecided", "undecided"]),
    ],
)
def test_the_finding_follows_the_numbers(levels, verdicts):
    config = ReproductionConfig(experiments=("std",), seeds=4)
    finished = _finished(dict(zip(ABLATIONS, levels, strict=True)))
    ceiling = {"std": {"ratio_of_the_truth": 0.88, "reference_f1": 0.9}}
    report = numbers(config, finished, {"matched_filter": {"std.f1": 0.95}}, ceiling)
    part = report["experiments"]["std"]
    assert [claim["verdict"] for claim in part["claims"]["all"]] == verdicts
    row = part["last_epoch"]["all"]["noise"]
    assert (row["runs"], row["seeds"]) == ([f"noise-{seed}" for seed in range(4)], [0, 1, 2, 3])
    assert row["ratio"]["mean"] == pytest.approx(levels[1], abs=0.01)
    text = markdown(json.loads(json.dumps(report, allow_nan=False)))
    assert "F1 on fresh fields: matched_filter 0.950 > fieldnet (ours) 0.900 > paper's design" in text
    assert (
        "fieldnet (ours) keeps 0.970 of its peaks without the core and 0.400 without the rings: it sees the rings"
        in text
    )
    assert "noise + reg keeps 0.100 of its peaks without the core and 0.900 without the rings: it sees the spot" in text
    assert "minimises the entropy on the very maps" in text
    best = ABLATIONS[int(np.argmax(levels))]
    if verdicts[0] != "undecided":
        assert f"std, all maxima: {best} " in text
