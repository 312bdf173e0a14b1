"""Images of any height and width through a model of one size."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.serving.session import Session
from stm_models.signal.tiling import whole_field

__all__ = ["ask_field"]

Array = NDArray[Any]

_MARGIN = 16  # pixels next to a cut that are thrown away


def ask_field(session: Session, image: NDArray[np.float32], explain: str | None = None) -> dict[str, Array]:
    """Ask a model that answers with maps about one image (C, H, W), tile by tile.

    Returns
    -------
    dict of str to array
        ``prediction`` (1, 1, H, W); ``distance`` (1,), that of the farthest tile; the explanation (1, C, H, W), of
        the tile around the strongest answer and zero elsewhere.
    """
    size = session.metadata.input.shape[1:]
    distances = []

    def answer(tiles: NDArray[np.float32]) -> Array:
        outputs = session.run(tiles, ("prediction", "distance"))
        distances.append(outputs["distance"])
        return outputs["prediction"][:, 0]

    prediction = whole_field(image, answer, size, margin=_MARGIN)
    found = {"prediction": prediction[None, None], "distance": np.concatenate(distances).max(keepdims=True)}
    return found if explain is None else {**found, explain: _explained(session, image, prediction, explain)}


def _explained(session: Session, image: NDArray[np.float32], prediction: Array, explain: str) -> Array:
    size = session.metadata.input.shape[1:]
    lack = [max(0, want - have) for want, have in zip(size, image.shape[1:], strict=True)]
    padded = np.pad(image, ((0, 0), *((0, more) for more in lack)), mode="reflect")
    peak = np.unravel_index(np.argmax(prediction), prediction.shape)
    y, x = (
        int(np.clip(place - want // 2, 0, have - want))
        for place, want, have in zip(peak, size, padded.shape[1:], strict=True)
    )
    tile = np.s_[:, y : y + size[0], x : x + size[1]]
    whole = np.zeros_like(padded)
    whole[tile] = session.run(padded[tile][None], (explain,))[explain][0]
    return whole[None, :, : image.shape[1], : image.shape[2]]
