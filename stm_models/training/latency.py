"""How long a model takes for one image."""

from __future__ import annotations

import time

import numpy as np
import torch

from stm_models.networks.model import Model
from stm_models.training.reproducible import threads

__all__ = ["latency"]


_WARM_UP, _REPEATS = 5, 31  # calls before those that are timed, and these


def latency(model: Model, shape: tuple[int, int, int]) -> float:
    """Return the median time for one image on one CPU thread, in ms.

    Parameters
    ----------
    model : Model
    shape : (C, H, W)
        Of the image.
    """
    model = model.to("cpu").eval()
    image = torch.zeros((1, *shape))
    times = []
    with torch.inference_mode(), threads(1):
        for _ in range(_WARM_UP):
            model(image)
        for _ in range(_REPEATS):
            start = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
