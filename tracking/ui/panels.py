"""The same samples of several runs side by side: input, prediction and every explanation, one scale of colours each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stm_models.data.panel import Panel
from stm_models.errors import InputError
from stm_models.figures import tiles
from tracking.rows import RunRow
from tracking.ui.kept import Kept
from tracking.ui.series import Series, evaluations
from tracking.ui.site import Site
from tracking.ui.text import number

__all__ = ["Choice", "Grid", "Scale", "Shown", "grid", "is_map", "picture", "places", "shown", "words"]

_DECADES = 5  # of a logarithmic scale
_PLACES = "positions."
_pictures = Kept(128 * 2**20)
Array = NDArray[Any]


@dataclass(frozen=True)
class Shown:
    """A run's panel: whose it is, the evaluation that logged it, and which of its rows each common sample is."""

    series: Series
    run: RunRow
    panel: Panel
    rows: Sequence[int]


@dataclass(frozen=True)
class Choice:
    """What the address chooses: sample (number among the common ones), channel of the input, its scale."""

    sample: int = 0
    channel: int = 0
    logarithmic: bool | None = None


@dataclass(frozen=True)
class Scale:
    """One scale of colours, for every run and sample: what it shows, its ends, colours, logarithmic or not."""

    kind: str
    low: float
    high: float
    colours: str
    logarithmic: bool

    @property
    def ends(self) -> tuple[str, str]:
        """The smallest and largest value, as words."""
        if self.logarithmic:
            return number(10**self.low), number(10**self.high)
        return number(self.low), number(self.high)


@dataclass(frozen=True)
class Grid:
    """What there is to show.

    Attributes
    ----------
    panels : sequence of Shown
    names : sequence of str
        Of the common samples.
    values : sequence of float
        Of the first target, by sample; empty for maps.
    target : str
    channels : int
    scales : mapping of str to Scale
        ``input`` and every map, in the order that they are shown.
    choice : Choice
        Within what exists.
    """

    panels: Sequence[Shown]
    names: Sequence[str]
    values: Sequence[float]
    target: str
    channels: int
    scales: Mapping[str, Scale]
    choice: Choice


def shown(site: Site, found: Sequence[Series]) -> list[Shown]:
    """Return the panels of runs, of one data set alone: of that which most have; the same samples in all."""
    panels: list[tuple[Series, RunRow, Panel]] = []
    for one in found:
        for row in one.members[:1]:
            for source in [row, *evaluations(site, row.id)]:
                panel = site.panel(source.id)
                if panel is not None and panel.images.ndim == 4 and len(panel.names):
                    panels.append((one, source, panel))
    if not panels:
        return []
    digests = Counter({(panel.digest, panel.images.shape[1:]): 0 for _, _, panel in panels})
    for digest in digests:
        owners = {one.number for one, _, panel in panels if (panel.digest, panel.images.shape[1:]) == digest}
        digests[digest] = len(owners)
    (digest, _), *_ = digests.most_common(1)
    chosen: dict[int, tuple[Series, RunRow, Panel]] = {}
    for one, row, panel in panels:
        if (panel.digest, panel.images.shape[1:]) == digest:
            chosen.setdefault(one.number, (one, row, panel))
    common = set.intersection(*({int(row) for row in panel.rows} for _, _, panel in chosen.values()))
    order = [int(row) for row in next(iter(chosen.values()))[2].rows if int(row) in common]
    return [
        Shown(one, row, panel, [list(panel.rows.astype(int)).index(sample) for sample in order])
        for one, row, panel in chosen.values()
        if order
    ]


def grid(panels: Sequence[Shown], choice: Choice) -> Grid:
    """Return the scales that all pictures share, and a choice that exists.

    Raises
    ------
    InputError
        When there is no panel.
    """
    if not panels:
        raise InputError("none of these runs has a panel: evaluate their models with `stm evaluate`")
    first, rows = panels[0].panel, panels[0].rows
    channels = first.images.shape[1]
    chosen = Choice(
        min(max(choice.sample, 0), len(rows) - 1), min(max(choice.channel, 0), channels - 1), choice.logarithmic
    )
    inputs = first.images[:, chosen.channel]
    logarithmic = _wide(inputs) if choice.logarithmic is None else choice.logarithmic
    chosen = Choice(chosen.sample, chosen.channel, logarithmic)
    scales = {"input": _scale("input", [inputs[rows]], logarithmic)}
    kinds = dict.fromkeys(name for one in panels for name in one.panel.arrays if is_map(one.panel, name))
    for kind in kinds:
        arrays = [_map(one.panel, kind, chosen.channel)[one.rows] for one in panels if is_map(one.panel, kind)]
        scales[kind] = _scale(kind, arrays, False)
    numbers = first.targets.ndim == 2
    return Grid(
        panels, [str(first.names[row]) for row in rows],
        [float(first.targets[row, 0]) for row in rows] if numbers else [],
        str(first.target_names[0]) if len(first.target_names) else "", channels, scales, chosen,
    )  # fmt: skip


