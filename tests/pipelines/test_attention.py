"""Mean maps over a target: one way to average and draw them, whoever explains."""

from types import SimpleNamespace

import numpy as np

from deploy.model.metadata import ModelMetadata
from pipelines.explaining import attention
from pipelines.explaining.explainers import Explainer
from pipelines.reproducing import attention as reproduced_attention
from stm_models.data.dataset import Samples
from stm_models.tasks.inputs import Axes

SHAPE = (2, 4, 5)
INPUT = {"kind": "x", "channels": 2, "height": 4, "width": 5, "unit": "1"}
STATES = 40


def _regions(attributes, row, shape, place):
    half = np.zeros(shape, bool)
    half[:2] = True
    return {"upper": half}


TASK = SimpleNamespace(
    name="x", compared=None, regions=_regions, axes=lambda spec: Axes((0, 5, 0, 4), ("x (px)", "y (px)"))
)


def _drawn(figure):
    return [np.asarray(panel.images[0].get_array()) for panel in figure.axes if panel.images]


def test_a_run_and_a_reproduction_draw_the_same_mean_of_several_channels(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(STATES, *SHAPE)).astype(np.float32)
    values = np.linspace(0, 4, STATES)
    target = {"name": "U", "unit": "eV"}
    samples = Samples(
        images, values[:, None], {"group": np.arange(STATES)},
        {"input": INPUT, "targets": [target], "digest": "d"}, tmp_path,
    )  # fmt: skip

    def gradient(images):
        maps = np.array(images)
        maps[:, 0] = 0  # nothing in the first channel
        return maps

    ways = {"gradient": gradient, "grad_cam": lambda images: images[:, 1:]}
    saved = {}
    monkeypatch.setattr(attention, "save", lambda figure, path: saved.setdefault(path.stem, figure) and path)
    monkeypatch.setattr(attention, "get", lambda name: TASK)
    about = ModelMetadata(task="x", targets=[target], input=INPUT)
    session = SimpleNamespace(metadata=about, run=lambda images: {"prediction": np.zeros((len(images), 1))})
    explainers = [Explainer(name, name, lambda images, place, own=own: own(images)) for name, own in ways.items()]
    record, _ = attention.by_target(session, explainers, samples, tmp_path, 0)

    known = {name: lambda model, images, own=own: own(images) for name, own in ways.items()}
    monkeypatch.setattr(reproduced_attention, "torch_maps", lambda found, target: known)
    looked = reproduced_attention.look(TASK, SimpleNamespace(info={"explained": 0}, model=None), samples, list(ways), 0)

    for name in ways:
        ours, theirs = _drawn(saved[f"{name}_by_target"]), _drawn(looked[name].figures["maps"])
        assert len(ours) == 8
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(ours[0], images[:5, 1].mean(axis=0), atol=1e-6)
        assert record["methods"][name]["share"] == looked[name].record["share"]
    assert looked["gradient"].figures["maps"].get_suptitle() == "mean gradient, sum over channels"
    assert looked["grad_cam"].figures["maps"].get_suptitle() == "mean grad_cam"
