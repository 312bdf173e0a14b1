"""Perturbation sets: each draw within its range and as often as stated, and the same for everyone who asks again."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from stm_models.data.dataset import Samples
from stm_models.errors import InputError
from stm_models.physics.instrument import Instrument
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.tasks import registry
from stm_models.tasks.hubbard import perturbations as perturbation_sets
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.perturbations import SETS, Imaging, observed
from stm_models.tasks.hubbard.quick_instrument import QuickInstrument, Transform
from stm_models.tasks.hubbard.structure import disc_radius, imaged_atoms
from stm_models.tasks.perturbation import CLEAN, KINDS, Perturbation, Step, find, scaled
from stm_models.training.perturbations import copies_of, digest, perturb, perturbed

BY_NAME = {one.name: one for one in SETS}
PAPER = {
    "mild": {
        "gain_shift": (0.3, {"gain": (0.98, 1.02), "shift": (-0.01, 0.01)}),
        "gaussian": (0.3, {"sigma": (0.001, 0.005)}),
        "scan_line": (0.2, {"sigma": (0.005, 0.01)}),
    },
    "symb": {"strain": (0.8, {"strain": (0.01, 0.03)}), "gaussian": (0.3, {"sigma": (0.001, 0.005)})},
    "noisy": {
        "gaussian": (0.3, {"sigma": (0.004, 0.012)}),
        "scan_line": (0.3, {"sigma": (0.006, 0.015)}),
        "tip_blur": (0.25, {"sigma": (0.5, 0.9), "ratio": (1.0, 1.15)}),
        "gain_shift": (0.3, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}),
    },
}  # arXiv 2602.18890


def _draw(step, images, seed=0):
    return perturb(images, [step], torch.Generator().manual_seed(seed))


def _uniform(values, limits):
    """Values spread evenly over the range, up to what the estimate of each adds."""
    scaled = (np.asarray(values) - limits[0]) / (limits[1] - limits[0])
    assert stats.kstest(scaled, "uniform").pvalue > 1e-3
    assert -0.1 < scaled.min() < 0.1 < 0.9 < scaled.max() < 1.1


def test_the_sets_are_the_papers():
    assert [one.name for one in SETS if one.judged] == ["clean", "mild", "symb", "noisy", "instrument"]
    assert [one.name for one in SETS if not one.judged] == ["mixed"]
    for name, steps in PAPER.items():
        assert {s.kind: (s.probability, dict(s.ranges)) for s in BY_NAME[name].steps} == steps
    assert BY_NAME["clean"] == CLEAN == Perturbation("clean", CLEAN.description)
    assert registry.get("hubbard").perturbations() == SETS


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, steps in PAPER.items() for kind in steps])
def test_each_step_meets_its_share_of_the_images(name, kind):
    step = next(step for step in BY_NAME[name].steps if step.kind == kind)
    images = torch.zeros(4000, 1, 5, 4)
    images[:, :, 2, 2] = 1
    met = (_draw(step, images) != images).any(dim=(1, 2, 3)).double().mean().item()
    assert met == pytest.approx(step.probability, abs=4 * math.sqrt(0.25 / 4000))


def test_the_mixture_reaches_as_far_as_the_sets():
    mixed = {step.kind: step for step in BY_NAME["mixed"].steps}
    for name in PAPER:
        for step in BY_NAME[name].steps:
            for quantity, (low, high) in step.ranges.items():
                widest = mixed[step.kind].ranges[quantity]
                assert widest[0] <= low
                assert widest[1] >= high
            assert 0 < mixed[step.kind].probability < 1


def test_gain_and_shift_fill_their_ranges():
    x = torch.linspace(0, 1, 16).reshape(1, 1, 4, 4).expand(3000, 1, 4, 4).double()
    y = _draw(Step("gain_shift", 1.0, {"gain": (0.95, 1.05), "shift": (-0.01, 0.01)}), x).reshape(3000, -1).numpy()
    _uniform(y[:, -1] - y[:, 0], (0.95, 1.05))
    _uniform(y[:, 0], (-0.01, 0.01))
    assert abs(np.corrcoef(y[:, 0], y[:, -1] - y[:, 0])[0, 1]) < 0.08


def test_gaussian_noise_is_white_and_of_the_stated_strength():
    x = torch.full((800, 1, 40, 40), 0.3, dtype=torch.float64)
    noise = (_draw(Step("gaussian", 1.0, {"sigma": (0.004, 0.012)}), x) - x)[:, 0].numpy()
    strength = noise.std(axis=(1, 2))
    _uniform(strength, (0.004, 0.012))
    scaled = noise / strength[:, None, None]
    assert abs(scaled.mean()) < 0.005
    assert stats.kurtosis(scaled, axis=None) == pytest.approx(0, abs=0.05)
    for neighbours in ((scaled[:, 1:], scaled[:, :-1]), (scaled[..., 1:], scaled[..., :-1])):
        assert abs((neighbours[0] * neighbours[1]).mean()) < 0.005


def test_scan_lines_shift_whole_rows():
    x = torch.rand(400, 2, 600, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    offsets = (_draw(Step("scan_line", 1.0, {"sigma": (0.006, 0.015)}), x) - x).numpy()
    assert np.abs(np.ptp(offsets, axis=3)).max() < 1e-12
    rows = offsets[..., 0]
    # Both channels of a sample share the strength, not the offsets.
    _uniform(rows.reshape(400, -1).std(axis=1), (0.006, 0.015))
    assert abs(np.corrcoef(rows[:, 0].ravel(), rows[:, 1].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(rows[:, 0, 1:].ravel(), rows[:, 0, :-1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("shape", [(61, 61), (49, 81)])
def test_strain_moves_peaks_as_stretching_the_plane_does(shape):
    """Second moments of a Gaussian blob: lambda^T M lambda has eigenvalues (1 +- strain)^2, whatever the pixels."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    blob = np.exp(-(y[:, None] ** 2 + x**2) / (2 * 5**2))
    images = torch.from_numpy(blob).expand(300, 1, *shape)
    result = _draw(Step("strain", 1.0, {"strain": (0.01, 0.03)}), images)[:, 0].numpy()
    weight = result / result.sum(axis=(1, 2), keepdims=True)
    assert np.abs((weight * x).sum(axis=(1, 2))).max() < 1e-6  # the middle stays
    xx, yy = ((weight * values).sum(axis=(1, 2)) for values in (x**2, y[:, None] ** 2))
    xy = (weight * y[:, None] * x).sum(axis=(1, 2))
    moments = np.linalg.eigvalsh(np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2))
    ratio = np.sqrt(moments[:, 1] / moments[:, 0])
    _uniform((ratio - 1) / (ratio + 1), (0.01, 0.03))
    _uniform(np.arctan2(2 * xy, xx - yy) / 2, (-math.pi / 2, math.pi / 2))


