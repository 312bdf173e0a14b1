"""Our trainer against a plain pipeline as in public code: images per second, time beside the steps, cost of tracking.

The plain pipeline decodes the PNG files of every batch anew, turns them grey, resizes them, makes tensors, and trains
in eager single precision; ours holds the same images on the device and trains with channels innermost and in bfloat16,
both options of ``stm train``; its defaults are in the detail. Network (conv), batch (32), optimiser, loss and
clipping are the same. The files are grids of 1003 x 1003 as those of the paper's code, in turbo colours; the detail has
files of 256 x 256 too.

An epoch's share beside forward, backward and step is taken from within a whole training, with validation, its metrics
and checkpoints. Tracking is a training recorded in a MLflow store of its own (configuration, environment, tags, every
epoch's metrics) against the same one unrecorded. It has some seconds, real ones have minutes: what a run costs once
weighs more here. ``kept_memory`` is a step that leaves the memory of large arrays to glibc over one that keeps it, as
the trainer does (`stm_models.heap`); images per second leave it to glibc on both sides. Seconds are CPU seconds of one
thread, so that a shared machine counts little.

With ``--device cuda`` both train on the GPU, in seconds of the clock, and images per second alone are compared: ours by
the options above, and with ``torch.compile``; the detail has the plain pipeline with processes that load ahead, too.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from _timing import arguments, paired, report
from numpy.typing import NDArray
from PIL import Image
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stm_models import heap
from stm_models.data.pictures import to_turbo
from stm_models.networks import registry
from stm_models.networks.model import Model
from stm_models.training import learner as learners
from stm_models.training import trainer
from stm_models.training.checkpoints import Checkpoint, Keeper
from stm_models.training.config import TrainConfig
from stm_models.training.epochs import run_epoch
from tracking import runs
from tracking.store import connect

BATCH = 32
COMPARED = 4  # images that both train on first
FAST = {"precision": "bf16", "channels_last": True}
Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """How much is measured."""

    counts: dict[int, int]  # images by their side
    files: tuple[int, ...]  # sides of the pictures, the paper's first
    rounds: int
    epochs: int
    recorded_epochs: int
    pairs: int


FULL = Case({64: 64, 256: 32}, (1003, 256), rounds=3, epochs=5, recorded_epochs=45, pairs=20)
QUICK = Case({64: 8, 256: 4}, (256,), rounds=2, epochs=2, recorded_epochs=2, pairs=3)
GPU = Case({64: 256, 256: 256}, (1003,), rounds=3, epochs=0, recorded_epochs=0, pairs=0)
LOADERS = 8  # processes


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Labelled pictures, read from their files whenever they are asked for."""

    def __init__(self, files: list[Path], labels: Array, side: int) -> None:
        self.files, self.labels = files, torch.from_numpy(labels)
        self.transform = transforms.Compose([transforms.Resize((side, side)), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        with Image.open(self.files[index]) as picture:
            return self.transform(picture.convert("L")), self.labels[index]


def write_pictures(folder: Path, count: int, side: int) -> list[Path]:
    """Write pictures of some peaks on a weak, smooth background, as Fourier transforms of simulated maps look."""
    rng = np.random.default_rng(side)
    axis = np.linspace(-1, 1, side)
    files = []
    for number in range(count):
        values = 0.02 * np.cos(9 * axis) ** 2 * np.cos(7 * axis[:, None]) ** 2
        for x, y in rng.uniform(-0.9, 0.9, (24, 2)):
            values += np.outer(np.exp(-((axis - y) ** 2) / 2e-3), np.exp(-((axis - x) ** 2) / 2e-3))
        files.append(folder / f"{side}_{number}.png")
        files[-1].write_bytes(to_turbo(values))
    return files


def plain_training(
    pictures: Pictures, side: int, dropout: float = 0.2, batch: int = BATCH, device: str = "cpu", loaders: int = 0
) -> Callable[[], float]:
    """Return what trains one epoch as public code does, and returns the mean loss."""
    network = registry.create("conv", (1, side, side), 1, {"dropout": dropout}, seed=0).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-4)
    loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
        pictures, batch_size=batch, shuffle=True, generator=torch.Generator().manual_seed(0), num_workers=loaders,
        persistent_workers=loaders > 0, pin_memory=device != "cpu",
    )  # fmt: skip

    def epoch() -> float:
        network.train()
        losses = []
        for images, labels in loader:
            x, y = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimiser.zero_grad(set_to_none=False)
            loss = nn.functional.mse_loss(network(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            losses.append(loss.item())
        return statistics.mean(losses)

    return epoch


def config_of(**values: Any) -> TrainConfig:
    """Return the configuration of the paper's recipe, with some values."""
    recipe: dict[str, Any] = {"network": "conv", "batch_size": BATCH, "optimiser": "adam", "epochs": 1000, "threads": 1}
    return TrainConfig(**{**recipe, "device": "cpu", "patience": 1000, **values})


def our_training(images: Array, labels: Array, config: TrainConfig) -> Callable[[], float]:
    """Return what trains one epoch as the trainer does, and returns the mean loss."""
    learner = learners.create_learner(
        config, images, labels, torch.device(config.device), standardise=False, steps=(), copies=None, batches=None,
        unlabelled=(), numbers=None,
    )  # fmt: skip
    state, keeper = Checkpoint({}, 0), Keeper(None, learner.model, learner.optimiser, None)

    def epoch() -> float:
        loss, _ = run_epoch(learner, state, keeper)
        state.epoch += 1
        return loss

    return epoch


def loss_difference(pictures: Pictures, images: Array, labels: Array) -> float:
    """Compare both over three steps on all images, in the same arithmetic (channels outermost) and without dropout."""
    count = len(images)
    plain = plain_training(pictures, images.shape[-1], dropout=0.0, batch=count)
    same = config_of(options={"dropout": 0.0}, batch_size=count, schedule="constant", channels_last=False)
    ours = our_training(images, labels, same)
    pairs = [(ours(), plain()) for _ in range(3)]
    return max(abs(own / theirs - 1) for own, theirs in pairs)


def on_gpu(case: Case, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Compare images per second of both where they train on the GPU; return ratios and their detail."""
    ratios, detail = {}, {}
    for side, count in case.counts.items():
        labels = np.random.default_rng(1).uniform(0, 6, (count, 1)).astype(np.float32)
        pictures = Pictures(write_pictures(folder, count, case.files[0]), labels, side)
        images = np.stack([pictures[row][0].numpy() for row in range(count)])
        plain = plain_training(pictures, side, device="cuda")
        ahead = plain_training(pictures, side, device="cuda", loaders=LOADERS)
        own = {
            name: our_training(images, labels, config_of(device="cuda", **values))
            for name, values in (("", FAST), ("_fp32", {}), ("_compiled", {**FAST, "compile": True}))
        }
        for call in (plain, ahead, *own.values(), *own.values()):
            call()
        numbers: dict[str, Any] = {}
        for name, call in own.items():
            found = paired(call, plain, rounds=1 if name else case.rounds, repeats=9)
            numbers |= {f"ratio{name}": found["ratio"], f"images_per_s{name}": count / found["ours_s"]}
            if not name:
                numbers |= {"ratios": found["ratios"], "images_per_s_plain": count / found["reference_s"]}
        found = paired(own[""], ahead, rounds=1, repeats=9)
        numbers |= {"ratio_loaders": found["ratio"], "images_per_s_loaders": count / found["reference_s"]}
        ratios[f"paper_pipeline_{side}_gpu"] = numbers["ratio"]
        detail[f"{side}_from_{case.files[0]}"] = numbers
        print(f"{side} px on the GPU: {numbers}", file=sys.stderr, flush=True)
    return ratios, {"device": torch.cuda.get_device_name(), "loaders": LOADERS, **detail}


def throughput(case: Case, folder: Path) -> tuple[dict[str, float], dict[str, Any], float]:
    """Compare images per second at every side; return ratios, their detail and the largest difference of losses."""
    ratios, detail, error = {}, {}, 0.0
    for side, count in case.counts.items():
        labels = np.random.default_rng(1).uniform(0, 6, (count, 1)).astype(np.float32)
        for number, of_file in enumerate(case.files):
            pictures = Pictures(write_pictures(folder, count, of_file), labels, side)
            images = np.stack([pictures[row][0].numpy() for row in range(count)])
            few = Pictures(pictures.files[:COMPARED], labels[:COMPARED], side)
            error = max(error, loss_difference(few, images[:COMPARED], labels[:COMPARED]))
            assert error <= 1e-4, f"losses differ by {error:.2e} of their value"
            plain, fast = plain_training(pictures, side), our_training(images, labels, config_of(**FAST))
            plain(), fast()
            found = paired(fast, plain, rounds=1 if number else case.rounds, clock=time.process_time)
            numbers = {"ratio": found["ratio"], "ratios": found["ratios"]}
            numbers |= {"images_per_s": count / found["ours_s"], "images_per_s_plain": count / found["reference_s"]}
            if number == 0:
                ratios[f"paper_pipeline_{side}"] = found["ratio"]
                single = our_training(images, labels, config_of())
                single()
                numbers["ratio_fp32"] = paired(single, plain, rounds=1, clock=time.process_time)["ratio"]
            detail[f"{side}_from_{of_file}"] = numbers
            print(f"{side} px from {of_file} px: {numbers}", file=sys.stderr, flush=True)
    return ratios, detail, error


def kept_memory(side: int, rounds: int) -> dict[str, Any]:
    """Compare a step as the trainer makes it, memory kept from the one before, with one that leaves it to glibc."""
    rng = np.random.default_rng(3)
    images, labels = rng.random((BATCH, 1, side, side), np.float32), rng.uniform(0, 6, (BATCH, 1)).astype(np.float32)
    epoch = our_training(images, labels, config_of(**FAST))

    def seconds(where: contextlib.AbstractContextManager[None]) -> float:
        with where:
            epoch()
            begun = time.process_time()
            epoch()
            return time.process_time() - begun

    epoch()
    pairs = []
    for number in range(rounds):
        first = seconds(heap.kept() if number % 2 else contextlib.nullcontext())
        second = seconds(contextlib.nullcontext() if number % 2 else heap.kept())
        pairs.append((second, first) if number % 2 else (first, second))
    ratios = [afresh / kept for afresh, kept in pairs]
    step = statistics.median(kept for _, kept in pairs)
    return {"ratio": statistics.median(ratios), "ratios": ratios, "step_s": step}


class Stopwatch:
    """CPU seconds spent within some calls."""

    def __init__(self) -> None:
        self.seconds, self._inside = 0.0, False

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call`` with its time counted."""

        def wrapped(*given: Any, **named: Any) -> Any:
            if self._inside:
                return call(*given, **named)
            self._inside, begun = True, time.process_time()
            try:
                return call(*given, **named)
            finally:
                self.seconds, self._inside = self.seconds + time.process_time() - begun, False

        return wrapped

    @contextlib.contextmanager
    def on_steps(self) -> Iterator[None]:
        """Count forward passes (of the validation too), losses, backward passes, clipping and the optimiser's steps."""
        applied, loss_function, create = learners.applied, learners.loss_function, learners.create_optimiser

        def optimiser(*given: Any) -> torch.optim.Optimizer:
            made = create(*given)
            made.step = self.timed(made.step)
            return made

        with (
            mock.patch.object(learners, "applied", lambda *given, **named: self.timed(applied(*given, **named))),
            mock.patch.object(learners, "loss_function", lambda *given: self.timed(loss_function(*given))),
            mock.patch.object(learners, "create_optimiser", optimiser),
            mock.patch.object(Model, "forward", self.timed(Model.forward)),
            mock.patch.object(Tensor, "backward", self.timed(Tensor.backward)),
            mock.patch.object(nn.utils, "clip_grad_norm_", self.timed(nn.utils.clip_grad_norm_)),
        ):
            yield


@dataclass(frozen=True)
class Fit:
    """A whole training on random images, with validation on a quarter as many."""

    images: Array
    labels: Array
    config: TrainConfig
    checkpoint: Path

    def __call__(self, on_epoch: trainer.OnEpoch | None = None) -> None:
        """Train."""
        held = len(self.images) // 5 + 1
        self.checkpoint.unlink(missing_ok=True)
        trainer.train(
            self.config, self.images[held:], self.labels[held:], self.images[:held], self.labels[:held],
            validate=self._score, on_epoch=on_epoch, checkpoint=self.checkpoint,
        )  # fmt: skip

    def _score(self, prediction: Array) -> tuple[dict[str, float], float]:
        error = float(np.abs(prediction - self.labels[: len(prediction)]).mean())
        return {"mae": error}, error


def over_step(fit: Fit) -> float:
    """Return the seconds of all epochs of a training over those within its steps."""
    watch = Stopwatch()
    begun: list[float] = []
    first = trainer.run_epoch

    def marked(*given: Any) -> Any:
        if not begun:
            watch.seconds = 0.0
            begun.append(time.process_time())
        return first(*given)

    with watch.on_steps(), mock.patch.object(trainer, "run_epoch", marked):
        fit()
    return (time.process_time() - begun[0]) / watch.seconds


def over_untracked(fit: Fit, folder: Path, pairs: int) -> dict[str, Any]:
    """Compare recorded trainings with unrecorded ones: mean ratio and its upper 95 % bound (one-sided, Student's t)."""
    store = connect(f"sqlite:///{folder}/mlflow.db")
    values = {"task": "benchmark", "train": fit.config.model_dump(mode="json")}

    def recorded() -> None:
        with runs.start(store, "benchmark", "train") as record:
            record.config(values)
            record.tags({"network": "conv"})
            record.environment({"train": fit.config.seed})
            fit(lambda epoch, entry: record.metrics(entry, epoch))

    recorded()
    found = paired(fit, recorded, rounds=pairs, clock=time.process_time)
    ratios = np.array(found["ratios"])
    spread = ratios.std(ddof=1) / np.sqrt(pairs)
    return {
        "mean": float(ratios.mean()), "upper_95": float(ratios.mean() + stats.t.ppf(0.95, pairs - 1) * spread),
        "median": found["ratio"], "pairs": pairs, "epochs": fit.config.epochs, "run_s": found["ours_s"],
        "recorded_run_s": found["reference_s"],
    }  # fmt: skip


def main() -> None:
    """Compare the losses, then time all sides alternately."""
    options = arguments(__doc__ or "", devices=True)
    case = QUICK if options.quick else FULL
    torch.set_num_threads(1)
    if options.device == "cuda":
        with tempfile.TemporaryDirectory() as temporary:
            ratios, detail = on_gpu(GPU, Path(temporary))
        detail |= {"batch": BATCH, "images": GPU.counts}
        report("training", ratios=ratios, errors={}, detail=detail, as_json=options.json)
        return
    rng = np.random.default_rng(2)
    count = 2 * case.counts[64]
    images, labels = rng.random((count, 1, 64, 64), np.float32), rng.uniform(0, 6, (count, 1))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ratios, detail, error = throughput(case, folder)
        fits = {
            name: Fit(images, labels, config_of(epochs=case.epochs, **values), folder / "state.pt")
            for name, values in (("bf16", FAST), ("fp32", {}))
        }
        fits["bf16"]()
        over = {name: over_step(fit) for name, fit in fits.items()}
        print(f"epochs over their steps: {over}", file=sys.stderr, flush=True)
        longer = fits["bf16"].config.model_copy(update={"epochs": case.recorded_epochs})
        tracked = over_untracked(replace(fits["bf16"], config=longer), folder, case.pairs)
    kept = kept_memory(256, case.rounds)
    ratios["kept_memory_256"] = kept["ratio"]
    ratios |= {"over_step": over["bf16"], "over_untracked": tracked["mean"]}
    report(
        "training",
        ratios=ratios,
        errors={"loss": error},
        detail={
            "threads": 1, "batch": BATCH, "images": case.counts, **detail,
            "outside_steps": {name: 1 - 1 / value for name, value in over.items()},
            "tracking": tracked, "kept_memory": kept, "quick": options.quick,
        },
        as_json=options.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
