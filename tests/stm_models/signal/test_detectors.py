"""Detectors without training find what they are made for, wherever and however strong it is."""

import numpy as np
import pytest
from scipy.signal import correlate

from stm_models.errors import InputError
from stm_models.physics.surface import materials
from stm_models.physics.surface.experiment import PIXEL_SIZE, pseudo_experiment
from stm_models.signal.detectors import DETECTORS, LaplacianOfGaussian, MatchedFilter, create
from stm_models.signal.matching import detection_scores
from stm_models.signal.peaks import find_peaks
from stm_models.signal.preprocessing import prepare_stack

BIASES = np.linspace(-0.23, 0.02, 4)


def rings(position, phase=1.0, size=48, exponent=1.0):
    k = materials.create("Au(111)").wave_number(BIASES, PIXEL_SIZE)[:, None, None]
    y, x = np.mgrid[:size, :size]
    r = np.hypot(y - position[0], x - position[1])
    return np.cos(2 * k * r + phase) / (r + 1) ** exponent


@pytest.mark.parametrize("phase", [0.0, 1.5, 3.0, 4.5])
@pytest.mark.parametrize("position", [(20.0, 30.0), (24.3, 11.6), (3.0, 44.0)])
def test_the_matched_filter_finds_rings_of_any_phase(phase, position):
    noise = 0.03 * np.random.default_rng(1).standard_normal((4, 48, 48))
    score = MatchedFilter()(rings(position, phase) + noise, BIASES, PIXEL_SIZE)
    found = find_peaks(score, most=1)
    np.testing.assert_allclose(found.positions[0], position, atol=0.6)


def test_the_score_is_the_modulus_of_direct_correlations():
    stack = np.random.default_rng(0).standard_normal((4, 31, 26))
    detector = MatchedFilter(radius=6.0)
    k = materials.create("Au(111)").wave_number(BIASES, PIXEL_SIZE)
    expected = np.zeros((31, 26))
    for values, number in zip(stack, k, strict=True):
        kernel = detector.kernel(number)
        scaled = values / np.sqrt((values**2).mean())
        parts = [correlate(scaled, part, mode="same", method="direct") for part in (kernel.real, kernel.imag)]
        expected += np.hypot(*parts) / 4
    np.testing.assert_allclose(detector(stack, BIASES, PIXEL_SIZE), expected, atol=1e-9)


def test_the_kernel_has_no_mean_unit_norm_and_no_core():
    kernel = MatchedFilter().kernel(0.9)
    for part in (kernel.real, kernel.imag):
        assert part.sum() == pytest.approx(0, abs=1e-12)
        assert (part**2).sum() == pytest.approx(1)
    assert np.all(kernel[9:12, 10] == 0)
    assert np.all(MatchedFilter(core=0.0).kernel(0.9)[9:12, 10] != 0)
    with pytest.raises(InputError, match="core < radius"):
        MatchedFilter(core=5.0, radius=5.0)


def test_each_image_counts_alike_whatever_its_unit():
    stack = rings((20.0, 20.0))
    gains = np.array([1e-9, 3.0, 100.0, 0.5])[:, None, None]
    a, b = (MatchedFilter()(s, BIASES, PIXEL_SIZE) for s in (stack, gains * stack))
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_the_blob_filter_finds_spots_by_their_sign():
    y, x = np.mgrid[:40, :40]
    spots = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 3) for a, b in ((10.0, 12.0), (27.4, 30.0))]
    stack = np.stack([spots[0] - spots[1]] * 2)
    for sign, expected in (("bright", [(10.0, 12.0)]), ("dark", [(27.4, 30.0)]), ("both", [(10, 12), (27.4, 30)])):
        score = LaplacianOfGaussian(sign=sign)(stack, BIASES[:2], PIXEL_SIZE)
        found = find_peaks(score, most=len(expected)).positions
        np.testing.assert_allclose(found[np.argsort(found[:, 0])], expected, atol=0.2)
    with pytest.raises(InputError, match="unknown sign"):
        LaplacianOfGaussian(sign="grey")


def test_a_pseudo_experiment_is_solved_far_above_chance():
    fields = [pseudo_experiment("std", np.random.default_rng([902, i])) for i in range(3)]
    truth = [field.positions for field in fields]
    least = {"laplacian": 0.35, "matched_filter": 0.8}
    for name in DETECTORS:
        detector = create(name)
        found = [
            find_peaks(
                detector(prepare_stack(f.maps), f.biases, f.pixel_size), min_distance=3, most=len(f.positions)
            ).positions
            for f in fields
        ]
        scores = detection_scores(found, truth, shape=(80, 80))
        assert scores["f1"] > least[name]
        assert scores["paper_ratio"] > 5 * scores["chance_ratio"]


def test_wrong_input_is_refused():
    stack = rings((20.0, 20.0))
    with pytest.raises(InputError, match="band bottom"):
        MatchedFilter()(stack, BIASES - 1, PIXEL_SIZE)
    with pytest.raises(InputError, match="one bias for each map"):
        MatchedFilter()(stack, BIASES[:2], PIXEL_SIZE)
    with pytest.raises(InputError, match="unknown detector 'sift'"):
        create("sift")
    for name in DETECTORS:
        with pytest.raises(InputError, match=r"expected \(bias, y, x\)"):
            create(name)(stack[0], BIASES, PIXEL_SIZE)
