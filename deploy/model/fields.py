"""Images of any height and width through a model of one size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.model.session import Session
from stm_models.signal.tiling import filled_up, whole_field
from stm_models.tasks.outputs import PlaceMaps
from stm_models.tasks.verdict import beyond_twice, is_least

__all__ = ["ask_field", "explain_places", "tiles_around"]

Array = NDArray[Any]

_MARGIN = 16  # pixels next to a cut that are thrown away


def ask_field(
    session: Session, image: NDArray[np.float32], outputs: Sequence[str] = ("prediction", "distance")
) -> dict[str, Array]:
    """Ask a model that answers with maps about one image (C, H, W), tile by tile.

    Parameters
    ----------
    outputs : sequence of str
        What the model answers, and explanations.

    Returns
    -------
    dict of str to array
        ``prediction`` and, of an ensemble, ``spread`` (1, 1, H, W); ``distance`` (1,), the mean over the tiles;
        ``novelty`` (1,), a p-value whatever the tiles have in common; explanations (1, C, H, W), of the strongest
        answer in a tile around it and zero elsewhere.
    """
    size = session.metadata.input.shape[1:]
    names = [name for name in ("spread", "distance", "novelty") if name in session.output_names]
    beside: dict[str, list[Array]] = {name: [] for name in names}

    def answer(tiles: NDArray[np.float32]) -> Array:
        found = session.run(tiles, ("prediction", *beside))
        for name, values in beside.items():
            values.append(found[name])
        return found["prediction"][:, 0]

    prediction = whole_field(image, answer, size, margin=_MARGIN)
    known = {"prediction": prediction[None, None]}
    if "spread" in beside:
        apart = iter(beside.pop("spread"))  # of the same tiles, in the same order
        known["spread"] = whole_field(image, lambda _: next(apart)[:, 0], size, margin=_MARGIN)[None, None]
    for name, values in beside.items():
        # Not the farthest: of nine tiles one is beyond the limit of a single tile in every tenth field, by chance.
        tiles = np.concatenate(values)
        groups = int((session.metadata.novelty or {}).get("groups", 0))
        known[name] = tiles.mean(keepdims=True) if name == "distance" else _together(tiles, groups)
    return {name: known[name] if name in known else _explained(session, image, prediction, name) for name in outputs}


def _together(chances: Array, groups: int) -> Array:
    """Return one p-value (1,) of those of a field's tiles (K,), whatever these have in common.

    Twice their mean [1]_. Where all have the least p-value there is, L, it is L; where a verdict's limit c is above L
    and not above 2 L, so that twice a mean is never below it, it is their largest if that is below c, else at least
    2 c. All this stays a p-value: the largest is one, and from 2 L or 2 c on it is twice the mean alone.

    References
    ----------
    .. [1] Vovk, Wang, "Combining p-values via averaging", Biometrika 107, 791 (2020).
    """
    largest, limit = chances.max(keepdims=True), beyond_twice(groups)
    if len(chances) == 1 or is_least(chances, groups) or largest < limit:
        return largest
    return np.clip(2 * chances.mean(keepdims=True), 2 * limit, 1)


def explain_places(
    session: Session, image: NDArray[np.float32], prediction: Array, places: Array, method: str
) -> PlaceMaps:
    """Explain places of an answered map one by one, each in a tile of the model's size around it.

    Parameters
    ----------
    image : (C, H, W) float32
        Of any height and width; a field smaller than the model's is mirrored, as for its answer.
    prediction : (H, W)
        The answer to it.
    places : (K, 2), px
        y and x. What is explained is the score of the highest pixel within one of each.
    method : str
        One of the model's explanations.

    Returns
    -------
    PlaceMaps
        Its maps are as large as the model's input, or as the field where that is smaller.

    Raises
    ------
    InputError
        When the model cannot explain a chosen pixel.
    """
    size, field = session.metadata.input.shape[1:], image.shape[1:]
    before, after = filled_up(field, size)
    pixels = np.array([_highest(prediction, place) for place in places], np.int64).reshape(-1, 2)
    tiles, corners = tiles_around(image, pixels, size)
    y, x = (pixels + before - corners).T
    maps = session.run(tiles, (method,), y * size[1] + x)[method]
    for axis in range(2):
        maps = _unmirrored(maps, 2 + axis, field[axis], before[axis], after[axis])
    return PlaceMaps(method, np.asarray(places, np.float64), pixels, corners, maps)


def tiles_around(image: NDArray[np.float32], pixels: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Cut a tile of ``size`` around each of ``pixels`` (K, 2) out of an image, mirrored where it is smaller.

    Returns
    -------
    tiles : (K, C, h, w) float32
    corners : (K, 2) int64
        y and x of each tile's first pixel in the image, mirrored rows and columns before it counted.
    """
    before, after = filled_up(image.shape[1:], size)
    padded = np.pad(image, ((0, 0), *zip(before, after, strict=True)), mode="reflect")
    corners = np.clip(pixels + before - np.array(size) // 2, 0, np.array(padded.shape[1:]) - size)
    return np.stack([padded[:, y : y + size[0], x : x + size[1]] for y, x in corners]), corners


def _explained(session: Session, image: NDArray[np.float32], prediction: Array, method: str) -> Array:
    place = np.unravel_index(np.argmax(prediction), prediction.shape)
    found = explain_places(session, image, prediction, np.array([place]), method)
    (y, x), (height, width) = found.corners[0], found.maps.shape[2:]
    whole = np.zeros_like(image)
    whole[:, y : y + height, x : x + width] = found.maps[0]
    return whole[None]


def _highest(prediction: Array, place: Array) -> tuple[int, int]:
    """Return the highest of the pixels next to ``place``: a fitted maximum may lie half a pixel off its own.

    Those more than one away are left out, since a maximum two pixels beside may be another and higher.
    """
    y, x = (max(int(np.ceil(at - 1)), 0) for at in place)
    end_y, end_x = (int(np.floor(at + 1)) + 1 for at in place)
    near = prediction[y:end_y, x:end_x]
    row, column = np.unravel_index(np.argmax(near), near.shape)
    return y + int(row), x + int(column)


def _unmirrored(maps: Array, axis: int, length: int, before: int, after: int) -> Array:
    """Add derivatives by mirrored pixels to those by the pixels of which they are copies."""
    if before == after == 0:
        return maps
    source = np.pad(np.arange(length), (before, after), mode="reflect")
    whole = np.zeros((length, *np.delete(maps.shape, axis)), maps.dtype)
    np.add.at(whole, source, np.moveaxis(maps, axis, 0))
    return np.moveaxis(whole, 0, axis)
