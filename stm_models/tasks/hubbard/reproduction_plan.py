"""What is simulated and trained to make arXiv 2602.18890 again."""

from __future__ import annotations

from functools import partial
from typing import Any

from stm_models.tasks.hubbard.reproduction_config import OURS, ReproductionConfig
from stm_models.tasks.hubbard.structure import same_field
from stm_models.tasks.reproduction import DataSet, Training

__all__ = [
    "BASIC", "DATA", "EXPLANATIONS", "TEST", "TEST_U", "VALIDATION", "data_sets", "fraction_name", "perturbed_name",
    "tests", "trainings", "transfers", "untrained", "variant_name", "variant_test",
]  # fmt: skip

DATA, TEST, TEST_U, BASIC = "training", "test", "test-U", "untrained"
"""Data sets: to train on; other chains at the same U; other chains at random U, none of them in the training."""
EXPLANATIONS = ("grad_cam", "guided")
"""Methods of the paper."""
VALIDATION = 0.2
"""Share of the states that validate where no fraction is asked for."""
_STREAM = 50_000  # seeds of the data to test on, apart from those of training


def tests(config: ReproductionConfig) -> tuple[str, ...]:
    """Names of both tests, clean and as every perturbation set has them."""
    return (TEST, TEST_U, *(f"{test} {noise}" for noise in config.noises for test in (TEST, TEST_U)))


def transfers(config: ReproductionConfig) -> dict[str, dict[str, Any]]:
    """Values of ``simulate`` of each structure that no training has, by name."""
    made: dict[str, dict[str, Any]] = {
        f"layer distance {value:g}": {"layer_distance": value} for value in config.layer_distances
    }
    made |= {f"filling {value:g}": {"filling": [value, value]} for value in config.fillings}
    return made | {f"index {value}": {"index": value} for value in config.indices}