def test_tip_blur_is_a_gaussian_of_two_widths():
    delta = torch.zeros(400, 1, 21, 21, dtype=torch.float64)
    delta[..., 10, 10] = 1
    kernels = _draw(Step("tip_blur", 1.0, {"sigma": (0.9, 1.4), "ratio": (1.0, 1.15)}), delta)[:, 0].numpy()
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1)
    offsets = np.arange(21) - 10
    xx, yy = ((kernels * values).sum(axis=(1, 2)) for values in (offsets**2, offsets[:, None] ** 2))
    xy = (kernels * offsets[:, None] * offsets).sum(axis=(1, 2))
    half, middle = np.hypot((xx - yy) / 2, xy), (xx + yy) / 2
    narrow, wide = np.sqrt(middle - half), np.sqrt(middle + half)
    _uniform(narrow, (0.9, 1.4))
    _uniform(wide / narrow, (1.0, 1.15))


def test_tip_blur_against_scipy():
    x = np.random.default_rng(0).random((1, 3, 14, 11))
    step = Step("tip_blur", 1.0, {"sigma": (0.8, 0.8), "ratio": (1.0, 1.0)})
    expected = [ndimage.gaussian_filter(channel, 0.8, mode="nearest", radius=3) for channel in x[0]]
    np.testing.assert_allclose(_draw(step, torch.from_numpy(x))[0].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*PAPER, "clean"])
def test_same_generator_same_images_and_the_input_is_left_alone(name):
    x = torch.rand(12, 2, 9, 7, generator=torch.Generator().manual_seed(0))
    before, state = x.clone(), torch.random.get_rng_state()
    first, second, other = (perturb(x, BY_NAME[name].steps, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert torch.equal(x, before)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first, other) == (name == "clean")
    assert first.dtype == x.dtype
    assert torch.isfinite(first).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(KINDS)), st.integers(1, 3), st.integers(3, 12), st.integers(3, 12))
