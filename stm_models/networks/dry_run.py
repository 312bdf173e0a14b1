"""What a module would give for images of a size, found out without computing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from stm_models.errors import InputError, one_line

__all__ = ["feature_count", "sizes_that_work"]

Shape = tuple[int, int, int]
Make = Callable[[Shape], nn.Module]

_BATCH, _ENOUGH = 2, 4
_SIZES = (16, 32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 384)


def feature_count(make: Make, shape: Shape) -> int:
    """Return F, where what ``make(shape)`` builds turns images (B, C, H, W) into features (B, F).

    Shapes alone are followed, on the meta device; where that fails, two images of zeros go through.

    Raises
    ------
    ValueError
        When the module cannot take such images, or gives something else.
    InputError
        As ``make`` does.
    """
    try:
        return _on_meta(make, shape)
    except Exception:  # noqa: S110  (not every module can be made on the meta device)
        pass
    try:
        return _count(make(shape), shape)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a module may refuse in any way it likes
        raise ValueError(one_line(error, 200)) from error


def sizes_that_work(make: Make, shape: Shape) -> list[int]:
    """Return a few sizes (pixels, square) near ``shape`` at which what ``make`` builds gives features."""
    found: list[int] = []
    for size in sorted(_SIZES, key=lambda size: abs(size - min(shape[1:]))):
        if len(found) == _ENOUGH:
            break
        try:
            _on_meta(make, (shape[0], size, size))
        except Exception:  # noqa: S112  (building or running it failed: this size does not work)
            continue
        found.append(size)
    return sorted(found)


def _on_meta(make: Make, shape: Shape) -> int:
    with torch.device("meta"):
        return _count(make(shape), shape)


def _count(module: nn.Module, shape: Shape) -> int:
    device = next((parameter.device for parameter in module.parameters()), None)
    with torch.no_grad():
        result = module.eval()(torch.zeros((_BATCH, *shape), device=device))
    found = tuple(getattr(result, "shape", ()))
    if len(found) != 2 or found[0] != _BATCH or found[1] < 1:
        raise ValueError(f"what it gives has shape {found or type(result).__name__}: no features per image")
    return int(found[1])
