"""Several processes, started by torchrun, that train one network together."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from stm_models.errors import InputError

__all__ = ["World", "current", "joined", "lost"]

Value = TypeVar("Value")

# The others wait while rank 0 simulates what calibrates; one that ended is noticed by torchrun, not by silence.
_PATIENCE = timedelta(days=1)

# What gloo and NCCL say of a process that is gone.
_GONE = ("connection closed by peer", "connection reset by peer", "nccl", "broken pipe", "timed out")


@dataclass(frozen=True)
class World:
    """The processes of a training and this one's place among them.

    Each applies the network to its share of every batch. Answers are exchanged before the loss is taken, gradients
    are added up after it: the step is that of one process with the whole batch, whatever the loss. Only statistics
    over a batch inside the network (batch normalisation) see the share alone.
    """

    rank: int = 0
    size: int = 1

    def share(self, value: Value | None) -> Value:
        """Return what rank 0 gave."""
        held: list[Value | None] = [value]
        if self.size > 1:
            distributed.broadcast_object_list(held, src=0)
        return held[0]  # type: ignore[return-value]

    def part(self, x: Tensor) -> Tensor:
        """Return this process's share of a batch.

        Raises
        ------
        InputError
            When there are fewer samples than processes.
        """
        if len(x) < self.size:
            raise InputError(
                f"a batch has {len(x)} samples, fewer than the {self.size} processes: raise train.batch_size, or "
                "start fewer processes"
            )
        return x.tensor_split(self.size)[self.rank]

    def whole(self, own: Tensor, total: int) -> Tensor:
        """Return the answers of all processes, (total, ...); only this one's carry a gradient."""
        if self.size == 1:
            return own
        sizes = [len(part) for part in torch.empty(total, 0).tensor_split(self.size)]
        start = sum(sizes[: self.rank])
        everyone = own.new_zeros((total, *own.shape[1:]))
        everyone[start : start + len(own)] = own.detach()
        distributed.all_reduce(everyone)
        return torch.cat([everyone[:start], own, everyone[start + len(own) :]])

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their sums over the processes."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))


def current() -> World:
    """Return the processes that `joined` brought together, else this one alone."""
    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World()


def lost(error: BaseException) -> bool:
    """Tell whether ``error`` says that another process of the training is gone."""
    return current().size > 1 and any(word in str(error).lower() for word in _GONE)


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Bring together the processes that torchrun started; without it, this one is alone.

    Parameters
    ----------
    device : str
        As ``train.device``: NCCL with a GPU for each process, gloo on the CPU.

    Raises
    ------
    InputError
        When there are fewer GPUs than processes of this machine.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) < 2:
        yield World()
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        place, count = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if place >= count:
            raise InputError(
                f"torchrun started more processes than the {count} GPUs of this machine: lower --nproc-per-node, or "
                "set train.device=cpu"
            )
        torch.cuda.set_device(place)
    with _aside():
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    # After an error the others may wait in vain: torchrun ends them, and destroying the group could hang.
    yield current()
    distributed.destroy_process_group()


@contextmanager
def _aside() -> Iterator[None]:
    """Send to standard error what compiled code prints: gloo of some torch versions talks, and results are printed."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
