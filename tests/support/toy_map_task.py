"""A task whose answer is a map: find the bright pixels of noisy images; importable by spawned workers."""

import numpy as np

from stm_models.config import Config
from stm_models.tasks.base import Task
from stm_models.tasks.inputs import Axes, Prepared
from stm_models.tasks.outputs import Column
from stm_models.tasks.plan import ArraySpec, Group, GroupResult, Plan, Variable
from stm_models.tasks.verdict import verdict

SIDE = 16


class ToyMapConfig(Config):
    groups: int = 36
    seed: int = 0


class ToyMapTask(Task):
    name = "toy-map"
    title = "Bright pixels"
    targets = (Variable("heat", "1", "1 at a bright pixel"), Variable("pixel", "1", "1 at a bright pixel"))
    arrays = ("places",)
    stratify = "count"
    unseen = False
    metric = "hits"
    larger_is_better = True
    columns = (Column("hits", "hits"), Column("too many", "false", ".2f"))
    default_network = "fieldnet"
    losses = ("focal_heat", "pixel_entropy")
    standardise = False
    any_size = True
    unlabelled = True
    simulation = ToyMapConfig

    def plan(self, config):
        chains = [(Group(i, {"count": float(1 + i % 3)}, {}),) for i in range(config.groups)]
        plane = ("y", "x"), (SIDE, SIDE), "float32", "1"
        return Plan(
            chains=tuple(chains),
            samples_per_group=1,
            arrays={
                "image": ArraySpec(("channel", "y", "x"), (2, SIDE, SIDE), "float32", "1", "noise and bright pixels"),
                "heat": ArraySpec(*plane, "1 at a bright pixel"),
                "pixel": ArraySpec(*plane, "1 at a bright pixel"),
                "places": ArraySpec(("place", "axis"), (3, 2), "float32", "px", "y, x; -1 where there is none"),
            },
            state={},
            parameters=(Variable("count", "1", "bright pixels"),),
            samples=(),
            scalars=(Variable("converged", "1", "always"),),
            attributes={
                "simulator_version": "1",
                "input": {
                    "kind": "toy_map", "dims": ["channel", "y", "x"], "channels": 2, "height": SIDE, "width": SIDE,
                    "unit": "1",
                },
            },
        )  # fmt: skip

    def simulator(self, config, *, device="cpu"):
        def simulate(group, state):
            rng = np.random.default_rng([config.seed, group.index])
            count = int(group.parameters["count"])
            places = np.full((3, 2), -1.0, np.float32)
            places[:count] = np.stack(np.unravel_index(rng.choice(SIDE**2, count, replace=False), (SIDE, SIDE)), 1)
            pixel = np.zeros((SIDE, SIDE), np.float32)
            pixel[tuple(places[:count].astype(int).T)] = 1
            image = (rng.normal(0, 0.1, (2, SIDE, SIDE)) + 3 * pixel).astype(np.float32)
            arrays = {"image": image, "heat": pixel, "pixel": pixel, "places": places}
            return GroupResult({name: array[None] for name, array in arrays.items()}, {}, {"converged": 1.0})

        return simulate

    def fresh(self, config, seed, states, *, unseen):
        assert not unseen
        return config.model_copy(update={"seed": seed, "groups": states})

    def prepare(self, raw, input_spec):
        image = raw.values.astype(np.float32)
        return Prepared(image, np.ones(image.shape[1:], bool), ("taken as it is",), {"step": 0.5})

    def axes(self, input_spec):
        return Axes((0, input_spec["width"], 0, input_spec["height"]), ("x (px)", "y (px)"))

    def metrics(self, prediction, samples, calibration):
        found = prediction[:, 0] > calibration.get("threshold", 0.5)
        true = np.zeros_like(found)
        for row, places in enumerate(samples.arrays["places"].astype(int)):
            true[row][tuple(places[places[:, 0] >= 0].T)] = True
        return {"hits": float((found & true).sum() / true.sum()), "false": float((found & ~true).sum() / len(found))}

    def calibrate(self, prediction, samples):
        true = prediction[:, 0][samples.targets[:, 1] == 1]
        return {"threshold": float(np.median(true)) / 2}

    def baselines(self, train, seed):
        return {"brightest": lambda samples: samples.images.mean(axis=1, keepdims=True)}

    def decode(self, outputs, metadata, about=None):
        threshold, step = metadata["calibration"]["threshold"], (about or {}).get("step", 1.0)
        answers = []
        for row, prediction in enumerate(outputs["prediction"][:, 0]):
            places = [[float(step * y), float(step * x)] for y, x in np.argwhere(prediction > threshold)]
            answers.append({"places": places} | verdict(outputs, row, novelty=metadata.get("novelty")))
        return answers

    def truth(self, samples, row):
        places = samples.arrays["places"][row]
        return {"places": sorted(places[places[:, 0] >= 0].tolist())}

    def words(self, answer):
        return f"{len(answer['places'])} bright pixels"

    def places(self, answer, about):
        return np.array(answer["places"]).reshape(-1, 2) / about.get("step", 1.0)

    def answer_files(self, folder, answer, image, explained, about):
        path = folder / f"{answer['name']}_places.csv"
        np.savetxt(path, np.array(answer["places"]).reshape(-1, 2), delimiter=",", header="y,x")
        return [path]

    def reference_metrics(self, answer, about, reference):
        return {"difference": float(len(answer["places"]) - len(np.loadtxt(reference.path, ndmin=2)))}, ()
