"""How long a model takes for one image."""

from __future__ import annotations

import time

import numpy as np
import torch

from stm_models.networks.model import Model
from stm_models.training.reproducible import threads

__all__ = ["latency"]


def latency(model: Model, shape: tuple[int, int, int], *, warm_up: int = 5, repeats: int = 31) -> float:
    """Return the median time for one image on one CPU thread, in ms.

    Parameters
    ----------
    model : Model
    shape : (C, H, W)
        Of the image.
    warm_up, repeats : int
        Calls before those that are timed, and these.
    """
    model = model.to("cpu").eval()
    image = torch.zeros((1, *shape))
    times = []
    with torch.inference_mode(), threads(1):
        for _ in range(warm_up):
            model(image)
        for _ in range(repeats):
            start = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
