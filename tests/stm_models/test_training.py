"""What a training learns, keeps, repeats and refuses."""

import json

import numpy as np
import pytest
import torch

from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.networks.model import Model
from stm_models.regression.metrics import metrics
from stm_models.training import learner, trainer
from stm_models.training.checkpoints import fingerprint
from stm_models.training.config import TrainConfig
from stm_models.training.losses import loss_function
from stm_models.training.schedules import factor
from stm_models.training.trainer import predict
from support import small_trainings as trainings

config_of, train = trainings.small_config, trainings.train_as_hubbard
SMALL, weights, same = trainings.SMALL, trainings.weights, trainings.same
Interrupt, interrupt_at = trainings.Interrupt, trainings.interrupt_at


@pytest.mark.parametrize("schedule", ["cosine", "constant", "one_cycle"])
@pytest.mark.parametrize("loss", ["mse", "huber", "l1"])
def test_learns_a_linear_problem(linear, schedule, loss):
    config = TrainConfig(
        options={"hidden": [32], "pool": 1, "dropout": 0}, epochs=40, schedule=schedule, loss=loss,
        learning_rate=3e-3, device="cpu",
    )  # fmt: skip
    result = train(config, *linear)
    prediction = predict(result.model, linear[2])
    assert prediction.dtype == np.float64
    assert prediction.shape == linear[3].shape
    assert metrics(prediction, linear[3])["r2"] > 0.98
    best = result.history[result.best_epoch - 1]
    assert metrics(prediction, linear[3])["mae"] == best["val_mae"] == min(h["val_mae"] for h in result.history)


def test_conv_learns_too(linear):
    config = TrainConfig(network="conv", epochs=3, device="cpu", schedule="constant")
    history = train(config, linear[0][:64], linear[1][:64], linear[2][:16], linear[3][:16]).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_several_targets(linear):
    both = [np.hstack([linear[i], 100 - 10 * linear[i]]) for i in (1, 3)]
    result = train(config_of(learning_rate=1e-2), linear[0], both[0], linear[2], both[1])
    scores = metrics(predict(result.model, linear[2]), both[1], ["U", "gap"])
    assert scores["r2_U"] > 0.8
    assert scores["r2_gap"] > 0.8


def test_same_seed_same_weights_and_global_state_untouched(linear):
    torch.manual_seed(5)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = train(config_of(seed=3), *linear)
    assert torch.equal(before, torch.random.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # noqa: NPY002
    torch.manual_seed(6)
    second = train(config_of(seed=3), *linear)
    assert same(weights(first), weights(second))
    assert not same(weights(first), weights(train(config_of(seed=4), *linear)))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_interrupted_and_resumed_is_bitwise_the_same(linear, tmp_path, stop):
    whole = train(config_of(schedule="one_cycle"), *linear)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupt):
        train(config_of(schedule="one_cycle"), *linear, on_epoch=interrupt_at(stop), checkpoint=path)
    seen = []
    resumed = train(
        config_of(schedule="one_cycle"),
        *linear,
        on_epoch=lambda epoch, entry: seen.append(epoch),
        checkpoint=path,
    )
    assert seen == list(range(stop + 1, 7))
    assert same(weights(whole), weights(resumed))
    without_time = [[{**entry, "seconds": 0} for entry in r.history] for r in (whole, resumed)]
    assert without_time[0] == without_time[1]
    assert resumed.best_epoch == whole.best_epoch


def test_resume_with_batch_norm_and_dropout(linear, tmp_path):
    data = (linear[0][:48], linear[1][:48], linear[2][:8], linear[3][:8])
    config = TrainConfig(network="conv", epochs=3, device="cpu", threads=1)
    whole = train(config, *data)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupt):
        train(config, *data, on_epoch=interrupt_at(2), checkpoint=path)
    assert same(weights(whole), weights(train(config, *data, checkpoint=path)))


def test_targets_of_unlike_units_count_alike(linear):
    """A second target of tiny numbers must not be drowned by the first when the best epoch is chosen."""
    both = [np.hstack([linear[i], 1e-6 * linear[i] ** 2]) for i in (1, 3)]
    result = train(config_of(learning_rate=1e-2), linear[0], both[0], linear[2], both[1], names=["U", "gap"])
    scale = both[0].std(axis=0)
    errors = [h["val_mae_U"] / scale[0] + h["val_mae_gap"] / scale[1] for h in result.history]
    assert result.best_epoch == 1 + int(np.argmin(errors))


