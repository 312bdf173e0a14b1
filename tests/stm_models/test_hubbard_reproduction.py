"""Making arXiv 2602.18890 again: what is planned, the scores, and the words made from numbers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from pipelines import settings
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.networks import registry
from stm_models.tasks.hubbard import reproduction_plan as plan
from stm_models.tasks.hubbard.reproduction import HubbardReproduction
from stm_models.tasks.hubbard.reproduction_config import OURS, PRESETS, ReproductionConfig
from stm_models.tasks.hubbard.reproduction_numbers import numbers
from stm_models.tasks.hubbard.reproduction_paper import attention_rows, error_rows, similarity_row
from stm_models.tasks.hubbard.reproduction_report import markdown
from stm_models.tasks.hubbard.reproduction_rings import edges, radius, ring_errors, ring_methods
from stm_models.tasks.hubbard.reproduction_scores import errors
from stm_models.tasks.hubbard.structure import disc_radius, same_field
from stm_models.tasks.reproduction import Ask, Baseline, Finished

SPEC = {"kx_max": 6.9, "ky_max": 8.0, "width": 24, "height": 24}


# What is planned.


@pytest.mark.parametrize("preset", PRESETS)
def test_trainings_and_tests_fit_together_and_share_no_chain(preset):
    config, made = validate(ReproductionConfig, {**PRESETS[preset], "seeds": 1}, "here"), HubbardReproduction()
    sets = made.data_sets(config)
    chosen = {
        name: settings.load("hubbard", one.preset, recorded={"simulate": dict(one.simulate)}).simulate
        for name, one in sets.items()
    }
    learnt = {one.data for one in made.trainings(config)}
    seeds = {name: {one.seed for key, one in chosen.items() if (key in learnt) == (name == "learnt")}
             for name in ("learnt", "tested")}  # fmt: skip
    assert not seeds["learnt"] & seeds["tested"]
    assert chosen[plan.TEST].seed != chosen[plan.TEST_U].seed
    assert (chosen[plan.TEST].interaction_sampling, chosen[plan.TEST_U].interaction_sampling) == ("grid", "uniform")
    assert chosen[plan.TEST].interaction_count == chosen[plan.DATA].interaction_count
    for one in (*made.trainings(config), *made.untrained(config)):
        assert {one.data, *one.judged, *filter(None, [one.explained])} <= set(sets)
        values = {"train": dict(one.train), "split": dict(one.split), "calibrate": dict(one.calibrate)}
        found = settings.load("hubbard", one.preset, recorded=values)
        assert found.split.unseen_fraction == 0  # no U of the training is held out: test-U has its own
        if one.train:
            registry.check(found.train.network, found.train.options)
    for name in plan.tests(config):
        test, _, noise = name.partition(" ")
        assert sets[name].perturbation == (noise or "clean")
        assert sets[name].simulate == sets[test].simulate  # one simulation, shown in several ways


def test_another_angle_is_seen_in_the_field_of_the_training():
    config = validate(ReproductionConfig, PRESETS["quick"], "here")
    sets = plan.data_sets(config)
    own, other = (settings.load("hubbard", "quick", recorded={"simulate": dict(sets[name].simulate)}).simulate
                  for name in (plan.DATA, "index 6"))  # fmt: skip
    turned = sets["index 6"].changed(other)
    assert (own.index, turned.index) == ((5,), (6,))
    assert disc_radius(turned) == pytest.approx(disc_radius(own))
    same = {"index": own.index, "patch_radius": own.patch_radius}
    assert turned.model_copy(update=same) == other.model_copy(update=same)
    with pytest.raises(InputError, match="index"):
        same_field(own, index=0)


def test_a_fraction_of_the_states_and_what_is_left_out():
    config = validate(ReproductionConfig, {**PRESETS["test"], "seeds": 2, "seed": 7}, "here")
    (one,) = [t for t in plan.trainings(config) if t.seed == 8 and "of the states" in t.name]
    assert one.split["validation_fraction"] == pytest.approx(0.6)
    names = {t.name for t in plan.trainings(config)}
    assert names == {"linear", "conv", OURS, f"{OURS}, 0.4 of the states"}
    assert not any("mild" in name for name in plan.tests(config.model_copy(update={"noises": ()})))
    with pytest.raises(InputError, match="expected each once"):
        validate(ReproductionConfig, {"networks": ["conv", "conv"]}, "here")
    with pytest.raises(InputError, match="fractions"):
        validate(ReproductionConfig, {"fractions": [0.9]}, "here")


# Scores.


def _samples(images, targets):
    return SimpleNamespace(images=images, targets=targets, attributes={"input": SPEC})


def test_novelty_says_which_errors_remain():
    targets = np.array([[1.0], [2.0], [3.0], [4.0]])
    images = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
    wrong = np.array([[0.0], [0.5], [0.1], [3.0]])
    p_values = np.array([0.5, 0.001, 0.01, 0.0])
    known = errors(Ask(lambda x: targets + wrong, novelty=lambda x: p_values), _samples(images, targets))
    assert known["mae"] == pytest.approx(0.9)
    assert known["outside"] == 0.5
    assert known["inside_mae"] == pytest.approx(0.05)
    strange = errors(Ask(lambda x: targets + wrong, novelty=lambda x: 0 * p_values), _samples(images, targets))
    assert strange["outside"] == 1
    assert "inside_mae" not in strange
    assert "outside" not in errors(Ask(lambda x: targets), _samples(images, targets))


@pytest.mark.parametrize("ring", [0, 2, 3])
def test_a_ring_that_carries_everything_is_found(ring):
    rng = np.random.default_rng(0)
    targets = rng.uniform(0, 6, (40, 1))
    images = rng.normal(size=(40, 1, 24, 24)).astype(np.float32)
    kx, ky = np.linspace(-6.9, 6.9, 24), np.linspace(-8, 8, 24)
    distance = np.sqrt(kx[None] ** 2 + ky[:, None] ** 2)
    width = distance.max() / 4
    inside = (distance >= ring * width) & (distance < (ring + 1) * width + 1e-9 * (ring == 3))
    images[:, 0, inside] = targets
    np.testing.assert_allclose(radius(SPEC), distance)
    np.testing.assert_allclose(edges(distance, 4), np.arange(5) * width)
    before = images.copy()
    found = ring_errors(lambda x: x[:, 0, inside].mean(axis=1)[:, None], _samples(images, targets), 4)
    np.testing.assert_array_equal(images, before)
    blind = np.abs(targets - targets.mean()).mean()
    for number in range(4):
        assert found[f"without_{number}"] == pytest.approx(blind if number == ring else 0, abs=1e-5)
        assert found[f"alone_{number}"] == pytest.approx(0 if number == ring else blind, abs=1e-5)


def test_a_regression_on_one_ring_sees_that_ring_alone():
    rng = np.random.default_rng(3)
    targets = rng.uniform(0, 6, (60, 1))
    images = rng.normal(size=(60, 1, 24, 24)).astype(np.float32)
    distance = radius(SPEC)
    limits = edges(distance, 3)
    ring = (distance >= limits[1]) & (distance < limits[2])
    images[:, 0, ring] += 5 * targets.astype(np.float32)
    known = SimpleNamespace(
        images=images, targets=targets, attributes={"input": SPEC}, coordinates={"group": np.arange(60)}
    )  # fmt: skip
    found = ring_methods(known, 3, 0)
    wrong = {name: np.abs(method(known) - targets).mean() for name, method in found.items()}
    assert list(found) == ["ring_0", "ring_1", "ring_2"]
    noise = SimpleNamespace(images=np.where(ring, images, 99).astype(np.float32))
    np.testing.assert_array_equal(found["ring_1"](noise), found["ring_1"](known))
    fresh = rng.uniform(0, 6, (40, 1))
    other = rng.normal(size=(40, 1, 24, 24)).astype(np.float32)
    other[:, 0, ring] += 5 * fresh.astype(np.float32)
    errors_of = {name: np.abs(method(SimpleNamespace(images=other)) - fresh).mean() for name, method in found.items()}
    assert errors_of["ring_1"] < 0.2 < 1 < min(errors_of["ring_0"], errors_of["ring_2"])
    assert wrong["ring_1"] < 0.2


# Words made from numbers.


def _spread(value):
    return {"mean": value, "deviation": 0.0, "values": [value]}


@pytest.mark.parametrize(("mae", "verdict"), [(0.05, "lower"), (0.14, "agrees"), (0.3, "higher")])
def test_beside_the_paper(mae, verdict):
    sets = {plan.TEST: {"mae": _spread(mae), "r2": _spread(0.9)}}
    table = {"conv": {"sets": sets, "seeds": [0], "runs": ["r"]}}
    (row,) = error_rows(table, 12, 64)
    assert row["verdict"].startswith(verdict)
    assert (row["paper"], row["ours"]["mae"]["mean"], row["runs"]) == ({"mae": 0.13, "r2": 0.98}, mae, ["r"])
    assert ("12 epochs of 64 px" in row["why"]) == (verdict == "higher")
    assert "epochs" not in error_rows(table, 40, 256)[0]["why"]
    assert similarity_row(0.99985)["verdict"] == "agrees"
    assert similarity_row(0.98)["why"]


@pytest.mark.parametrize(
    ("slopes", "verdict"),
    [
        ([(0.2, True), (0.1, True)], "agrees"),
        ([(0.2, True), (-0.1, True)], "differs between seeds"),
        ([(-0.2, True), (0.1, False)], "moves the other way, or not measurably"),
        ([(0.2, False), (0.1, False)], "no measurable move"),
    ],
)
def test_attention_beside_the_paper(slopes, verdict):
    seeds = [
        {"seed": number, "run": f"run {number}", "methods": {"guided": {
            "slope_of_log_ratio": {"value": value, "sure": sure}, "crossover": {"value": 2.5 if number == 0 else None},
        }}}
        for number, (value, sure) in enumerate(slopes)
    ]  # fmt: skip
    (row,) = attention_rows({"conv": seeds}, [0.5, 0.01])
    assert row["verdict"] == verdict
    assert row["crossovers"] == [2.5]
    assert (row["why"] == "") == (verdict == "agrees")
    assert row["runs"] == ["run 0", "run 1"]
    (sure,) = attention_rows({"conv": seeds}, [0.05, 0.01])
    assert ("any ring of |k| by itself tells U within 0.050 eV" in sure["why"]) == (verdict != "agrees")
    assert "ring" not in row["why"]


def test_every_number_has_its_seeds_and_runs():
    values = {**PRESETS["test"], "seeds": 3, "perturbed": [OURS], "variants": ["magnetic"], "indices": [3]}
    config = validate(ReproductionConfig, values, "here")
    rng = np.random.default_rng(1)
    targets = np.repeat(np.linspace(0, 6, 5), 2)[:, None]
    pattern = rng.normal(size=(1, 24, 24))
    images = (targets[:, :, None, None] * pattern + rng.normal(size=(10, 1, 24, 24))).astype(np.float32)

    class Part(SimpleNamespace):
        def __len__(self):
            return 10

    about = {"coordinates": {"group": np.arange(10)}, "attributes": {"input": SPEC, "digest": "d"}}
    samples = {
        name: Part(images=images, targets=targets, **about)
        for name in (*plan.tests(config), *plan.transfers(config), "magnetic test")
    }

    def scores(one, level):
        found = {}
        for name in one.judged:
            found |= {f"{name}.mae": level + one.seed / 100, f"{name}.rmse": 1.0, f"{name}.r2": 0.5}
            if one.train:
                found |= {f"{name}.outside": 0.25, f"{name}.inside_mae": level / 2}
        if plan.TEST_U in one.judged:
            found |= {f"{plan.TEST_U}.{kind}_{ring}": level * (2 + ring) for kind in ("without", "alone")
                      for ring in range(3)}  # fmt: skip
        return found

    levels = {"linear": 0.5, "conv": 0.3, OURS: 0.1}
    finished = [
        Finished(one, f"{one.name}-{one.seed}", [], scores(one, levels[one.name.partition(",")[0]]), lambda: None)
        for one in plan.trainings(config)
    ]
    basic = {"mean": 1.5, "ridge": 0.4, "kernel_ridge": 0.05, "ridge_3": 0.9, "kernel_ridge_3": 0.2}
    rings = {f"ring_{number}": 0.2 + number for number in range(3)}
    baselines = [
        Baseline(one, name, scores(one, level))
        for one in plan.untrained(config)
        for name, level in (basic | (rings if one.name == plan.BASIC else {})).items()
    ]
    report = json.loads(json.dumps(numbers(config, finished, baselines, samples), allow_nan=False))
    row = report["table"]["conv"]
    assert (row["seeds"], row["runs"]) == ([0, 1, 2], ["conv-0", "conv-1", "conv-2"])
    cell = row["sets"]["test mild"]["mae"]
    np.testing.assert_allclose([cell["mean"], cell["deviation"], *cell["values"]], [0.31, 0.01, 0.3, 0.31, 0.32])
    assert report["table"]["ridge_3"]["runs"] == []
    assert set(report["table"]) == {*levels, *basic, f"{OURS}, perturbed"}
    assert [one["fraction"] for one in report["efficiency"][OURS]] == pytest.approx([0.4, 0.8])
    assert report["efficiency"][OURS][0]["runs"] == [f"{OURS}, 0.4 of the states-{seed}" for seed in range(3)]
    assert set(report["variants"]["magnetic"]) == {OURS, *basic}
    assert report["rings"]["methods"]["conv"]["without"][2]["mean"] == pytest.approx(1.2)
    text = "\n".join(report["findings"])
    assert "test, MAE in eV, the best: kernel_ridge 0.060 < lattice 0.110" in text
    assert "index 3: lattice errs by 0.110 eV (0.110 on its own structure)" in text
    assert "novelty calls 25 % outside, MAE 0.050 on those it takes" in text
    assert "conv needs |k| = " in text
    assert [one["mae"]["mean"] for one in report["rings"]["fitted"]] == pytest.approx([0.21, 1.21, 2.21])
    assert "MAE on test-U in eV: 0.210 (0.00 to 3.52 1/a) < 1.210" in text
    page = markdown(report)
    assert "| conv | 0.310 ± 0.010 | 0.310 ± 0.010 |" in page
    assert "states that a network is not trained on choose its epoch" in page
    assert "0.310 ± 0.010 (0.150 ± 0.000; 25 % outside)" in page
    assert "conv-0, conv-1, conv-2; seeds 0, 1, 2 |" in page
