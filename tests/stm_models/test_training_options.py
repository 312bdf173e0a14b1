"""Every training option against a slow plain loop, another library's, or a limit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.networks.model import Model
from stm_models.training import batches, checkpoints, learner, optimisation, trainer
from stm_models.training.averaging import Average
from stm_models.training.config import TrainConfig
from stm_models.training.reproducible import deterministic, mixed
from stm_models.training.schedules import learning_rate, plateaus
from support import small_trainings as trainings

config_of, train, weights, same = trainings.tiny_config, trainings.train, trainings.weights, trainings.same
TINY, Killed = trainings.TINY, trainings.Killed


def plain(config, data, optimiser_of, loss_of, rate_of, *, clip=None, decay=None):
    """The training as a textbook writes it: one batch after the other, no machinery."""
    network = registry.create(config.network, data[0].shape[1:], 1, config.options, seed=config.seed)
    model = Model.for_data(network, data[0], data[1])
    x, y = torch.from_numpy(data[0]), torch.from_numpy(data[1].astype(np.float32))
    optimiser = optimiser_of(model.parameters())
    count = math.ceil(len(x) / config.batch_size)
    averaged = {key: value.clone() for key, value in model.state_dict().items()}
    best, found, step = math.inf, None, 0
    errors = []
    for epoch in range(1, config.epochs + 1):
        with torch.random.fork_rng():
            torch.manual_seed(mixed(config.seed, epoch))
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(mixed(config.seed, epoch)))
            model.train()
            for rows in order.tensor_split(count):
                for group in optimiser.param_groups:
                    group["lr"] = rate_of(step, epoch, errors)
                loss = loss_of(
                    network((x[rows] - model.pixel_mean) / model.pixel_scale),
                    (y[rows] - model.target_mean) / model.target_scale,
                )
                optimiser.zero_grad()
                loss.backward()
                if clip:
                    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
                    for p in model.parameters():
                        p.grad *= min(1.0, clip / (norm + 1e-6))
                optimiser.step()
                if decay is not None:
                    weight = min(decay, (1 + step) / (10 + step))
                    for key, value in model.state_dict().items():
                        averaged[key] = weight * averaged[key] + (1 - weight) * value
                step += 1
        shown = {key: value.clone() for key, value in (averaged if decay is not None else model.state_dict()).items()}
        model.eval()
        live = {key: value.clone() for key, value in model.state_dict().items()}
        model.load_state_dict(shown)
        with torch.no_grad():
            error = float(np.abs(model(torch.from_numpy(data[2])).double().numpy() - data[3]).mean())
        model.load_state_dict(live)
        errors.append(error)
        if error < best:
            best, found = error, shown
    return found


def test_the_defaults_are_the_plain_loop_to_the_last_bit(data):
    config = config_of(clip_norm=0)
    steps = config.epochs * 6

    def cosine(step, epoch, errors):
        return config.learning_rate * (1 + math.cos(math.pi * (step / steps))) / 2

    expected = plain(
        config, data, lambda p: torch.optim.AdamW(p, weight_decay=1e-4, fused=True), nn.functional.mse_loss, cosine
    )
    torch.set_num_threads(1)
    assert same(weights(train(config, data)), expected)


@pytest.mark.parametrize(
    ("changes", "optimiser", "loss"),
    [
        ({"optimiser": "adam"}, lambda p: torch.optim.Adam(p, weight_decay=1e-4), nn.functional.mse_loss),
        (
            {"loss": "l1"},
            lambda p: torch.optim.AdamW(p, weight_decay=1e-4, fused=True),
            lambda a, b: (a - b).abs().mean(),
        ),
        (
            {"loss": "huber"},
            lambda p: torch.optim.AdamW(p, weight_decay=1e-4, fused=True),
            lambda a, b: torch.where((a - b).abs() < 1, (a - b) ** 2 / 2, (a - b).abs() - 0.5).mean(),
        ),
        (
            {"clip_norm": 0.05, "ema": 0.9},
            lambda p: torch.optim.AdamW(p, weight_decay=1e-4, fused=True),
            lambda a, b: ((a - b) ** 2).mean(),
        ),
    ],
    ids=["adam", "l1", "huber", "clipped and averaged"],
)
def test_optimisers_losses_clipping_and_averaging_are_the_plain_loop(data, changes, optimiser, loss):
    config = config_of(schedule="constant", **{"clip_norm": 0, **changes})
    expected = plain(
        config, data, optimiser, loss, lambda *_: config.learning_rate,
        clip=config.clip_norm, decay=config.ema or None,
    )  # fmt: skip
    found = weights(train(config, data))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)


def test_the_averaged_weights_are_validated_kept_and_returned(data):
    seen = []
    result = train(config_of(ema=0.99, epochs=6), data, watch=lambda model: seen.append(model) or {})
    assert not seen[0].training
    assert result.history[result.best_epoch - 1]["val_mae"] == pytest.approx(
        float(np.abs(trainer.predict(result.model, data[2]) - data[3]).mean()), rel=1e-12
    )
    assert not same(weights(result), weights(train(config_of(epochs=6), data)))


def test_an_average_of_what_stands_still_is_it_and_statistics_follow():
    network = registry.create("conv", (1, 16, 16), 1, {}, seed=0)
    model = Model.blank(network)
    average = Average(model, 0.5)
    for step in range(5):
        average.update(model, step)
    assert same(average.model.state_dict(), model.state_dict())
    with torch.no_grad():
        for value in model.state_dict().values():
            value += 1
    for step in range(100, 200):
        average.update(model, step)
    for key, value in average.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key])


def test_plateaus_are_those_of_torch():
    rng = np.random.default_rng(1)
    for patience in (1, 2, 3):
        errors = np.round(np.abs(np.cumsum(rng.normal(0, 1, 60))), 1).tolist()
        optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=0.5, patience=patience - 1, threshold=0, min_lr=0, eps=0
        )
        for number, error in enumerate(errors, 1):
            reference.step(error)
            assert 0.5 ** plateaus(errors[:number], patience) == optimiser.param_groups[0]["lr"]


def test_steps_and_warm_up():
    config = config_of(schedule="step", decay_epochs=2, decay_factor=0.1, learning_rate=1.0)
    assert [learning_rate(config, epoch, 0, 7) for epoch in range(1, 6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    warm = config_of(schedule="constant", warm_up=1.5, learning_rate=1.0)
    rates = [learning_rate(warm, epoch, batch, 4) for epoch in (1, 2, 3) for batch in range(4)]
    assert rates == pytest.approx([min(1, (step + 1) / 6) for step in range(12)])
    plateau = config_of(schedule="plateau", decay_epochs=1, learning_rate=1.0)
    assert learning_rate(plateau, 4, 0, 7, [3.0, 3.0, 2.0]) == 0.5


def test_a_plateau_lowers_the_rate_of_a_training(data):
    config = config_of(schedule="plateau", decay_epochs=1, patience=50, epochs=25, learning_rate=0.1)
    result = train(config, data)
    expected = [0.1 * 0.5 ** plateaus(result.errors[:number], 1) for number in range(len(result.history))]
    assert [entry["learning_rate"] for entry in result.history] == expected
    assert expected[-1] < 0.1


def test_bfloat16_and_channels_last_change_little(data):
    plain = train(config_of(epochs=2), data)
    laid = train(config_of(epochs=2, channels_last=True), data)
    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(laid)[key], value, rtol=1e-4, atol=1e-6)
        assert weights(laid)[key].is_contiguous()
    seen = []
    original = learner.applied

    half = train(config_of(epochs=2, precision="bf16"), data)
    assert not same(weights(plain), weights(half))
    assert half.history[-1]["train_loss"] == pytest.approx(plain.history[-1]["train_loss"], rel=0.05)
    assert {value.dtype for value in weights(half).values()} == {torch.float32}
    model = Model.blank(registry.create("mlp", (1, 5, 4), 1, TINY, seed=0))
    model.network.head.register_forward_hook(lambda module, given, answer: seen.append(answer.dtype))
    assert original(config_of(precision="bf16"), model)(torch.ones(2, 1, 5, 4)).dtype == torch.float32
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize(("given", "expected"), [(True, True), (None, True), (False, False)])
def test_convolutions_are_laid_out_with_channels_last_and_given_back_plain(given, expected):
    rng = np.random.default_rng(3)
    images = rng.normal(size=(12, 2, 16, 16)).astype(np.float32)
    data = (images[:8], images[:8, 0, 0, :1].astype(float), images[8:], images[8:, 0, 0, :1].astype(float))
    seen = []

    def watch(model):
        kernels = [p for p in model.parameters() if p.dim() == 4 and min(p.shape) > 1]
        seen.append([p.is_contiguous(memory_format=torch.channels_last) for p in kernels])
        return {}

    result = train(config_of(network="conv", options={}, epochs=1, channels_last=given), data, watch=watch)
    assert seen[0]
    assert set(seen[0]) == {expected}
    assert all(p.is_contiguous() for p in result.model.parameters())


def test_compile_compiles_the_network_once_and_failing_says_so(data, monkeypatch):
    from torch._dynamo.exc import TorchDynamoException

    calls = []
    monkeypatch.setattr(optimisation.torch, "compile", lambda module: calls.append(module) or module)
    compiled = train(config_of(compile=True), data)
    assert len(calls) == 1
    assert same(weights(compiled), weights(train(config_of(), data)))

    def broken(module):
        def call(x):
            raise TorchDynamoException("no C++ compiler\nfound")

        return call

    monkeypatch.setattr(optimisation.torch, "compile", broken)
    with pytest.raises(InputError, match=r"train.compile is true, .*no C\+\+ compiler found") as caught:
        train(config_of(compile=True), data)
    assert "\n" not in str(caught.value)


def test_deterministic_asks_torch_for_it_and_gives_it_back(data):
    seen = []
    train(config_of(deterministic=True, epochs=1), data,
          watch=lambda _: seen.append(torch.are_deterministic_algorithms_enabled()) or {})  # fmt: skip
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()
    with (
        pytest.raises(InputError, match="is true, but scatter_kernel has no"),
        deterministic(True),
    ):
        raise RuntimeError("scatter_kernel does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="other"), deterministic(True):
        raise RuntimeError("other")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"optimiser": "sgd"}, "optimiser.*'adamw' or 'adam'.*'sgd'"),
        ({"schedule": "linear"}, "schedule.*'cosine', 'constant', 'one_cycle', 'step' or 'plateau'"),
        ({"precision": "fp8"}, "precision.*'fp32' or 'bf16'"),
        ({"ema": 1}, "ema.*less than 1"),
        ({"decay_factor": 1}, "decay_factor.*less than 1"),
        ({"schedule": "plateau", "patience": 5}, "decay_epochs.*shorter than patience=5"),
        ({"schedule": "plateau", "decay_epochs": 30}, "decay_epochs.*shorter than patience=10"),
        ({"chanels_last": True}, "did you mean 'channels_last'"),
    ],
)
def test_impossible_values_are_refused_with_the_choices(values, match):
    with pytest.raises(InputError, match=match):
        validate(TrainConfig, values, "train")


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_refit_is_the_training_on_both_for_the_best_number_of_epochs(data, tmp_path, monkeypatch, schedule):
    config = config_of(schedule=schedule, decay_epochs=1, epochs=8, learning_rate=0.2, ema=0.5, refit=True)
    first = train(config, data)
    both = [np.concatenate([data[i], data[i + 2]]) for i in (0, 1)]
    last = {}
    path = tmp_path / "x.pt"

    class Stop(Exception):
        pass

    def stop(epoch, entry):
        if epoch == first.best_epoch:
            raise Stop

    if schedule == "cosine":  # a plateau's rates depend on the validation samples, which are known here
        with pytest.raises(Stop):
            train(config, (*both, *data[2:]), checkpoint=path, on_epoch=stop)
        last = torch.load(path, weights_only=True)["average"]
        path.unlink()
    result = trainer.refit(config, *both, first=first)
    assert len(result.history) == first.best_epoch > 1
    assert last == {} or same(weights(result), last)
    rates = [[entry["learning_rate"] for entry in found.history] for found in (first, result)]
    if schedule == "plateau":
        assert rates[1] == rates[0][: first.best_epoch]

    monkeypatch.setattr(checkpoints.Keeper, "due", lambda self: True)
    original, left = checkpoints.Keeper.write, itertools.count(5, -1)

    def write(self, state):
        original(self, state)
        if next(left) == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Keeper, "write", write)
        with pytest.raises(Killed):
            trainer.refit(config, *both, first=first, checkpoint=path)
    assert same(weights(result), weights(trainer.refit(config, *both, first=first, checkpoint=path)))


def test_the_data_go_to_the_device_once(data, monkeypatch):
    moved = []
    original = batches.to_device
    monkeypatch.setattr(batches, "to_device", lambda values, device: moved.append(device) or original(values, device))
    source = batches.StoredBatches(data[0], data[1], 8, torch.device("meta"))
    for epoch in (1, 2):
        for x, y in source.epoch(epoch, torch.Generator().manual_seed(epoch)):
            assert x.device.type == y.device.type == "meta"
    assert len(moved) == 2