def test_what_no_step_meets_is_bitwise_the_same_and_shapes_stay(seed, kind, channels, height, width):
    x = torch.rand(4, channels, height, width, generator=torch.Generator().manual_seed(seed))
    ranges = {"gain": (0.9, 1.1), "shift": (0.0, 0.1), "sigma": (0.5, 0.9), "ratio": (1.0, 1.2), "strain": (0.01, 0.1)}
    chosen = {name: ranges[name] for name in KINDS[kind]}
    never = perturb(x, [Step(kind, 0.0, chosen)], torch.Generator().manual_seed(seed))
    assert torch.equal(never, x)
    always = perturb(x, [Step(kind, 1.0, chosen)], torch.Generator().manual_seed(seed))
    assert always.shape == x.shape
    assert torch.isfinite(always).all()


def test_a_step_must_be_one_that_exists():
    for bad in (("blur", 0.5, {}), ("gaussian", 0.5, {"gain": (0, 1)}), ("gaussian", 1.5, {"sigma": (0, 1)})):
        with pytest.raises(ValueError, match="no such distortion"):
            Step(*bad)


def test_unknown_set_lists_the_choices():
    with pytest.raises(InputError, match=r"unknown perturbation 'milt': choose from clean, .*did you mean 'mild'"):
        find(SETS, "milt")


# Sets of a data set


CONFIG = HubbardSimulation(index=1, patch_radius=4.0, image_size=24, energies=(0.0,))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Ten samples of an LDOS that was made up, imaged as the simulator does it."""
    rng = np.random.default_rng(0)
    grid, radius = KGrid(24), disc_radius(CONFIG)
    coordinates = {
        "sample": np.arange(10), "group": np.arange(10), "index": np.ones(10), "layer_distance": np.full(10, 2.75),
        "strain": np.zeros(10), "strain_angle": np.zeros(10),
    }  # fmt: skip
    atoms = imaged_atoms(CONFIG, {name: values[0] for name, values in coordinates.items()})
    ldos = rng.uniform(0.2, 0.6, (10, 1, atoms.copies.max() + 1)).astype(np.float32)
    images = image(*atoms.positions.T, ldos[:, 0][:, atoms.copies] * atoms.weights, grid)[:, None]
    path = tmp_path_factory.mktemp("made up") / "data.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"schema": "stm-dataset/1"})
    root.create_array("ldos", data=ldos).attrs["role"] = "array"
    attributes = {
        "config": CONFIG.model_dump(mode="json"),
        "input": {"width": 24, "kx_max": grid.kx_max, "ky_max": grid.ky_max, "envelope": CONFIG.envelope,
                  "radius": radius},
    }  # fmt: skip
    return Samples(images, np.zeros((10, 1)), coordinates, attributes, path)


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_a_sample_is_the_same_in_any_company(one, samples):
    whole = perturbed(one, samples, seed=3)
    some = np.array([7, 2, 3])
    np.testing.assert_array_equal(perturbed(one, samples.subset(some), seed=3), whole[some])
    np.testing.assert_array_equal(perturbed(one, samples, seed=3), whole)
    assert whole.shape == samples.images.shape
    assert whole.dtype == np.float32
    assert (digest(whole) == digest(perturbed(one, samples, seed=4))) == (one == CLEAN)
    assert np.array_equal(whole, samples.images) == (one == CLEAN)


def test_every_sample_draws_its_own(samples):
    same = replace(samples, images=np.repeat(samples.images[:1], 10, axis=0))
    always = Perturbation("noise", "", (Step("gaussian", 1.0, {"sigma": (0.1, 0.1)}),))
    noise = (perturbed(always, same, 0) - same.images).reshape(10, -1)
    assert np.abs(np.corrcoef(noise) - np.eye(10)).max() < 0.2


def test_digest_forgives_the_last_bits_alone(samples):
    images = np.round(samples.images, 3)
    assert digest(images) == digest(images + np.float32(1e-7)) != digest(images + np.float32(1e-4))
    assert digest(images) != digest(images[::-1])


def test_an_unperturbed_map_gives_the_image_of_the_point_sum(samples):
    """To 2e-6: what is missing is the tail of the outermost Gaussians, and the transform's own tolerance."""
    clean = replace(BY_NAME["instrument"], remake=lambda attributes: observed(attributes, None))
    assert np.abs(perturbed(clean, samples, 0) - samples.images).max() < 2e-6
    imaging = Imaging.of(samples.attributes["input"])
    assert imaging.pixel_nm <= 0.05
    assert 1 < 1 / imaging.divisor.min() < 20


def test_instrument_disturbs_every_image_by_some_per_cent(samples):
    noise = perturbed(BY_NAME["instrument"], samples, 0) - samples.images
    spread = noise.std(axis=(1, 2, 3))
    assert ((spread > 1e-3) & (spread < 0.05)).all()


