"""Weights to start from, read from a file and laid into a module."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stm_models.errors import InputError

__all__ = ["SUFFIXES", "average_stem", "lay", "read"]

SUFFIXES = (".safetensors", ".pt", ".pth")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Longest first: our own bundles, then what others wrap a network in.
_PREFIXES = (
    "model.network.body.",
    "network.body.",
    "_orig_mod.module.",
    "module.",
    "_orig_mod.",
    "backbone.",
    "model.",
)
_SHOWN = 4

State = dict[str, Tensor]


def read(path: str | Path) -> State:
    """Read the tensors of a ``.safetensors`` file, or of a ``.pt`` or ``.pth`` file without running code from it.

    Raises
    ------
    InputError
        When the file is missing, damaged, of another kind, holds code or other objects, or NaN.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"weights {path}: expected a file that ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"weights {path}: there is no such file")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _unwrapped(_load(path))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"weights {path} hold code or objects, and only tensors are read: save the state_dict alone, "
            "best as .safetensors"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"weights {path} cannot be read: the file is damaged or of another kind") from error
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"weights {path} are no state_dict: expected tensors by name")
    broken = [key for key, value in found.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if broken:
        raise InputError(f"weights {path} hold NaN or infinity in {_listed(broken)}: give sound ones")
    return dict(found)


def lay(
    state: State,
    module: nn.Module,
    *,
    heads: Iterable[str],
    stems: Mapping[str, Callable[[Tensor, int], Tensor]],
    remap: Callable[[State], State] | None = None,
    where: str,
) -> list[str]:
    """Copy ``state`` into ``module`` and return the names in ``state`` that were not used: those of its head.

    Parameters
    ----------
    heads : iterable of str
        Names of layers that the file may have and the module does not.
    stems : mapping of str to callable
        Layers (by name) that see the images, and what makes a weight (F, c, h, w) fit another number of channels.
    remap : callable, optional
        Renames and resamples what was saved by another version, or for another image size; tried where ``state``
        does not fit as it is.
    where : str
        What to call the file in messages.

    Raises
    ------
    InputError
        When something is missing or superfluous but for the head, or has another shape.
    """
    wanted = module.state_dict()
    state = _stripped(state, wanted)
    heads = tuple(f"{head}." for head in heads)
    body, unused = _without(state, heads, wanted)
    if remap is not None and _problems(_with_stems(body, wanted, stems), wanted):
        try:
            body, more = _without(remap(dict(state)), heads, wanted)
            unused = sorted({*unused, *more})
        except Exception:  # noqa: S110  (what does not fit is told below, of the file as it is)
            pass
    body = _with_stems(body, wanted, stems)
    problems = _problems(body, wanted)
    if problems:
        raise InputError(
            f"{where} do not fit the network: {'; '.join(problems)}. Give weights of this very network; "
            f"its last layer ({', '.join(head.rstrip('.') for head in heads)}) may differ"
        )
    module.load_state_dict(body, strict=False)
    return unused


def average_stem(weight: Tensor, channels: int) -> Tensor:
    """Return (F, channels, h, w) weights that answer equal channels as the mean over colours of ``weight`` does.

    Notes
    -----
    For one channel this is the mean of the RGB weights, as in arXiv 2602.18890.
    """
    return weight.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels


def _load(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that it refuses the next moment
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(found: object) -> object:
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            return found[key]
    return found


def _stripped(state: State, wanted: Mapping[str, Tensor]) -> State:
    """Take the prefix off under which most of what is wanted is found."""

    def hits(prefix: str) -> int:
        return sum(prefix + key in state for key in wanted)

    best = max(("", *_PREFIXES), key=hits)
    if not best or not hits(best):
        return state
    return {key.removeprefix(best): value for key, value in state.items() if key.startswith(best)}


def _without(state: State, heads: tuple[str, ...], wanted: Mapping[str, Tensor]) -> tuple[State, list[str]]:
    unused = sorted(key for key in state if key.startswith(heads) and key not in wanted)
    return {key: value for key, value in state.items() if key not in unused}, unused


def _with_stems(
    state: State, wanted: Mapping[str, Tensor], stems: Mapping[str, Callable[[Tensor, int], Tensor]]
) -> State:
    result = dict(state)
    for name, adapt in stems.items():
        key = f"{name}.weight"
        if key in state and key in wanted and state[key].ndim == wanted[key].ndim == 4:
            channels = wanted[key].shape[1]
            if state[key].shape[1] != channels:
                result[key] = adapt(state[key], channels)
    return result


def _problems(state: State, wanted: Mapping[str, Tensor]) -> list[str]:
    # Old files lack the counters of batch normalisation, which nothing here reads.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in wanted]
    other = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = {"missing": missing, "not known": extra, "of another shape": other}
    return [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