def test_a_finished_checkpoint_is_not_trained_again(linear, tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    first = train(config_of(), *linear, checkpoint=path)
    monkeypatch.setattr(trainer, "run_epoch", None)
    again = train(config_of(), *linear, checkpoint=path)
    assert same(weights(first), weights(again))
    assert again.history == first.history
    assert again.seconds == first.seconds > 0


def test_early_stopping_restores_the_best_weights(linear):
    # Targets that cannot be learnt: the validation error soon stops falling.
    noise = np.random.default_rng(1).normal(size=(200, 1))
    config = TrainConfig(options=SMALL, epochs=60, patience=4, device="cpu", schedule="constant", learning_rate=0.01)
    result = train(config, linear[0], noise, linear[2], noise[:100])
    assert len(result.history) == result.best_epoch + 4 < 60
    score = metrics(predict(result.model, linear[2]), noise[:100])["mae"]
    assert score == result.history[result.best_epoch - 1]["val_mae"]


def test_diverging_loss_names_epoch_batch_and_rate(linear, tmp_path):
    path = tmp_path / "checkpoint.pt"
    images, targets = linear[0].copy(), linear[1]
    config = config_of(learning_rate=1e6, schedule="constant").model_copy(
        update={"options": {"hidden": [8] * 8, "pool": 1, "activation": "relu"}}
    )
    with pytest.raises(InputError, match=r"NaN or infinite in epoch 1, .*batch.* at learning rate 1e\+06: lower"):
        train(config, images, targets, *linear[2:], checkpoint=path)
    assert not path.exists()


def test_diverging_later_keeps_the_last_good_checkpoint(linear, tmp_path, monkeypatch):
    path, original = tmp_path / "checkpoint.pt", loss_function
    with pytest.raises(Interrupt):
        train(config_of(), *linear, checkpoint=path, on_epoch=interrupt_at(2))
    good = path.read_bytes()
    monkeypatch.setattr(learner, "loss_function", lambda name: lambda p, y: original(name)(p, y) * float("nan"))
    with pytest.raises(InputError, match="in epoch 3, batch 1 of 7"):
        train(config_of(), *linear, checkpoint=path)
    assert path.read_bytes() == good


def test_checkpoint_of_another_run_is_refused(linear, tmp_path):
    path = tmp_path / "checkpoint.pt"
    train(config_of(), *linear, checkpoint=path)
    with pytest.raises(InputError, match=r"learning_rate=0.001, now it is 0.5"):
        train(config_of(learning_rate=0.5), *linear, checkpoint=path)
    with pytest.raises(InputError, match="other data"):
        train(config_of(), linear[0] * 2, *linear[1:], checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        train(config_of(), *linear, checkpoint=path)
    torch.save({"format": 1, "run": print}, path)
    with pytest.raises(InputError, match="damaged"):
        train(config_of(), *linear, checkpoint=path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d[0].__setitem__((3, 0, 0, 0), np.nan), "training images hold NaN"),
        (lambda d: d[3].__setitem__((3, 0), np.inf), "validation targets hold NaN"),
        (lambda d: d.__setitem__(1, d[1][:-1]), "training data have shapes"),
        (lambda d: d.__setitem__(2, d[2][..., :-1]), "expected those of the training data"),
        (lambda d: d.__setitem__(3, d[3][:, 0]), "validation data have shapes"),
        (lambda d: d.__setitem__(2, d[2][:0]) or d.__setitem__(3, d[3][:0]), "validation data have shapes"),
    ],
)
def test_data_that_do_not_fit(linear, change, match):
    data = [part.copy() for part in linear]
    change(data)
    with pytest.raises(InputError, match=match) as caught:
        train(config_of(), *data)
    assert "\n" not in str(caught.value)


def test_missing_device(linear, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="there is none"):
        train(config_of().model_copy(update={"device": "cuda"}), *linear)


def test_threads_are_those_asked_for_and_put_back(linear):
    before, during = torch.get_num_threads(), []
    config = config_of().model_copy(update={"threads": before + 1, "epochs": 1})
    train(config, *linear, on_epoch=lambda *_: during.append(torch.get_num_threads()))
    assert during == [before + 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("values", [{"epochs": 0}, {"learning_rate": 0}, {"patience": 0}, {"batchsize": 3}])
def test_config_bounds(values):
    with pytest.raises(InputError):
        validate(TrainConfig, values, "train")


def test_config_is_json():
    config = TrainConfig(options={"hidden": [3]})
    assert TrainConfig(**json.loads(config.model_dump_json())) == config


def test_unknown_loss():
    with pytest.raises(InputError, match="unknown loss 'mae': choose from mse, huber, l1, focal_heat, pixel_entropy"):
        loss_function("mae")


def test_schedules():
    assert [factor("constant", step, 10) for step in (0, 10)] == [1, 1]
    cosine = [factor("cosine", step, 10) for step in range(11)]
    np.testing.assert_allclose(cosine, (1 + np.cos(np.pi * np.arange(11) / 10)) / 2, atol=1e-12)
    cycle = [factor("one_cycle", step, 100) for step in range(101)]
    assert np.argmax(cycle) == 30
    assert cycle[0] == pytest.approx(1 / 25)
    assert cycle[30] == 1
    assert cycle[-1] == pytest.approx(1e-4)


def test_predict_in_pieces_and_leaves_the_mode(linear):
    network = registry.create("mlp", (1, 10, 9), 1, SMALL)
    model = Model.for_data(network, linear[0], linear[1]).train()
    np.testing.assert_allclose(predict(model, linear[0], batch_size=7), predict(model, linear[0]), rtol=1e-6)
    assert model.training
    with pytest.raises(InputError, match=r"this model expects \(1, 10, 9\)"):
        predict(model, linear[0][..., :5])
    with pytest.raises(InputError, match="expected"):
        predict(model, linear[0][:0])


def test_fingerprint_sees_values_shape_and_type():
    array = np.arange(6.0)
    marks = [array, array.reshape(2, 3), array.astype(np.float32), array + 1]
    assert len({fingerprint(mark) for mark in marks}) == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_learns_and_resumes_on_a_gpu(linear, tmp_path):
    config = TrainConfig(options={"hidden": [32], "pool": 1}, epochs=40, learning_rate=3e-3, device="cuda")
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupt):
        train(config, *linear, checkpoint=path, on_epoch=interrupt_at(20))
    result = train(config, *linear, checkpoint=path)
    assert result.history[-1]["epoch"] > 20
    assert metrics(predict(result.model, linear[2]), linear[3])["r2"] > 0.98