NOTHING = (0.0, 0.0)
QUIET = Instrument(
    noise=NOTHING, row_offset=NOTHING, shear=NOTHING, spikes=NOTHING, blur_probability=0, change_probability=0
)


def _both(samples, instrument, count):
    """Images (count, n, n) of the first sample: map by map, and from stored spectra."""
    exact = observed(samples.attributes, instrument)
    row = {name: values[0] for name, values in samples.coordinates.items()}
    imaging = Imaging.of(samples.attributes["input"])
    ldos = zarr.open_group(samples.path)["ldos"][0].astype(np.float64)
    one = imaging.maps(imaged_atoms(CONFIG, row), ldos)[0]
    transform = Transform(imaging)
    quick = QuickInstrument(transform, one, instrument, np.random.default_rng(1))
    clean, rng = transform.spectrum(one), np.random.default_rng(2)
    slow = np.stack([exact(row, {"ldos": ldos}, rng)[0] for _ in range(count)])
    return slow, np.stack([quick.draw([clean], rng)[0] for _ in range(count)])


def test_quick_images_are_the_slow_ones_where_nothing_is_drawn(samples):
    slow, quick = _both(samples, QUIET, 1)
    assert quick.dtype == np.float32
    assert np.abs(quick - slow).max() < 1e-5
    slow, blunt = _both(samples, replace(QUIET, blur_probability=1, blur_nm=(0.04, 0.04), blur_ratio=(1, 1)), 1)
    # The tip is applied after the envelope instead of before it: peaks change alike, their flanks a little otherwise.
    assert np.abs(blunt - slow).max() < 0.15 * np.abs(quick - slow).max()


@pytest.mark.parametrize(
    "part", [{"noise": (0.1, 0.1)}, {"row_offset": (0.15, 0.15)}, {"change_probability": 1.0, "change": (1.15, 1.15)}]
)
def test_quick_noise_is_as_strong_as_the_slow_one(samples, part):
    slow, quick = _both(samples, replace(QUIET, **part), 300)
    spread = [images.std(axis=0) for images in (slow, quick)]
    regions = [np.s_[:, 11:13], np.s_[:, :9], np.s_[11:13, :]]  # kx = 0, far from it, along a scan line
    for region in regions:
        strong = np.sqrt(np.mean(spread[0][region] ** 2))
        assert np.sqrt(np.mean(spread[1][region] ** 2)) == pytest.approx(strong, rel=0.15)
    assert np.abs(quick.mean(axis=0) - slow.mean(axis=0)).max() < 0.3 * spread[0].max()


def test_quick_channels_share_noise_as_an_instruments(samples):
    instrument = replace(QUIET, noise=(0.1, 0.1), correlation=0.5)
    imaging = Imaging.of(samples.attributes["input"])
    row = {name: values[0] for name, values in samples.coordinates.items()}
    ldos = np.repeat(zarr.open_group(samples.path)["ldos"][0].astype(np.float64), 2, axis=0)
    one = imaging.maps(imaged_atoms(CONFIG, row), ldos[:1])[0]
    transform = Transform(imaging)
    quick, exact = (
        QuickInstrument(transform, one, instrument, np.random.default_rng(1)),
        observed(samples.attributes, instrument),
    )
    rng, clean = np.random.default_rng(2), transform.spectrum(one)
    shared = []
    for draw in (lambda: exact(row, {"ldos": ldos}, rng), lambda: quick.draw([clean, clean], rng)):
        images = np.stack([draw() for _ in range(200)])
        noise = (images - images.mean(axis=0))[:, :, 12:].reshape(200, 2, -1)
        shared.append(np.mean(noise[:, 0] * noise[:, 1]) / np.mean(noise**2))
    assert shared[1] == pytest.approx(shared[0], abs=0.08)
    assert 0.2 < shared[0] < 0.6


def test_later_copies_draw_from_other_stores_of_noise(samples, monkeypatch):
    """A network that saw one store through a whole training would learn to take its noises away."""
    stores = []

    class Watched(QuickInstrument):
        def __init__(self, *args):
            super().__init__(*args)
            stores.append(np.stack([noise for noise, _ in self._noises]).reshape(len(self._noises), -1))

    monkeypatch.setattr(perturbation_sets, "QuickInstrument", Watched)
    monkeypatch.setattr(perturbation_sets, "_REMADE", 1.0)
    copies = copies_of(BY_NAME["mixed"], samples, 3)
    made = [copies(number) for number in range(6)]
    assert len(stores) == 3  # two copies each
    for new in stores[1:]:
        alike = np.abs(np.corrcoef(stores[0], new)[: len(new), len(new) :])
        assert np.median(alike.max(axis=0)) < 0.6  # 1 where a noise is there again
    np.testing.assert_array_equal(copies_of(BY_NAME["mixed"], samples, 3)(5), made[5])  # as after an interruption


