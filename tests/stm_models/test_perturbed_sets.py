"""Sets whose images are made again from maps, and the copies of a data set that a training sees."""

from dataclasses import replace

import numpy as np
import pytest
import zarr

from stm_models.data.dataset import Samples
from stm_models.errors import InputError
from stm_models.physics.instrument import Instrument
from stm_models.physics.moire.fourier import KGrid, image
from stm_models.signal.real_map import to_ft_image
from stm_models.tasks.hubbard import perturbations as perturbation_sets
from stm_models.tasks.hubbard.config import HubbardSimulation
from stm_models.tasks.hubbard.imaging import ATOM_WIDTH, NM
from stm_models.tasks.hubbard.perturbations import SETS, Imaging, observed
from stm_models.tasks.hubbard.quick_instrument import QuickInstrument, Transform
from stm_models.tasks.hubbard.structure import disc_radius, imaged_atoms
from stm_models.tasks.inputs import RawMap
from stm_models.tasks.perturbation import CLEAN, Perturbation, Step
from stm_models.training.perturbations import copies_of, digest, perturbed

BY_NAME = {one.name: one for one in SETS}
QUICK = next(one for _, one in BY_NAME["mixed"].among if one.remake is not None)
MIXTURE = Perturbation("mixture", "", needs=("ldos",), among=(
    (0.5, CLEAN),
    (0.3, Perturbation("shifted", "", (Step("gain_shift", 1.0, {"gain": (1.0, 1.0), "shift": (7.0, 7.0)}),))),
    (0.2, Perturbation("made anew", "", remake=lambda _: lambda *_: np.float32(3), needs=("ldos",))),
))  # fmt: skip
CONFIG = HubbardSimulation(index=1, patch_radius=4.0, image_size=24, energies=(0.0,))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return _made_up(tmp_path_factory.mktemp("made up"), CONFIG)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """On a disc beside which an atom is small, as in the presets."""
    return _made_up(tmp_path_factory.mktemp("wide"), CONFIG.model_copy(update={"patch_radius": 8.0, "image_size": 160}))


