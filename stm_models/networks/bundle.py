"""A trained model as a folder: weights.safetensors and model.json."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stm_models.errors import InputError
from stm_models.files import write_json
from stm_models.networks.bundle_files import INFO, MEMBER, PIXEL_MEAN, REFERENCES, WEIGHTS
from stm_models.networks.ensemble import together
from stm_models.networks.model import Model
from stm_models.networks.registry import create
from stm_models.training.appearance import Appearance
from stm_models.training.intervals import Interval
from stm_models.training.novelty import Novelty

__all__ = ["Bundle", "load", "save"]

_KEYS = ("network", "options", "input", "targets", "task", "data", "explained")


@dataclass(frozen=True)
class Bundle:
    """A model ready to use: in eval mode on the CPU, with parameters that need no gradient.

    Attributes
    ----------
    model : Model
    novelty : Novelty or None
        Of the model's features.
    info : dict
        network, options, input, targets, task, data, explained; start, where the training started from given weights.
    baseline : (C, H, W) float32 or None
        Mean of the training images, and
    background : (K, C, H, W) float32 or None
        some of them: what explanations compare with.
    heldout : (K, C, H, W) float32 or None
        Some held-out images of each set that the model claims to know, which an exported file is judged on. Older
        bundles have some of the clean ones, or none of the three.
    interval : Interval or None
        Of a model that answers with numbers.
    """

    model: Model
    novelty: Novelty | None
    info: dict[str, Any]
    baseline: Tensor | None = None
    background: Tensor | None = None
    heldout: Tensor | None = None
    interval: Interval | None = None

    def answers(self, x: Tensor) -> dict[str, Tensor]:
        """Return everything that the model answers to images ``x`` (B, C, H, W), by name, with B rows each.

        ``prediction`` (B, T) or (B, 1, H, W); where the bundle holds an interval its bounds ``lower`` and ``upper``
        (B, T), where it holds a novelty the ``distance`` (B,) to the training data and its p-value ``novelty`` (B,).
        Of an ensemble the ``spread`` of its members too, (B, T) or (B, 1, H, W).
        The exporter makes each of them an output of the model file.
        """
        found, apart = {"prediction": self.model(x)}, self.model.apart(x)
        if apart.shape[1]:
            found["spread"] = self.model.in_units(apart)
        if self.novelty is None:
            return found
        features = self.novelty.seen(self.model.features(x), x)
        if self.interval is not None:
            hints = self.novelty.hints(features, self.model.noise(x), apart)
            lower, upper = self.interval(hints, found["prediction"])
            found |= {"lower": lower.clamp_min(0.0) if self.model.clamp else lower, "upper": upper}
        distance = self.novelty(features)
        return found | {"distance": distance, "novelty": self.novelty.p_value(distance)}

    def double(self) -> Bundle:
        """Return the bundle in float64, made of its own modules: what rounding errors are measured against."""
        for part in (self.model, self.novelty, self.interval):
            if part is not None:
                part.double()
        return self


def save(
    bundle_dir: str | Path,
    model: Model,
    novelty: Novelty | None,
    info: Mapping[str, Any],
    references: Mapping[str, NDArray[np.float32]] | None = None,
    interval: Interval | None = None,
) -> Path:
    """Write the folder ``bundle_dir`` as a whole; an older bundle there is replaced.

    Parameters
    ----------
    info : mapping
        Needs network (name), options, input, targets, task, data and explained; JSON values.
    references : mapping, optional
        ``baseline``, ``background`` and ``heldout``, see `Bundle`.

    Raises
    ------
    InputError
        When ``info`` lacks a key, or ``bundle_dir`` exists and is no bundle, or cannot be written.
    """
    bundle_dir = Path(bundle_dir)
    _require(info, "the bundle's info")
    if bundle_dir.exists() and not (bundle_dir.is_dir() and _is_ours(bundle_dir)):
        raise InputError(f"{bundle_dir} exists and is no model bundle: choose another folder")
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    if novelty is not None:
        tensors |= {f"novelty.{key}": value for key, value in novelty.state_dict().items()}
    if interval is not None:
        tensors |= {f"interval.{key}": value for key, value in interval.state_dict().items()}
    tensors |= {f"{REFERENCES}{key}": torch.from_numpy(value) for key, value in (references or {}).items()}
    try:
        bundle_dir.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{bundle_dir.name}.", dir=bundle_dir.parent))
    except OSError as error:
        raise InputError(f"cannot write to {bundle_dir}: {error.strerror}; choose another folder") from error
    try:
        part.chmod(0o755)
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
            part / WEIGHTS,
            metadata={"format": "pt"},
        )
        write_json(part / INFO, {**info, **({"start": dict(model.network.start)} if model.network.start else {})})
        _swap(part, bundle_dir)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return bundle_dir


def load(bundle_dir: str | Path) -> Bundle:
    """Read a folder that `save` wrote.

    Raises
    ------
    InputError
        When the folder or one of its files is missing, truncated or made by something else.
    """
    bundle_dir = Path(bundle_dir)
    for name in (INFO, WEIGHTS):
        if not (bundle_dir / name).is_file():
            raise InputError(f"{bundle_dir} is no model bundle: {name} is missing; give the folder that train wrote")
    try:
        info = json.loads((bundle_dir / INFO).read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(bundle_dir / INFO, "no valid JSON") from error
    if not isinstance(info, dict):
        raise _damaged(bundle_dir / INFO, "no JSON object")
    _require(info, str(bundle_dir / INFO))
    try:
        tensors = load_file(bundle_dir / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise _damaged(bundle_dir / WEIGHTS, "truncated or no safetensors file") from error
    try:
        model = _blank(info, tensors)
        outputs = len(tensors["model.target_mean"])
        model.load_state_dict(_part(tensors, "model."))
        novelty = interval = None
        if "novelty.mean" in tensors:
            appearance = None
            if "novelty.appearance.pixels" in tensors:
                pixels, spread = tensors["novelty.appearance.pixels"], tensors["novelty.appearance.spread"]
                appearance = Appearance((int(pixels[0]), int(pixels[1]), int(pixels[2])), len(spread))
            sets, knots = tensors["novelty.starts"].shape
            novelty = Novelty(len(tensors["novelty.mean"]), sets, knots, appearance)
            novelty.load_state_dict(_part(tensors, "novelty."))
            novelty.eval()
        if "interval.mean" in tensors:
            interval = Interval(len(tensors["interval.mean"]), outputs, *tensors["interval.factor"].shape[1:])
            interval.load_state_dict(_part(tensors, "interval."))
            interval.eval().requires_grad_(False)
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise _damaged(bundle_dir / WEIGHTS, f"its tensors do not fit network {info['network']!r}") from error
    return Bundle(model.eval().requires_grad_(False), novelty, info, interval=interval, **_part(tensors, REFERENCES))


def _blank(info: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Model:
    """Return the model that ``tensors`` fill; it has as many members as they are of."""
    in_shape, outputs = tuple(tensors[PIXEL_MEAN].shape), len(tensors["model.target_mean"])

    def single() -> Model:
        return Model.blank(create(info["network"], in_shape, outputs, info["options"], blank=True))

    members = sum(MEMBER.fullmatch(key) is not None for key in tensors)
    if not members:
        return single()
    first = single()
    if _numbers(tensors) < members * _numbers(first.state_dict()):  # before others are made: they take memory
        raise ValueError("fewer weights than members have")
    return together([first, *(single() for _ in range(members - 1))])


def _numbers(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())


def _swap(new: Path, target: Path) -> None:
    if not target.exists():
        os.replace(new, target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    os.replace(target, old)
    try:
        os.replace(new, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _is_ours(folder: Path) -> bool:
    return not any(folder.iterdir()) or (folder / INFO).is_file()


def _require(info: Mapping[str, Any], where: str) -> None:
    missing = [key for key in _KEYS if key not in info]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}: expected {', '.join(_KEYS)}")


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} cannot be read ({why}): copy the bundle again or train anew")
