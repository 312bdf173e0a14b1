"""Images of any height and width through a model of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.session import Session
from stm_models.signal.tiling import whole_field

__all__ = ["ask_field"]

Array = NDArray[Any]

_MARGIN = 16  # pixels next to a cut that are thrown away


def ask_field(
    session: Session, image: NDArray[np.float32], outputs: Sequence[str] = ("prediction", "distance")
) -> dict[str, Array]:
    """Ask a model that answers with maps about one image (C, H, W), tile by tile.

    Parameters
    ----------
    outputs : sequence of str
        ``prediction``, ``distance`` and explanations.

    Returns
    -------
    dict of str to array
        ``prediction`` (1, 1, H, W); ``distance`` (1,), that of the farthest tile; explanations (1, C, H, W), of
        the tile around the strongest answer and zero elsewhere.
    """
    size = session.metadata.input.shape[1:]
    distances = []

    def answer(tiles: NDArray[np.float32]) -> Array:
        found = session.run(tiles, ("prediction", "distance"))
        distances.append(found["distance"])
        return found["prediction"][:, 0]

    prediction = whole_field(image, answer, size, margin=_MARGIN)
    known = {"prediction": prediction[None, None], "distance": np.concatenate(distances).max(keepdims=True)}
    return {name: known[name] if name in known else _explained(session, image, prediction, name) for name in outputs}


def _explained(session: Session, image: NDArray[np.float32], prediction: Array, explain: str) -> Array:
    size = session.metadata.input.shape[1:]
    lack = [max(0, want - have) for want, have in zip(size, image.shape[1:], strict=True)]
    # Zeros: a mirrored border would hold copies of the peaks, and one of them might be the strongest.
    padded = np.pad(image, ((0, 0), *((0, more) for more in lack)))
    peak = np.unravel_index(np.argmax(prediction), prediction.shape)
    y, x = (
        int(np.clip(place - want // 2, 0, have - want))
        for place, want, have in zip(peak, size, padded.shape[1:], strict=True)
    )
    tile = np.s_[:, y : y + size[0], x : x + size[1]]
    whole = np.zeros_like(padded)
    whole[tile] = session.run(padded[tile][None], (explain,))[explain][0]
    return whole[None, :, : image.shape[1], : image.shape[2]]