def picture(shown_panel: Panel, row: int, channel: int, scale: Scale) -> bytes:
    """Return one array of a sample as PNG.

    Raises
    ------
    InputError
        When the panel has no such sample or map.
    """
    if not 0 <= row < len(shown_panel.names) or not 0 <= channel < shown_panel.images.shape[1]:
        raise InputError(f"the panel has no sample {row} with a channel {channel}")
    if scale.kind == "input":
        values = shown_panel.images[row, channel]
    elif is_map(shown_panel, scale.kind):
        values = _map(shown_panel, scale.kind, channel)[row]
    else:
        raise InputError(f"the panel has no map {scale.kind[:60]!r}")
    numbers = np.ascontiguousarray(values, np.float32)
    key = (hashlib.blake2b(numbers.tobytes(), digest_size=16).digest(), numbers.shape, scale)
    return _pictures.get(key, lambda: _drawn(numbers, scale))


def words(one: Shown, sample: int) -> str:
    """Say what a run answered about a sample, and the truth, where these are numbers."""
    panel, row = one.panel, one.rows[sample]
    answer = panel.arrays.get("prediction")
    if answer is None or answer.ndim != 2 or panel.targets.ndim != 2:
        return ""
    said = [
        f"{name} = {number(float(answer[row, place]))} (true {number(float(panel.targets[row, place]))})"
        for place, name in enumerate(panel.target_names)
        if place < min(answer.shape[1], panel.targets.shape[1])
    ]
    return ", ".join(said)


def places(one: Shown, sample: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return what is marked on a picture by its name: x and y from the upper left corner in px, and a confidence."""
    panel, row = one.panel, one.rows[sample]
    height = panel.images.shape[-2]
    marked = {}
    for name, values in panel.arrays.items():
        if not name.startswith(_PLACES) or values.ndim != 3 or values.shape[2] not in (2, 3) or row >= len(values):
            continue
        finite = values[row][np.isfinite(values[row]).all(axis=1)]
        marked[name.removeprefix(_PLACES)] = [
            (float(place[1]) + 0.5, height - 0.5 - float(place[0]), float(place[2]) if len(place) > 2 else 1.0)
            for place in finite
        ]
    return marked


def is_map(panel: Panel, kind: str) -> bool:
    """Tell whether a panel has pictures of this kind beside the input."""
    values = panel.arrays.get(kind)
    if values is None or values.ndim not in (3, 4) or values.dtype.kind != "f" or kind.startswith(_PLACES):
        return False
    return len(values) == len(panel.names) and min(values.shape) > 0 and max(values.shape[-2:]) <= 4096


def _drawn(numbers: NDArray[np.float32], scale: Scale) -> bytes:
    if scale.logarithmic:
        numbers = np.log10(np.maximum(numbers, np.float32(10.0**scale.low)))
    return tiles.tile(numbers, scale.low, scale.high, scale.colours)


def _map(panel: Panel, kind: str, channel: int) -> Array:
    values = panel.arrays[kind]
    return values if values.ndim == 3 else values[:, min(channel, values.shape[1] - 1)]


def _wide(values: Array) -> bool:
    """Tell whether values are better seen on a logarithmic scale: none is negative, and most are small."""
    finite = values[np.isfinite(values)]
    if not finite.size or finite.min() < 0 or finite.max() <= 0:
        return False
    return bool(np.median(finite) < 1e-2 * finite.max())


def _scale(kind: str, arrays: Sequence[Array], logarithmic: bool) -> Scale:
    values = np.concatenate([one[np.isfinite(one)].astype(np.float64).ravel() for one in arrays])
    if not values.size:
        return Scale(kind, 0.0, 1.0, "sequential", False)
    low, high = float(values.min()), float(values.max())
    if logarithmic and high > 0:
        top = float(np.log10(high))
        return Scale(kind, max(top - _DECADES, -300.0), top, "sequential", True)
    if kind != "input" and low < 0:
        # A few pixels would decide otherwise how all the others look.
        limit = float(np.quantile(np.abs(values), 0.995)) or max(-low, high) or 1.0
        return Scale(kind, -limit, limit, "signed", False)
    return Scale(kind, low, high if high > low else low + 1.0, "grey" if kind == "input" else "sequential", False)