def data_sets(config: ReproductionConfig) -> dict[str, DataSet]:
    """Name training data, tests, structures to transfer to, and the variants' training data and tests."""
    own = {
        name: value for name in ("replicates", "interaction_count", "draws", "image_size")
        if (value := getattr(config, name)) is not None
    }  # fmt: skip
    size = {} if config.image_size is None else {"image_size": config.image_size}
    other = {**own, "seed": _STREAM + config.seed, "draws": 1}
    sets = {DATA: DataSet(config.preset, {**own, "seed": config.seed})}
    for test, sampling in ((TEST, "grid"), (TEST_U, "uniform")):
        more = {"replicates": config.test_replicates, "interaction_sampling": sampling, "seed": _seed(config, sampling)}
        sets[test] = DataSet(config.preset, {**other, **more})
    for name in tests(config):
        test, _, noise = name.partition(" ")
        if noise:
            sets[name] = DataSet(config.preset, sets[test].simulate, noise)
    short = {"replicates": 2, "interaction_count": -(-config.transfer_states // 2), "interaction_sampling": "uniform"}
    for name, values in transfers(config).items():
        if "index" in values:  # a cell of another size, seen in the training's field: the angle alone differs
            sets[name] = DataSet(config.preset, {**other, **short}, changed=partial(same_field, **values))
        else:
            sets[name] = DataSet(config.preset, {**other, **short, **values})
    count = {"replicates": config.variant_replicates, "interaction_count": config.variant_count, **size}
    for variant in config.variants:
        sets[variant] = DataSet(variant, {**count, "seed": config.seed})
        half = {"replicates": -(-config.variant_replicates // 2), "draws": 1, "seed": _STREAM + config.seed}
        sets[variant_test(variant)] = DataSet(variant, {**count, **half})
    return sets


def trainings(config: ReproductionConfig) -> list[Training]:
    """List all trainings of one seed after those of the other."""
    judged, some = (*tests(config), *transfers(config)), (TEST, TEST_U)
    made = []
    for seed in range(config.seed, config.seed + config.seeds):
        for network in config.networks:
            explained = network in config.explained
            looks: dict[str, Any] = {"explained": TEST_U, "explanations": EXPLANATIONS} if explained else {}
            made.append(_training(config, network, network, seed, judged=judged, **looks))
        for network in config.perturbed:
            made.append(_training(config, perturbed_name(network), network, seed, judged=judged, noisy=True))
        for fraction in config.fractions:
            for network in config.efficient:
                name = fraction_name(network, fraction)
                made.append(_training(config, name, network, seed, judged=some, fraction=fraction))
        for variant in config.variants:
            judged_on = (variant_test(variant),)
            made.append(
                _training(config, variant_name(OURS, variant), OURS, seed, data=variant, preset=variant,
                          judged=judged_on, states=0)
            )  # fmt: skip
    return made


def untrained(config: ReproductionConfig) -> list[Training]:
    """List what baselines are fitted to: the same data, fractions of them, and the variants' data."""
    made = []
    for seed in range(config.seed, config.seed + config.seeds):
        split = _split(None)
        judged = (*tests(config), *transfers(config))
        made.append(Training(BASIC, seed, DATA, config.preset, judged=judged, split=split))
        for fraction in config.fractions:
            name = fraction_name(BASIC, fraction)
            made.append(Training(name, seed, DATA, config.preset, judged=(TEST, TEST_U), split=_split(fraction)))
        for variant in config.variants:
            name, judged = variant_name(BASIC, variant), (variant_test(variant),)
            made.append(Training(name, seed, variant, variant, judged=judged, split=split))
    return made


def perturbed_name(network: str) -> str:
    """Of a network trained on perturbed images."""
    return f"{network}, perturbed"


def fraction_name(network: str, fraction: float) -> str:
    """Of a network trained on a fraction of the states."""
    return f"{network}, {fraction:g} of the states"


def variant_name(network: str, variant: str) -> str:
    """Of a network trained on the data of a variant."""
    return f"{network}, {variant}"


def variant_test(variant: str) -> str:
    """Of the data set to test it on."""
    return f"{variant} test"


def _training(
    config: ReproductionConfig, name: str, network: str, seed: int, *, noisy: bool = False, data: str = DATA,
    preset: str | None = None, fraction: float | None = None, states: int | None = None, **more: Any,
) -> Training:  # fmt: skip
    train: dict[str, Any] = {"network": network, "options": {}, "repeats": 1, "weight_decay": 1e-4, "loss": "mse"}
    if noisy:
        train |= {
            "perturbation": "mixed", "loss": "l1", "epochs": config.perturbed_epochs, "repeats": 8, "batch_size": 128,
            "patience": config.perturbed_epochs, "learning_rate": 2e-3, "schedule": "one_cycle", "weight_decay": 1e-3,
        }  # fmt: skip
    elif network == OURS:
        train |= {
            "perturbation": "clean", "epochs": config.our_epochs, "patience": config.our_epochs, "batch_size": 32,
            "learning_rate": 3e-3, "schedule": "cosine",
        }  # fmt: skip
    else:
        train |= {
            "perturbation": "clean", "epochs": config.epochs, "patience": config.patience, "batch_size": 32,
            "learning_rate": config.learning_rate, "schedule": config.schedule, "optimiser": "adam",
        }  # fmt: skip
    split = _split(fraction) if not noisy else {**_split(fraction), "judged": None}
    count = config.calibrate if states is None else states
    return Training(
        name, seed, data, preset or config.preset, train, split=split, calibrate={"states": count}, **more
    )  # fmt: skip


def _split(fraction: float | None) -> dict[str, Any]:
    """Hold no U out, which `TEST_U` does; of a fraction the other states validate."""
    validation = VALIDATION if fraction is None else 1 - fraction
    return {"unseen_fraction": 0.0, "validation_fraction": validation, "judged": ["clean"]}


def _seed(config: ReproductionConfig, sampling: str) -> int:
    return _STREAM + config.seed + (500 if sampling == "uniform" else 0)
