"""Files of networks that answer with a map."""

import numpy as np
import onnxruntime
import pytest
import torch

from deploy.exporting.graph import INPUT, OUTPUTS
from deploy.exporting.write import write
from stm_models.networks import bundle as bundles
from stm_models.networks.model import Model
from stm_models.networks.registry import create, default_options
from stm_models.training.novelty import Novelty

SHAPE = (3, 13, 16)
CASES = {
    "fieldnet": {"width": 3, "dilations": [2], "eightfold": True},
    "voltage_attention": {"width": 4, "depth": 3},
}


@pytest.mark.parametrize("name", CASES)
def test_file_gives_the_map_and_the_slope_of_its_strongest_pixel(name, tmp_path):
    options = {**default_options(name), **CASES[name]}
    model = Model.blank(create(name, SHAPE, 1, options, seed=4)).eval()
    images = np.random.default_rng(0).normal(size=(20, *SHAPE)).astype(np.float32)
    described = model.describe(torch.from_numpy(images)).detach().numpy()
    novelty, quantiles = Novelty.fit(described[:12], described[12:], components=3)
    shared = {
        "task": "hubbard", "input": {"kind": "maps"}, "explained": 0, "data": {"recipe": "r", "digest": "d"},
        "targets": [{"name": "heat", "unit": "1", "description": ""}],
    }  # fmt: skip
    bundles.save(tmp_path / "b", model, novelty, {"network": name, "options": options, **shared})
    own = {"run_id": None, "git_commit": None, "metrics": {}, "distance": {"quantiles": quantiles}}
    reply = write(tmp_path / "b", tmp_path / "m.onnx", {**shared, **own})
    assert max(reply["parity"][key] for key in ("prediction", "gradient", "distance", "rows")) < 1e-4

    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    assert [out.shape for out in session.get_outputs()] == [["batch", 1, *SHAPE[1:]], ["batch", *SHAPE], ["batch"]]
    found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: images[:2]}), strict=True))
    leaf = torch.from_numpy(images[:2]).requires_grad_(True)
    answer = model(leaf)
    np.testing.assert_allclose(found["prediction"], answer.detach().numpy(), atol=1e-5)
    for row in range(2):
        best = answer[row].flatten()[answer[row].argmax()]
        (slope,) = torch.autograd.grad(best, leaf, retain_graph=True)
        wanted = slope[row].numpy()
        np.testing.assert_allclose(found["gradient"][row], wanted, atol=1e-4 * np.abs(wanted).max())
        assert np.abs(wanted).max() > 0
