"""Running out of memory, told apart from other failures."""

from __future__ import annotations

import torch

from stm_models.errors import TrainingFailed

__all__ = ["exhausted", "is_exhausted"]

# What the allocators of the CPU and of CUDA's libraries say.
_WORDS = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory", "ALLOC_FAILED")


def is_exhausted(error: BaseException) -> bool:
    """Tell whether ``error`` says that memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def exhausted(what: str, device: torch.device) -> TrainingFailed:
    """Return what to say when memory did not suffice for ``what`` on ``device``."""
    return TrainingFailed(
        f"out of memory on {device.type} {what}: lower train.batch_size, take a smaller network or smaller images, "
        "or end what else uses the memory"
    )
