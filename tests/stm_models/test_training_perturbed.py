"""Training on perturbed images: steps that are taken batch by batch, copies made ahead, and repeats."""

import itertools

import numpy as np
import pytest
import torch

from stm_models.errors import InputError
from stm_models.networks.mlp import FullyConnected
from stm_models.regression.metrics import metrics
from stm_models.tasks.perturbation import Step
from stm_models.training import trainer
from stm_models.training.config import TrainConfig
from stm_models.training.learner import create_learner
from stm_models.training.trainer import predict
from support import small_trainings as trainings

config_of, train = trainings.small_config, trainings.train_as_hubbard
weights, same = trainings.weights, trainings.same
Interrupt, interrupt_at = trainings.Interrupt, trainings.interrupt_at


STEPS = (
    Step("gain_shift", 0.5, {"gain": (0.98, 1.02), "shift": (-1e-3, 1e-3)}),
    Step("strain", 0.5, {"strain": (0.01, 0.03)}),
    Step("gaussian", 0.5, {"sigma": (1e-4, 1e-3)}),
)


@pytest.mark.parametrize("kind", ["steps", "copies", "repeats"])
def test_perturbed_training_resumes_bitwise(linear, tmp_path, kind):
    repeated = {"repeats": 3} if kind == "repeats" else {}

    def config(**values):
        return config_of(**repeated, **values)

    asked = []

    def copies(number):
        asked.append(number)
        noise = np.random.default_rng([1, number]).normal(0, 1e-3, linear[0].shape)
        return (linear[0] + noise).astype(np.float32)

    perturbed = {"steps": STEPS} if kind == "steps" else {"steps": STEPS[:1], "copies": copies}
    whole = train(config(), *linear, **perturbed)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupt):
        train(config(), *linear, on_epoch=interrupt_at(3), checkpoint=path, **perturbed)
    assert same(weights(whole), weights(train(config(), *linear, checkpoint=path, **perturbed)))
    assert not same(weights(whole), weights(train(config(), *linear)))
    assert not same(weights(whole), weights(train(config(seed=1), *linear, **perturbed)))
    if kind != "steps":
        assert asked[:3] == [0, 1, 2]


def test_repeats_show_every_sample_as_the_last_epochs_perturbed_it(linear):
    always = Step("gaussian", 1.0, {"sigma": (0.1, 0.2)})
    learner = create_learner(
        config_of(repeats=3, batch_size=20), *linear[:2], torch.device("cpu"), standardise=True, steps=(always,),
        copies=None, batches=None, unlabelled=(), numbers=None,
    )  # fmt: skip
    source, samples = learner.source, len(linear[0])

    def seed():
        return torch.Generator().manual_seed(4)

    shown = list(source.epoch(5, seed()))
    assert len(shown) == source.count == 3 * -(-samples // 20)
    images, targets = (torch.cat([batch[part] for batch in shown]) for part in (0, 1))
    rows = np.concatenate([source.rows(5, seed(), batch) for batch in range(source.count)])
    assert np.array_equal(np.bincount(rows), np.full(samples, 3))
    assert not np.array_equal(rows[:samples], rows[samples : 2 * samples])
    assert np.array_equal(targets.numpy(), linear[1][rows].astype(np.float32))
    assert len({image.numpy().tobytes() for image in images}) == 3 * samples  # three draws of the noise
    after = torch.cat([x for x, _ in source.epoch(6, seed())])
    kept = {image.numpy().tobytes() for image in images} & {image.numpy().tobytes() for image in after}
    assert len(kept) == 2 * samples  # two of three epochs' draws stay
    first = torch.cat([x for x, _ in source.epoch(1, seed())])
    assert len({image.numpy().tobytes() for image in first}) == samples
    assert learner.steps == ()
    assert learner.prepare(images) is images


def test_repeats_take_no_samples_but_the_data_sets(linear):
    maps = [linear[0][0]]
    with pytest.raises(InputError, match=r"train.repeats is 2.*set it to 1"):
        train(config_of(repeats=2), *linear, unlabelled=maps)


def test_first_copy_is_distorted_no_more_than_the_others(linear):
    always = Step("gaussian", 1.0, {"sigma": (0.1, 0.2)})
    learner = create_learner(
        config_of(), *linear[:2], torch.device("cpu"), standardise=True, steps=(always,),
        copies=lambda number: linear[0] + np.float32(number), batches=None, unlabelled=(), numbers=None,
    )  # fmt: skip
    shown = torch.cat([x for x, _ in learner.source.epoch(1, torch.Generator().manual_seed(0))]).numpy()
    # Batch by batch the steps are taken afterwards, for every copy alike.
    assert np.array_equal(np.sort(shown, axis=0), np.sort(linear[0].astype(np.float32), axis=0))


def test_a_network_may_look_at_several_perturbed_copies_before_it_starts(linear, monkeypatch):
    seen = []
    monkeypatch.setattr(FullyConnected, "learn", lambda self, shown, plain: seen.extend(itertools.islice(shown, 3)))
    monkeypatch.setattr(FullyConnected, "standardised", False)
    always, plain = Step("gaussian", 1.0, {"sigma": (0.1, 0.2)}), linear[0].astype(np.float32)

    def start(**given):
        seen.clear()
        create_learner(
            config_of(network="fc"), *linear[:2], torch.device("cpu"), standardise=True, batches=None, unlabelled=(),
            numbers=None, **{"steps": (), "copies": None, **given},
        )  # fmt: skip
        return [copy.numpy() for copy in seen]

    (alone,) = start()
    assert np.array_equal(alone, plain)
    noises = [copy - plain for copy in start(steps=(always,))]
    assert [0.1 < noise.std() < 0.2 for noise in noises] == [True] * 3
    assert abs(np.corrcoef(np.reshape(noises, (3, -1))) - np.eye(3)).max() < 0.05
    made = start(copies=lambda number: plain + np.float32(number))
    assert [round(float((copy - plain).mean())) for copy in made] == [0, 1, 2]


def test_no_steps_change_nothing(linear):
    never = Step("gaussian", 0.0, {"sigma": (1.0, 2.0)})
    clean = train(config_of(), *linear)
    assert same(weights(clean), weights(train(config_of(), *linear, steps=(never,), names=["U"])))


def test_validation_images_stay_as_they_are(linear, monkeypatch):
    seen = []
    monkeypatch.setattr(trainer, "predict", lambda model, images: seen.append(images) or predict(model, images))
    result = train(config_of(), *linear, steps=STEPS)
    scored = [images for images in seen if len(images) > 1]  # one image tells the shape of an answer
    assert len(scored) == len(result.history)
    assert all(images is linear[2] for images in scored)
    assert metrics(predict(result.model, linear[2]), linear[3])["mae"] == min(h["val_mae"] for h in result.history)


def test_noise_in_training_helps_against_noise(linear):
    strong = (Step("gaussian", 1.0, {"sigma": (4e-3, 6e-3)}),)
    config = TrainConfig(options={"hidden": [32], "pool": 1, "dropout": 0}, epochs=40, learning_rate=3e-3, device="cpu")
    noisy = linear[2] + np.random.default_rng(3).normal(0, 5e-3, linear[2].shape).astype(np.float32)
    errors = {
        name: metrics(predict(train(config, *linear, steps=steps).model, noisy), linear[3])["mae"]
        for name, steps in (("clean", ()), ("noise", strong))
    }
    assert errors["noise"] < 0.8 * errors["clean"]