def _made_up(folder, config):
    """Ten samples of an LDOS that was made up, imaged as the simulator does it."""
    rng = np.random.default_rng(0)
    grid, radius = KGrid(config.image_size), disc_radius(config)
    coordinates = {
        "sample": np.arange(10), "group": np.arange(10), "index": np.ones(10), "layer_distance": np.full(10, 2.75),
        "strain": np.zeros(10), "strain_angle": np.zeros(10),
    }  # fmt: skip
    atoms = imaged_atoms(config, {name: values[0] for name, values in coordinates.items()})
    ldos = rng.uniform(0.2, 0.6, (10, 1, atoms.copies.max() + 1)).astype(np.float32)
    images = image(*atoms.positions.T, ldos[:, 0][:, atoms.copies] * atoms.weights, grid)[:, None]
    path = folder / "data.zarr"
    root = zarr.open_group(path, mode="w", zarr_format=3)
    root.attrs.update({"schema": "stm-dataset/1"})
    root.create_array("ldos", data=ldos).attrs["role"] = "array"
    attributes = {
        "config": config.model_dump(mode="json"),
        "input": {"width": grid.n, "kx_max": grid.kx_max, "ky_max": grid.ky_max, "envelope": config.envelope,
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
    assert 1 < 1 / imaging.atoms.divisor.min() < 20


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
    copies = copies_of(QUICK, samples, 3)
    made = [copies(number) for number in range(12)]
    assert len(stores) == 3  # four copies each
    for new in stores[1:]:
        alike = np.abs(np.corrcoef(stores[0], new)[: len(new), len(new) :])
        assert np.median(alike.max(axis=0)) < 0.6  # 1 where a noise is there again
    np.testing.assert_array_equal(copies_of(QUICK, samples, 3)(5), made[5])  # as after an interruption


def test_transforms_that_there_is_no_room_for_do_not_cost_those_that_are_kept(samples, monkeypatch):
    # As many are asked for again and again, all in the same order, as there is room for and more.
    made, transform = [], Transform.spectrum
    wanted = copies_of(QUICK, samples, 3)

    def spectrum(self, map_):
        made.append(map_.tobytes())
        return transform(self, map_)

    monkeypatch.setattr(Transform, "spectrum", spectrum)
    monkeypatch.setattr(perturbation_sets, "_KEPT", 7 * 12 * 24 * 8 + 8)
    copies = copies_of(QUICK, samples, 3)
    first = copies(0)
    assert len(made) == len(set(made)) == len(samples)
    second = copies(1)
    assert len(made) == len(samples) + 3
    monkeypatch.undo()
    np.testing.assert_array_equal(np.stack([first, second]), np.stack([wanted(0), wanted(1)]))


def test_layers_at_any_distance_share_a_store_of_noise(samples, monkeypatch):
    """Atoms lie in the same places of the plane, of which alone the noise is; a store takes seconds."""
    stores = []

    class Watched(QuickInstrument):
        def __init__(self, *args):
            super().__init__(*args)
            stores.append(self)

    monkeypatch.setattr(perturbation_sets, "QuickInstrument", Watched)
    pressed = replace(samples, coordinates={**samples.coordinates, "layer_distance": np.linspace(2.6, 2.8, 10)})
    made = copies_of(QUICK, pressed, 3)(0)
    assert len(stores) == 1
    np.testing.assert_array_equal(made, copies_of(QUICK, samples, 3)(0))


def test_a_larger_structure_has_noise_at_all_of_its_atoms(samples, monkeypatch):
    """The example is the data set's first sample, padded with zeros where its structure is a smaller one."""
    seen = []

    class Watched(QuickInstrument):
        def __init__(self, transform, example, *args):
            super().__init__(transform, example, *args)
            seen.append(example)

    monkeypatch.setattr(perturbation_sets, "QuickInstrument", Watched)
    row = {name: values[0] for name, values in samples.coordinates.items()} | {"copy": 0}
    ldos = zarr.open_group(samples.path)["ldos"][0].astype(np.float64)
    padded = np.where(np.arange(ldos.shape[-1]) < 5, ldos, 0.0)
    for example in (ldos, padded):
        make = perturbation_sets.quick_instrument({**samples.attributes, "example": {"ldos": example}})
        make(row, {"ldos": ldos, "image": samples.images[0]}, np.random.default_rng(0))
    assert seen[1].mean() == pytest.approx(seen[0].mean(), rel=0.3)
    assert np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1] > 0.7


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


def test_an_envelope_no_wider_than_an_atom_is_refused(samples):
    attributes = {**samples.attributes, "input": {**samples.attributes["input"], "envelope": 0.01}}
    with pytest.raises(InputError, match=r"envelope is .* a wide.*simulate.envelope"):
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


def test_each_image_of_a_mixture_is_as_one_of_its_sets_has_it(samples):
    shares = {name: share for (share, _), name in zip(MIXTURE.among, ("as it is", "shifted", "made anew"), strict=True)}
    told = {"as it is": samples.images, "shifted": samples.images + 7, "made anew": np.full_like(samples.images, 3)}
    copies = copies_of(MIXTURE, samples, 1)
    made = [perturbed(MIXTURE, samples, seed) for seed in range(60)] + [copies(number) for number in range(60)]
    for half in (made[:60], made[60:]):
        found = {name: (np.stack(half) == np.float32(image)).all(axis=(2, 3, 4)) for name, image in told.items()}
        assert (sum(one.astype(int) for one in found.values()) == 1).all()
        for name, one in found.items():
            assert one.mean() == pytest.approx(shares[name], abs=4 * np.sqrt(0.25 / one.size))
            assert one.any(axis=0).all()  # whichever sample
    np.testing.assert_array_equal(copies_of(MIXTURE, samples, 1)(5), made[65])  # as after an interruption


def test_a_sample_of_a_mixture_does_not_depend_on_its_companions(samples):
    for name in ("mixed", "mixed_width"):
        few = np.array([7, 2, 5])
        alone = perturbed(BY_NAME[name], samples.subset(few), 4)
        np.testing.assert_array_equal(alone, perturbed(BY_NAME[name], samples, 4)[few])


def test_the_mixture_takes_some_images_through_an_instrument(samples):
    remade = []
    mixture = replace(BY_NAME["mixed"], among=tuple(
        (share, replace(one, steps=(), remake=one.remake and (lambda _: lambda *given: remade.append(given) or 5.0)))
        for share, one in BY_NAME["mixed"].among
    ))  # fmt: skip
    copies = copies_of(mixture, samples, 1)
    made = np.concatenate([copies(number) for number in range(30)])
    assert len(remade) == (made == 5).all(axis=(1, 2, 3)).sum()
    assert len(remade) / len(made) == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("taken", [0.0, 0.5, 1.0, 1.5])
def test_atoms_taken_for_wider_ones_are_what_a_map_told_so_gives(wide, monkeypatch, taken):
    monkeypatch.setattr(perturbation_sets, "_TAKEN", (taken, taken))
    monkeypatch.setattr(perturbation_sets, "_MISTAKEN", 1.0)
    widened = next(one for _, one in BY_NAME["mixed_width"].among if one.name == "clean")
    found = copies_of(widened, wide, 0)(0)
    imaging = Imaging.of(wide.attributes["input"])
    size = 2 * imaging.radius * NM
    for row, ldos in enumerate(zarr.open_group(wide.path)["ldos"][:3]):
        atoms = imaged_atoms(wide.attributes, {name: values[row] for name, values in wide.coordinates.items()})
        told, *_ = to_ft_image(
            RawMap(imaging.maps(atoms, ldos), (size, size), None, "map"), imaging.grid,
            envelope=imaging.envelope / imaging.radius, radius=imaging.radius, atom_width=taken * ATOM_WIDTH,
        )  # fmt: skip
        # As exact as an atom is small beside the envelope.
        assert np.abs(found[row] - told).max() < 0.04 * told.max()
        changed = np.abs(found[row] - wide.images[row]).max() > 0.02 * wide.images[row].max()
        assert changed == (taken != 1)


def test_most_images_have_atoms_of_another_width_and_the_others_are_those_of_the_mixture(samples):
    made, plain = (copies_of(BY_NAME[name], samples, 1) for name in ("mixed_width", "mixed"))
    same = np.array([(made(number) == plain(number)).all(axis=(1, 2, 3)) for number in range(12)])
    assert 0.15 < same.mean() < 0.5
