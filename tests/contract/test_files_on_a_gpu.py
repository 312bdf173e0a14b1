"""Files of every family of networks answer and explain on a GPU as they do on the CPU."""

import numpy as np
import pytest

from deploy.exporting.config import ExportConfig
from deploy.exporting.write import write
from deploy.model import provider
from deploy.model.session import Session
from stm_models.explain.references import references
from stm_models.networks import bundle
from stm_models.networks.model import Model
from stm_models.training.novelty import Novelty
from stm_models.training.predict import features
from support import network_cases as cases

SHAPE = (1, 32, 32)


def _file(name, folder):
    """Write a file of a network with random weights: with all maps of `conv`, of others those that are soon checked."""
    seen, network = cases.images(24, 0, SHAPE), cases.nudge(cases.create(name, SHAPE, 1, seed=1))
    model = Model.for_data(network, seen, np.random.default_rng(2).normal(2.0, 1.5, (24, 1))).eval()
    found = features(model, seen)
    novelty, quantiles = Novelty.fit(found[:16]).calibrated({"clean": (found[16:], np.arange(8))})
    known = {
        "task": "hubbard", "targets": [{"name": "U", "unit": "eV", "description": ""}], "explained": 0,
        "input": {"kind": "test", "channels": SHAPE[0], "height": SHAPE[1], "width": SHAPE[2]},
        "data": {"recipe": "r", "digest": "d"},
    }  # fmt: skip
    info = {"network": name, "options": cases.OPTIONS.get(name, {}), **known}
    kept = bundle.save(folder / "bundle", model, novelty, info, references(seen, cases.images(16, 1, SHAPE), 0))
    own = {"run_id": None, "git_commit": None, "metrics": {}, "distance": {"quantiles": quantiles}}
    write(kept, folder / "m.onnx", {**known, **own}, _config(name))
    return folder / "m.onnx"


def _config(name):
    return ExportConfig(explanations="all" if name == "conv" else "cheap", ig_steps=4, eg_draws=4)


@pytest.mark.gpu
@pytest.mark.parametrize("name", cases.FAMILIES)
def test_a_gpu_gives_the_numbers_of_the_cpu(name, tmp_path):
    if not provider.cuda_devices():
        pytest.skip("no CUDA device")
    path = _file(name, tmp_path)
    on_gpu, on_cpu = Session(path, provider="cuda"), Session(path, provider="cpu")
    assert on_gpu.provider == "cuda"
    for rows in (1, 5):
        seen = cases.images(rows, 90 + rows, SHAPE)
        got, wanted = (one.run(seen, one.output_names) for one in (on_gpu, on_cpu))
        for output, values in wanted.items():
            scale = np.abs(values).max()
            # Where a ReLU is at its kink to within rounding, a line's gradient may fall on either side.
            apart = np.sort((np.abs(got[output] - values) / scale).reshape(rows, -1).max(axis=1))
            assert apart[rows // 2] <= 1e-4, f"{output}: {apart}"
            assert scale > 0
