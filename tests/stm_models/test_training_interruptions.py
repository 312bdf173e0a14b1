"""Trainings that are killed, run out of memory or meet a bad batch: what is kept, goes on and is told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from pipelines.learning.network import forget
from stm_models.errors import InputError, TrainingFailed
from stm_models.training import checkpoints, epochs, learner, trainer
from stm_models.training.losses import LOSSES
from stm_models.training.reproducible import mixed
from support import small_trainings as trainings

config_of, train, weights, same = trainings.tiny_config, trainings.train, trainings.weights, trainings.same
TINY, Killed = trainings.TINY, trainings.Killed


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "plateau", "one_cycle"])
@pytest.mark.parametrize(("ema", "clip_norm", "optimiser"), [(0, 0, "adam"), (0, 0.5, "adamw"), (0.9, 0, "adamw"),
                                                            (0.95, 1.0, "adam")])  # fmt: skip
def test_killed_anywhere_and_resumed_is_bitwise_the_same(
    data, tmp_path, monkeypatch, schedule, ema, clip_norm, optimiser
):
    """Killed three times after any step of any epoch, also the first and the last."""
    from stm_models.tasks.perturbation import Step

    noise = (Step("gaussian", 0.5, {"sigma": (0.1, 0.2)}),)
    config = config_of(
        schedule=schedule, ema=ema, clip_norm=clip_norm, optimiser=optimiser, decay_epochs=1, warm_up=0.5, patience=9
    )
    whole = train(config, data, steps=noise)
    rng = np.random.default_rng([len(schedule), int(100 * ema), int(10 * clip_norm)])
    path, original = tmp_path / "checkpoint.pt", checkpoints.Keeper.write
    monkeypatch.setattr(checkpoints.Keeper, "due", lambda self: self._path is not None)
    for writes in rng.integers(1, 10, 3):
        left = itertools.count(int(writes), -1)

        def write(self, state, left=left):
            original(self, state)
            if next(left) == 1:
                raise Killed

        monkeypatch.setattr(checkpoints.Keeper, "write", write)
        with pytest.raises(Killed):
            train(config, data, steps=noise, checkpoint=path)
    monkeypatch.setattr(checkpoints.Keeper, "write", original)
    resumed = train(config, data, steps=noise, checkpoint=path)
    assert same(weights(whole), weights(resumed))
    assert resumed.errors == whole.errors
    without_time = [[{**entry, "seconds": 0} for entry in result.history] for result in (whole, resumed)]
    assert without_time[0] == without_time[1]


def killed_after(number, data, path, monkeypatch):
    """Train with a checkpoint after every step, and be killed after so many of them."""
    original, left = checkpoints.Keeper.write, itertools.count(number, -1)

    def write(self, state):
        original(self, state)
        if next(left) == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "due", lambda self: True)
        patch.setattr(checkpoints.Keeper, "write", write)
        with pytest.raises(Killed):
            train(config_of(), data, checkpoint=path)


def test_dropout_and_running_statistics_go_on_within_an_epoch(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    images = rng.normal(size=(20, 1, 16, 16)).astype(np.float32)
    data = (images[:16], images[:16, 0, 0, :1].astype(float), images[16:], images[16:, 0, 0, :1].astype(float))
    config = config_of(network="conv", options={}, epochs=2, batch_size=4, ema=0.9)
    whole = train(config, data)
    original = epochs._step

    def killed(learner, state, *more):
        if (state.epoch, state.position) == (1, 3):
            raise Killed
        return original(learner, state, *more)

    path = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(checkpoints.Keeper, "due", lambda self: True)
    monkeypatch.setattr(epochs, "_step", killed)
    with pytest.raises(Killed):
        train(config, data, checkpoint=path)
    monkeypatch.setattr(epochs, "_step", original)
    assert same(weights(whole), weights(train(config, data, checkpoint=path)))


def test_a_training_goes_on_on_another_kind_of_device(data, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    killed_after(1, data, path, monkeypatch)
    state = torch.load(path, weights_only=True)
    assert state["position"] == 1
    # As a GPU has them.
    state["random"] |= {name: torch.zeros(16, dtype=torch.uint8) for name in ("distorting", "cuda")}
    torch.save(state, path)
    assert len(train(config_of(), data, checkpoint=path).history) == 4


def test_scores_may_be_numbers_of_numpy(data, tmp_path):
    def validate(prediction):
        error = np.abs(prediction - data[3]).mean()
        return {"mae": error}, error

    more = {"validate": validate, "watch": lambda model: {"one": np.float64(1)}, "checkpoint": tmp_path / "x.pt"}
    with pytest.raises(trainings.Interrupt):
        trainer.train(config_of(), *data, on_epoch=trainings.interrupt_at(2), **more)
    assert len(trainer.train(config_of(), *data, **more).history) == 4


def test_a_long_epoch_is_kept_every_few_seconds_and_a_slow_disk_less_often(data, tmp_path, monkeypatch):
    clock = itertools.count(0, 1)
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: float(next(clock)))
    made = []
    monkeypatch.setattr(checkpoints, "write", lambda path, state: made.append((state.epoch, state.position)))
    train(config_of(batch_size=1, epochs=2), data, checkpoint=tmp_path / "x.pt")
    within = [position for epoch, position in made if epoch == 0 and position]
    # A write of one second may take a twentieth of the time: every 20 seconds.
    assert within[0] <= 6
    assert set(np.diff(within).tolist()) == {21}


def test_a_full_disk_is_told_as_such(data):
    with pytest.raises(OSError, match="No space left"):
        torch.save({"x": torch.zeros(10)}, open("/dev/full", "wb", buffering=0))  # noqa: SIM115


def test_a_bad_batch_is_named_with_its_samples(data, monkeypatch):
    seen = []

    def poisoned(name):
        def loss(prediction, target):
            seen.append(len(target))
            return LOSSES[name](prediction, target) * (float("nan") if len(seen) == 9 else 1.0)

        return loss

    monkeypatch.setattr(learner, "loss_function", poisoned)
    numbers = np.arange(1000, 1044)
    with pytest.raises(InputError) as caught:
        train(config_of(schedule="constant"), data, numbers=numbers)
    order = torch.randperm(44, generator=torch.Generator().manual_seed(mixed(0, 2)))
    rows = sorted((1000 + order.tensor_split(6)[2]).tolist())
    assert f"in epoch 2, batch 3 of 6 (step 9; samples {', '.join(map(str, rows))})" in str(caught.value)
    assert "at learning rate 0.01" in str(caught.value)


def out_of_memory(monkeypatch, error, above, *, times=1000):
    original, left = learner.applied, itertools.count(times, -1)

    def applied(config, model, **named):
        forward = original(config, model)

        def limited(x):
            if len(x) > above and next(left) > 0:
                raise error
            return forward(x)

        return limited

    monkeypatch.setattr(learner, "applied", applied)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory: you tried to allocate"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes. Error code 12"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "linux", "numpy"])
def test_out_of_memory_halves_the_batch_once_with_a_warning(data, monkeypatch, capsys, error):
    config = config_of(options={**TINY, "dropout": 0}, schedule="constant")
    count = {}
    original = epochs._descend
    monkeypatch.setattr(
        epochs, "_descend", lambda *a: (original(*a), count.update({len(a[2]): count.get(len(a[2]), 0) + 1}))[0]
    )
    out_of_memory(monkeypatch, error, 4)
    result = train(config, data)
    assert capsys.readouterr().err.count("warning: out of memory") == 1
    assert result.halved
    assert count == {4: 32, 3: 16}  # 44 samples in batches of 8, 8, 7, 7, 7, 7 halved
    assert np.isfinite(result.history[-1]["train_loss"])


def test_out_of_memory_again_is_an_error_that_keeps_the_checkpoint(data, tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.pt"

    class Stop(Exception):
        pass

    def stop(epoch, entry):
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train(config_of(), data, checkpoint=path, on_epoch=stop)
    good = path.read_bytes()
    with monkeypatch.context() as patch:
        out_of_memory(patch, ERRORS[0], 3)
        with pytest.raises(InputError, match=r"out of memory on cpu with 4 samples .*train.batch_size") as caught:
            train(config_of(), data, checkpoint=path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err.count("warning") == 1
    assert path.read_bytes() == good
    assert same(weights(train(config_of(), data)), weights(train(config_of(), data, checkpoint=path)))


def test_a_halved_training_resumes_bitwise(data, tmp_path, monkeypatch):
    out_of_memory(monkeypatch, ERRORS[0], 4)
    whole = train(config_of(), data)
    path = tmp_path / "x.pt"
    killed_after(9, data, path, monkeypatch)
    assert same(weights(whole), weights(train(config_of(), data, checkpoint=path)))


def test_out_of_memory_outside_a_step_is_told(data, monkeypatch):
    def fail(model, images):
        if len(images) > 1:
            raise ERRORS[0]
        return np.zeros((1, 1))

    monkeypatch.setattr(trainer, "predict", fail)
    with pytest.raises(InputError, match="out of memory on cpu while training"):
        train(config_of(), data)


def test_other_errors_are_not_taken_for_it(data, monkeypatch):
    out_of_memory(monkeypatch, RuntimeError("a bug"), 0)
    with pytest.raises(RuntimeError, match="a bug"):
        train(config_of(), data)


def test_forgetting_a_training_deletes_all_that_it_kept(tmp_path):
    for name in ("abc.pt", "abc.refit.pt", ".abc.x1y2.pt", ".abc.refit.z3.pt", "abcd.pt", ".abcd.x.pt"):
        (tmp_path / name).touch()
    forget(tmp_path / "abc.pt")
    assert {path.name for path in tmp_path.iterdir()} == {"abcd.pt", ".abcd.x.pt"}
    forget(tmp_path / "abc.pt")


@pytest.mark.parametrize(("size", "samples", "halved"), [(1, 4, False), (2, 3, False), (3, 3, True)])
def test_a_batch_of_one_sample_that_a_network_normalises_over_is_told(data, monkeypatch, size, samples, halved):
    images, targets, *held = data
    if halved:
        out_of_memory(monkeypatch, ERRORS[0], 2)
    with pytest.raises(TrainingFailed, match=rf"train.batch_size is {size}.* single sample.*'resnet18'.*larger one"):
        train(config_of(network="resnet18", options={}, batch_size=size), (images[:samples], targets[:samples], *held))