def test_a_layer_below_the_tip_counts_as_in_the_simulation(samples):
    config = CONFIG.model_copy(update={"bottom_layer": 0.1})
    attributes = {**samples.attributes, "config": config.model_dump(mode="json")}
    row = {name: values[0] for name, values in samples.coordinates.items()}
    atoms = imaged_atoms(config, row)
    ldos = np.random.default_rng(1).uniform(0.2, 0.6, (3, atoms.copies.max() + 1))
    expected = image(*atoms.positions.T, ldos[:, atoms.copies] * atoms.weights, KGrid(24))
    found = observed(attributes, None)(row, {"ldos": ldos}, np.random.default_rng(0))
    assert found.shape == (3, 24, 24)
    assert np.abs(found - expected).max() < 2e-6


def test_a_data_set_without_what_the_set_needs_is_refused(samples, tmp_path):
    root = zarr.open_group(tmp_path / "bare.zarr", mode="w", zarr_format=3)
    root.attrs.update({"schema": "stm-dataset/1"})
    root.create_array("image", data=samples.images).attrs["role"] = "array"
    words = r"does not hold 'ldos' \(it holds image\): simulate a data set that keeps it, or .* than 'instrument'"
    with pytest.raises(InputError, match=words):
        perturbed(BY_NAME["instrument"], replace(samples, path=tmp_path / "bare.zarr"), 0)


def test_images_from_elsewhere_cannot_be_made_again(samples):
    attributes = {**samples.attributes, "input": {"width": 24}}
    with pytest.raises(InputError, match=r"kx_max, ky_max, envelope, radius missing.*stm simulate"):
        perturbed(BY_NAME["instrument"], replace(samples, attributes=attributes), 0)


def test_copies_differ_and_come_again(samples):
    assert copies_of(BY_NAME["mild"], samples, 0) is None
    copies = copies_of(BY_NAME["instrument"], samples, 1)
    first, second, again = copies(0), copies(1), copies(0)
    assert np.array_equal(first, again)
    assert np.abs(first - second).max() > 1e-3


def test_the_record_says_all(samples):
    record = BY_NAME["noisy"].record()
    assert record["steps"][2] == {"kind": "tip_blur", "probability": 0.25, "sigma": [0.5, 0.9], "ratio": [1.0, 1.15]}
    assert BY_NAME["instrument"].record()["instrument"]["noise"] == Instrument().noise


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", PAPER)
def test_on_a_gpu(name):
    x = torch.rand(64, 1, 32, 32).cuda()
    first, second = (perturb(x, BY_NAME[name].steps, torch.Generator("cuda").manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert (first != x).any()


def test_the_mixture_takes_some_images_through_an_instrument(samples):
    copies = copies_of(BY_NAME["mixed"], samples, 1)
    remade = np.array([(copies(number) != samples.images).any(axis=(1, 2, 3)) for number in range(12)])
    assert 0.1 < remade.mean() < 0.5
    assert len({tuple(row) for row in remade}) > 1


def test_a_set_twice_as_strong_is_twice_as_far_from_doing_nothing():
    noisy = find(registry.get("hubbard").perturbations(), "noisy")
    same, twice = scaled(noisy, 1.0), scaled(noisy, 2.0)
    assert (same.name, twice.name) == ("noisy:1", "noisy:2")
    assert same.steps == noisy.steps
    by_kind = {step.kind: step.ranges for step in twice.steps}
    assert by_kind["gaussian"]["sigma"] == pytest.approx((0.008, 0.024))
    assert by_kind["gain_shift"]["gain"] == pytest.approx((0.9, 1.1))
    assert by_kind["tip_blur"]["ratio"] == pytest.approx((1.0, 1.3))
    assert twice.record()["strength"] == 2.0
    for name, strength, words in (("instrument", 2.0, "has no strength"), ("clean", 2.0, "has no strength"),
                                  ("noisy", 0.0, "above 0"), ("noisy", float("nan"), "above 0")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            scaled(find(registry.get("hubbard").perturbations(), name), strength)
