"""Does a map show what the prediction depends on? Deletion and insertion curves, and how steady the map is.

Everything here takes functions, so that a model file and a torch model are judged alike: an *answer* turns images
(B, C, H, W) into numbers (B,), a *map function* turns them into maps (B, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.errors import InputError

__all__ = [
    "Answer", "Curves", "MapFunction", "RandomOrders", "curves", "evaluate_in_batches", "max_sensitivity", "order",
    "random_orders",
]  # fmt: skip

Array = NDArray[Any]
Answer = Callable[[Array], Array]
MapFunction = Callable[[Array], Array]

_VALUES = 2**22  # of the images of one batch
_BATCH = 64


@dataclass(frozen=True)
class RandomOrders:
    """What pixels removed in random order do: the baseline of every map of one image.

    Attributes
    ----------
    fractions : (K,) float64
        Of the pixels that are removed, 0 to 1; the same read from both ends.
    deletion : (R, K) float64
        The answer along each order.
    """

    fractions: Array
    deletion: Array

    @property
    def insertion(self) -> Array:
        """The answer along random orders of insertion: removing in one order is inserting in the other, backwards."""
        return self.deletion[:, ::-1]


@dataclass(frozen=True)
class Curves:
    """The answer while pixels are removed from, or put into, an image in the order of a map.

    Attributes
    ----------
    fractions : (K,) float64
    deletion, insertion : (K,) float64
        Answers; the first of ``deletion`` and the last of ``insertion`` are those to the image.
    random : RandomOrders
    """

    fractions: Array
    deletion: Array
    insertion: Array
    random: RandomOrders

    def record(self) -> dict[str, Any]:
        """Return areas and curves, JSON-able.

        An area is the mean over the fractions of how far the answer still is from where it goes, in its unit: under
        deletion to that to the reference, under insertion to that to the image. A faithful map has small ones, since
        what matters goes, or comes, first. ``gain`` is the area between its curve and the mean random one, positive
        where the map is better; ``beaten`` is the share of the random orders that are worse.
        """
        goals = {"deletion": float(self.deletion[-1]), "insertion": float(self.deletion[0])}
        found: dict[str, Any] = {"answer": goals["insertion"], "answer_to_reference": goals["deletion"]}
        for name, goal in goals.items():
            own = _area(self.fractions, getattr(self, name), goal)
            others = np.array([_area(self.fractions, one, goal) for one in getattr(self.random, name)])
            gains = others - own
            found[name] = {
                "area": own, "random": float(others.mean()), "random_sd": float(others.std()),
                "gain": float(gains.mean()), "beaten": float(np.mean(gains > 0)),
            }  # fmt: skip
        found["curves"] = {
            "fraction": self.fractions.tolist(), "deletion": self.deletion.tolist(),
            "insertion": self.insertion.tolist(), "random_deletion": self.random.deletion.mean(axis=0).tolist(),
            "random_insertion": self.random.insertion.mean(axis=0).tolist(),
        }  # fmt: skip
        return found


def order(map: Array, seed: int = 0) -> NDArray[np.int64]:
    """Return the pixels of a map (C, H, W), the largest sum of \\|map\\| over channels first: (H W,), y W + x.

    Equal pixels, such as those of no importance at all, come in an order drawn by ``seed``.

    Raises
    ------
    InputError
        When the map is not finite.
    """
    strength = np.abs(np.asarray(map, np.float64)).sum(axis=0).ravel()
    if not np.isfinite(strength).all():
        raise InputError("the map holds NaN or infinity: expected finite numbers")
    ties = np.random.default_rng([seed, 1]).permutation(strength.size)
    return np.lexsort((ties, -strength))


def random_orders(
    answer: Answer, image: Array, reference: Array, *, steps: int = 16, draws: int = 8, seed: int = 0
) -> RandomOrders:
    """Remove the pixels of an image in ``draws`` random orders.

    Parameters
    ----------
    answer : callable
        (B, C, H, W) -> (B,).
    image, reference : (C, H, W) float32
        Removed pixels take the values of ``reference``, in every channel.
    steps : int
        About so many fractions between nothing and everything.
    draws, seed : int
        Number of orders, and what draws them.

    Raises
    ------
    InputError
        When the shapes differ, or there are fewer than two steps or no draws.
    """
    counts = _counts(image, reference, steps)
    if draws < 1:
        raise InputError(f"draws is {draws}: expected at least 1 random order")
    rng = np.random.default_rng([seed, 2])
    orders = [rng.permutation(counts[-1]) for _ in range(draws)]
    images = (one for own in orders for one in _removed(image, reference, own, counts))
    found = evaluate_in_batches(answer, images, image.size)
    return RandomOrders(counts / counts[-1], found.reshape(draws, -1))


def curves(
    answer: Answer, image: Array, map: Array, reference: Array, *, random: RandomOrders | None = None,
    steps: int = 16, draws: int = 8, seed: int = 0,
) -> Curves:  # fmt: skip
    """Remove and insert the pixels of an image in the order of \\|map\\|.

    Parameters
    ----------
    map : (C, H, W) or (1, H, W)
        Only the order of its pixels matters; see `order`.
    random : RandomOrders, optional
        Of the same image, reference and steps; made here if not given. The others are as for `random_orders`.

    Raises
    ------
    InputError
        When the shapes differ or the map is not finite.

    Notes
    -----
    V. Petsiuk, A. Das, K. Saenko, BMVC 2018 (arXiv 1806.07421), for a number instead of a probability.
    """
    if map.ndim != 3 or map.shape[1:] != image.shape[1:] or len(map) not in (1, len(image)):
        raise InputError(f"the map has shape {map.shape}: expected the image's, {image.shape}, or one channel of it")
    counts = _counts(image, reference, steps)
    own = order(map, seed)
    random = random or random_orders(answer, image, reference, steps=steps, draws=draws, seed=seed)
    if len(random.fractions) != len(counts):
        raise InputError(f"the random orders have {len(random.fractions)} fractions: expected {len(counts)}")
    images = (
        one
        for start, end in ((image, reference), (reference, image))
        for one in _removed(start, end, own, counts)
    )  # fmt: skip
    deletion, insertion = evaluate_in_batches(answer, images, image.size).reshape(2, -1)
    return Curves(counts / counts[-1], deletion, insertion, random)


def max_sensitivity(
    explain: MapFunction, image: Array, *, map: Array | None = None, radius: float = 0.02, draws: int = 4, seed: int = 0
) -> float:
    """Return the largest relative change of a map, \\|\\|m(x + d) - m(x)\\|\\| / \\|\\|m(x)\\|\\|, under small noise d.

    Parameters
    ----------
    explain : callable
        (B, C, H, W) -> (B, C, H, W).
    image : (C, H, W) float32
    map : (C, H, W), optional
        That of ``image``, where it is known.
    radius : float
        The noise is uniform within so many standard deviations of the image's pixels, channel by channel.
    draws, seed : int
        Number of noises, and what draws them.

    Returns
    -------
    float
        Infinity for a map of zeros that does not stay one.

    Notes
    -----
    C.-K. Yeh et al., NeurIPS 2019 (arXiv 1901.09392); the maximum is over draws, so a lower bound.
    """
    rng = np.random.default_rng([seed, 3])
    spread = image.std(axis=(1, 2), keepdims=True, dtype=np.float64)
    plain = np.asarray(explain(image[None])[0] if map is None else map, np.float64)
    size, largest = float(np.linalg.norm(plain)), 0.0
    for _ in range(draws):
        noise = radius * spread * rng.uniform(-1, 1, image.shape)
        moved = np.asarray(explain((image + noise).astype(image.dtype)[None])[0], np.float64)
        largest = float(np.maximum(largest, np.linalg.norm(moved - plain)))  # NaN stays NaN
    if size > 0:
        return largest / size
    return 0.0 if largest == 0 else float("inf")


def evaluate_in_batches(answer: Answer, images: Iterator[Array], size: int) -> NDArray[np.float64]:
    """Ask about images of ``size`` values as they come, so many at a time as memory is sure to hold."""
    batch = max(1, min(_BATCH, _VALUES // size))
    waiting: list[Array] = []
    found: list[Array] = []
    for one in images:
        waiting.append(one)
        if len(waiting) == batch:
            found.append(np.asarray(answer(np.stack(waiting)), np.float64))
            waiting = []
    if waiting:
        found.append(np.asarray(answer(np.stack(waiting)), np.float64))
    return np.concatenate(found)


def _counts(image: Array, reference: Array, steps: int) -> NDArray[np.int64]:
    """Numbers of pixels to remove, none and all among them; what is left of each is another one of them."""
    if image.ndim != 3 or reference.shape != image.shape:
        raise InputError(
            f"the image has shape {image.shape} and the reference {reference.shape}: expected (C, H, W) twice"
        )
    if steps < 2:
        raise InputError(f"steps is {steps}: expected at least 2")
    pixels = int(image[0].size)
    low = np.round(np.linspace(0, pixels / 2, steps // 2 + 1)).astype(np.int64)
    return np.unique(np.concatenate([low, pixels - low]))


def _removed(image: Array, reference: Array, order: Array, counts: Array) -> Iterator[Array]:
    changed = np.array(image)
    flat, other = changed.reshape(len(image), -1), reference.reshape(len(image), -1)
    before = 0
    for count in counts:
        part = order[before:count]
        flat[:, part] = other[:, part]
        before = count
        yield changed.copy()


def _area(fractions: Array, values: Array, goal: float) -> float:
    return float(np.trapezoid(np.abs(values - goal), fractions))
