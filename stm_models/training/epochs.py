"""One epoch of a training: steps, their loss, and where it can be taken up again."""

from __future__ import annotations

import sys
import time
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stm_models.errors import TrainingFailed
from stm_models.training.checkpoints import Checkpoint, Keeper
from stm_models.training.learner import Learner
from stm_models.training.losses import confidence
from stm_models.training.memory import exhausted, is_exhausted
from stm_models.training.perturbations import perturb
from stm_models.training.reproducible import mixed, seeded
from stm_models.training.schedules import learning_rate

__all__ = ["diverged", "run_epoch"]

_NAMED = 12  # samples of a bad batch


class _Streams:
    """The generators of an epoch beside torch's own: of distortions and of tiles."""

    def __init__(self, seed: int, epoch: int, device: torch.device) -> None:
        self.distorting = torch.Generator(device).manual_seed(mixed(seed, epoch, 1))
        self.tiling = torch.Generator().manual_seed(mixed(seed, epoch, 2))
        self._device = device

    def state(self) -> dict[str, Tensor]:
        own = {"distorting": self.distorting.get_state(), "tiling": self.tiling.get_state()}
        cuda = {"cuda": torch.cuda.get_rng_state(self._device)} if self._device.type == "cuda" else {}
        return {**own, **cuda, "cpu": torch.get_rng_state()}

    def restore(self, state: dict[str, Tensor]) -> None:
        # A training may go on on another kind of device, whose generators have states of another size.
        if len(state["distorting"]) == len(self.distorting.get_state()):
            self.distorting.set_state(state["distorting"])
        self.tiling.set_state(state["tiling"])
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self._device)


def run_epoch(learner: Learner, state: Checkpoint, keeper: Keeper) -> tuple[float, float]:
    """Train through the epoch after ``state.epoch``, from ``state.position`` on.

    Returns
    -------
    loss, rate : float
        Mean loss over the samples, and the last learning rate.

    Raises
    ------
    TrainingFailed
        For a loss that became NaN or infinite, or memory that does not suffice for half a batch.
    """
    config, world, epoch = learner.config, learner.world, state.epoch + 1
    losses: list[Tensor] = []
    start, before = time.perf_counter(), state.seconds
    with seeded(config.seed, epoch, learner.device) as generator:
        streams = _Streams(config.seed, epoch, learner.device)
        if world.rank:
            torch.manual_seed(mixed(config.seed, epoch, 3, world.rank))  # other units drop out than on rank 0
        if state.position:
            streams.restore(state.random)
        learner.model.train()
        first = state.position // state.pieces
        for batch, (x, y) in enumerate(islice(learner.source.epoch(epoch, generator), first, None), first):
            while state.position < (batch + 1) * state.pieces:
                piece = state.position - batch * state.pieces
                own_x, own_y = (part.tensor_split(state.pieces)[piece] for part in (x, y))
                loss = _step(learner, state, own_x, own_y, streams)
                if loss is None:
                    _collect(learner, state, losses)
                    _halve(learner, state, len(x))
                    continue
                losses.append(loss)
                state.weights.append(len(own_x))
                state.position += 1
                # Other processes would not know that it is time: together they keep whole epochs only.
                if world.size == 1 and keeper.due():
                    _collect(learner, state, losses)
                    state.random, state.seconds = streams.state(), before + time.perf_counter() - start
                    keeper.write(state)
    _collect(learner, state, losses)
    count = learner.source.count * state.pieces
    loss = float(np.average(state.losses, weights=state.weights))
    state.position, state.losses, state.weights, state.random = 0, [], [], {}
    return loss, learning_rate(config, epoch, count - 1, count, state.errors)


def _step(learner: Learner, state: Checkpoint, x: Tensor, y: Tensor, streams: _Streams) -> Tensor | None:
    """Take one step; return the loss without a gradient, or ``None`` where memory did not suffice."""
    if not len(x):  # the second half of a single sample
        return torch.zeros((), device=learner.device)
    try:
        return _descend(learner, state, x, y, streams)
    except Exception as error:
        if not is_exhausted(error):
            raise
        return None


def _descend(learner: Learner, state: Checkpoint, x: Tensor, y: Tensor, streams: _Streams) -> Tensor:
    config, model, world = learner.config, learner.model, learner.world
    count = learner.source.count * state.pieces
    learner.optimiser.zero_grad(set_to_none=True)
    rate = learning_rate(config, state.epoch + 1, state.position, count, state.errors)
    learner.optimiser.param_groups[0]["lr"] = rate

    def answers(images: Tensor) -> Tensor:
        return world.whole(learner.forward(learner.prepare(world.part(images))), len(images))

    loss = learner.loss(answers(perturb(x, learner.steps, streams.distorting)), model.scale_targets(y))
    if learner.tiles is not None:
        loss = loss + config.confidence_weight * confidence(answers(learner.tiles.draw(len(x), streams.tiling)))
    loss.backward()
    world.add_gradients(model.parameters())
    if config.clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
    learner.optimiser.step()
    if learner.average is not None:
        learner.average.update(model, state.epoch * count + state.position)
    return loss.detach()


def _halve(learner: Learner, state: Checkpoint, size: int) -> None:
    """Go on with half batches from the batch on that was too large; ``state.position`` is then counted in these."""
    if state.pieces > 1 or size < 2 or learner.world.size > 1:
        raise exhausted(f"with {-(-size // state.pieces)} samples in a batch", learner.device)
    learner.optimiser.zero_grad(set_to_none=True)
    if learner.device.type == "cuda":
        torch.cuda.empty_cache()
    state.pieces, state.position = 2, 2 * state.position
    state.losses = [loss for loss in state.losses for _ in range(2)]
    state.weights = [weight / 2 for weight in state.weights for _ in range(2)]
    print(
        f"warning: out of memory on {learner.device.type} with {size} samples in a batch: going on with "
        f"{-(-size // 2)}; set train.batch_size to that next time",
        file=sys.stderr,
    )


def _collect(learner: Learner, state: Checkpoint, losses: list[Tensor]) -> None:
    """Move the ``losses`` to ``state.losses``: one transfer, since asking after every step would make a GPU wait."""
    if losses:
        state.losses += torch.stack(losses).double().cpu().tolist()
        losses.clear()
    bad = np.flatnonzero(~np.isfinite(state.losses))
    if not bad.size:
        return
    config, epoch, step, count = learner.config, state.epoch + 1, int(bad[0]), learner.source.count * state.pieces
    batch = step // state.pieces
    rows = learner.source.rows(epoch, torch.Generator().manual_seed(mixed(config.seed, epoch)), batch)
    where = f"batch {step + 1} of {count} (step {state.epoch * count + step + 1}{_samples(rows, learner.numbers)})"
    raise diverged(epoch, where, learning_rate(config, epoch, step, count, state.errors))


def _samples(rows: list[int] | None, numbers: NDArray[np.int64] | None) -> str:
    if rows is None:
        return ""
    known = sorted(rows if numbers is None else numbers[rows].tolist())
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return f"; samples {', '.join(map(str, known[:_NAMED]))}{more}"


def diverged(epoch: int, where: str, rate: float) -> TrainingFailed:
    """Return the error for a loss or a prediction that is not finite any more."""
    return TrainingFailed(
        f"the loss became NaN or infinite in epoch {epoch}, {where}, at learning rate {rate:.3g}: "
        "lower train.learning_rate, or check the data for outliers"
    )
