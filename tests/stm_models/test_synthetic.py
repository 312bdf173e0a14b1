"""Fields made while training: against the compiled kernel, the stored fields' distributions and slow sums."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from stm_models.errors import InputError
from stm_models.physics.surface import cores, friedel, materials
from stm_models.physics.surface import noise as numpy_noise
from stm_models.physics.surface.field_recipe import FieldRecipe
from stm_models.physics.surface.friedel_recipe import Recipe
from stm_models.physics.surface.training_fields import training_field
from stm_models.signal.preprocessing import Preparation, prepare_stack
from stm_models.tasks.impurity.labels import heat_map, pixel_map
from stm_models.training import synthetic, synthetic_waves
from stm_models.training.preparing import prepare
from stm_models.training.synthetic import FieldGenerator, SyntheticBatches

GOLD = materials.create("Au(111)")
BIASES = GOLD.biases(4)
PIXEL = 4.6875
SMALL = FieldRecipe(size=24, impurities=(3, 6), decoys=(0, 3))
PARAMETERS = {"recipe": asdict(SMALL), "biases": BIASES.tolist(), "material": "Au(111)", "pixel_size": PIXEL}


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(noise=(0.0, 0.0)),
        Recipe(size=33, phase="smooth", exponent=(1.0, 2.0), on_pixel=False, noise=(0.0, 0.0)),
        Recipe(size=24, on_pixel=False, minimum_distance=2.0, cutoff=0.7, noise=(0.0, 0.0)),
    ],
)
def test_waves_equal_the_compiled_kernel_for_the_same_draws(recipe):
    """Up to what the kernel does to a finished field: its mean is taken off, and its largest magnitude is 1."""
    k = GOLD.wave_number(BIASES, PIXEL) * np.linspace(0.97, 1.03, 5)[:, None]
    draws = friedel.draw(recipe, BIASES, 5, np.random.default_rng(3))
    wanted = friedel.render(recipe, draws, k)
    real = np.arange(draws.positions.shape[1]) < draws.total[:, None]
    positions, amplitude, *others = (
        torch.from_numpy(np.nan_to_num(values)).float()
        for values in (draws.positions, draws.amplitude * real[:, None], draws.phase, k, draws.exponent)
    )
    found = synthetic_waves.waves(positions, amplitude, *others, recipe.size, recipe.cutoff)
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    found = found - found.mean(dim=(2, 3), keepdim=True)
    found = found / found.abs().amax(dim=(2, 3), keepdim=True)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
    assert wanted.std() > 0.05


def test_cores_and_spots_equal_the_compiled_ones():
    rng = np.random.default_rng(4)
    positions, radius, width = rng.uniform(-3, 26, (2, 5, 2)), rng.uniform(0, 2, (2, 5)), rng.uniform(0.6, 1.5, (2, 5))
    height = rng.normal(size=(2, 3, 5))
    wanted = np.ones((2, 3, 24, 24))
    for s, v, n in np.ndindex(2, 3, 5):
        cores.occlude(wanted[s, v], *positions[s, n], radius[s, n])
    covered = wanted[:, 0] == 0
    wanted[:] = 0
    for s, v, n in np.ndindex(2, 3, 5):
        cores.add_spot(wanted[s, v], *positions[s, n], height[s, v, n], width[s, n])
    positions, radius, width, height = (torch.from_numpy(one).float() for one in (positions, radius, width, height))
    np.testing.assert_array_equal(synthetic_waves.occluded(positions, radius, 24).numpy(), covered)
    np.testing.assert_allclose(synthetic_waves.spots(positions, height, width, 24).numpy(), wanted, atol=1e-5)
    assert covered.any()


def test_targets_are_those_of_stored_fields():
    positions = np.random.default_rng(0).uniform(-0.5, 19.5, (3, 11, 2))
    inside = np.arange(11) < np.array([11, 4, 0])[:, None]
    found = synthetic_waves.targets(torch.from_numpy(positions).float(), torch.from_numpy(inside), 20).numpy()
    for one, where, there in zip(found, positions, inside, strict=True):
        np.testing.assert_allclose(one[0], heat_map(where[there], (20, 20)), atol=1e-5)
        np.testing.assert_array_equal(one[1], pixel_map(where[there], (20, 20)))


@pytest.mark.parametrize("border", ["nearest", "reflect", "wrap"])
def test_smoothing_matrices_are_gaussian_filters(border):
    rows = np.random.default_rng(1).normal(size=(6, 13))
    widths = (0.4, 1.3, 8.0)
    for width, matrix in zip(widths, synthetic_waves.smoothing(13, torch.tensor(widths), border), strict=True):
        np.testing.assert_allclose(rows @ matrix.numpy().T, gaussian_filter1d(rows, width, mode=border), atol=2e-6)


@pytest.mark.parametrize(
    "how", [Preparation(), Preparation(plane=False, lines=False), Preparation(level=False, inside=1.0)]
)
def test_preparation_on_the_device_is_that_of_files(how):
    maps = np.stack([
        training_field("friedel", SMALL, np.random.default_rng([1, i]), GOLD, BIASES, PIXEL).maps for i in range(3)
    ])  # fmt: skip
    maps[1] = maps[1] * np.array([-3.0, 40.0, 1e-9, 1.0], np.float32)[:, None, None]
    maps[2] -= 1  # about zero: no level
    found = prepare(torch.from_numpy(maps.astype(np.float64)), how)
    np.testing.assert_allclose(found.numpy(), [prepare_stack(one, how) for one in maps], atol=1e-6)
    np.testing.assert_allclose(prepare(torch.from_numpy(maps), how).numpy(), found.numpy(), atol=2e-4)


def test_a_constant_map_stays_finite():
    assert torch.isfinite(prepare(torch.ones(1, 2, 12, 12))).all()
    assert torch.isfinite(prepare(torch.zeros(1, 2, 12, 12))).all()


def test_places_keep_their_distance_and_their_numbers():
    recipe = replace(SMALL, size=40, impurities=(2, 9), decoys=(1, 4), minimum_distance=4.0)
    fields = FieldGenerator(recipe, [0.0], [0.8])
    places = fields.places(200, _generator())
    inside, real = places.inside.sum(1), places.real.sum(1)
    assert sorted(set(inside.tolist())) == list(range(2, 10))
    assert sorted(set(places.shown.sum(1).tolist())) == [1, 2, 3, 4]
    ratio = (1 + 20 / 40) ** 2 - 1
    short = (inside * ratio).round() - (real - inside)
    assert (short >= 0).all()
    assert (short > 0).float().mean() < 0.05
    for row in range(200):
        everything = torch.cat([places.positions[row][places.real[row]], places.decoys[row][places.shown[row]]])
        apart = torch.pdist(everything)
        assert apart.min() >= 4.0
        frame = everything[: int(inside[row])]
        assert (frame >= -0.5).all()
        assert (frame < 39.5).all()
        outer = everything[int(inside[row]) : int(real[row])]
        assert ((outer < -0.5) | (outer >= 39.5)).any(dim=1).all()
        assert (outer.abs() <= 50.5).all()
    pooled = places.positions[places.inside]
    assert (pooled.mean(dim=0) - 19.5).abs().max() < 1.5
    assert (pooled.std(dim=0) - 40 / 12**0.5).abs().max() < 1.0


def test_maps_are_distributed_as_stored_ones():
    fields = FieldGenerator.of(PARAMETERS)
    made = fields.maps(150, _generator())[0].double().numpy()
    stored = np.stack([
        training_field("friedel", SMALL, np.random.default_rng([2, i]), GOLD, BIASES, PIXEL).maps for i in range(150)
    ])  # fmt: skip

    def statistics(maps):
        along, across = np.diff(maps, axis=3).std(axis=(1, 2, 3)), np.diff(maps, axis=2).std(axis=(1, 2, 3))
        between = maps.std(axis=(2, 3))
        values = (maps.mean(axis=(1, 2, 3)), maps.std(axis=(1, 2, 3)), along, across, between[:, 0] / between[:, -1])
        return np.stack(values, axis=1)

    found, wanted = statistics(made), statistics(stored)
    spread = np.sqrt((found.var(axis=0) + wanted.var(axis=0)) / 150)
    assert (np.abs(found.mean(axis=0) - wanted.mean(axis=0)) < 4.5 * spread).all()
    np.testing.assert_allclose(found.std(axis=0), wanted.std(axis=0), rtol=0.35)


def test_without_noise_only_rings_and_spots_are_left():
    quiet = replace(
        SMALL, white=(0, 0), one_over_f=(0, 0), line=(0, 0), spikes=(0, 0), plane=(0, 0), set_point=(0, 0),
        stripes=(0, 0), gain=(0, 0), tip=(0.1, 0.1), core=(0, 0), decoys=(0, 0), wave_number=(1, 1),
        exponent=(2, 2), occluded=(1.2, 1.2),
    )  # fmt: skip
    k = GOLD.wave_number(BIASES, PIXEL).tolist()
    maps, places = FieldGenerator(quiet, BIASES.tolist(), k).maps(1, _generator(5))
    y, x = np.mgrid[:24, :24]
    there = places.positions[0][places.real[0]].double().numpy()
    r = np.hypot(y - there[:, :1, None], x - there[:, 1:, None])
    for v, rate in enumerate(k):  # what is left must be a sum of cosines and sines with the right envelope
        basis = [part / (r + 1) ** 2 for part in (np.cos(2 * rate * r), np.sin(2 * rate * r))]
        away = (r >= 1.2).all(axis=0)
        matrix = np.concatenate(basis).reshape(2 * len(there), -1)[:, away.ravel()].T
        field = maps[0, v].double().numpy()[away] - 1
        fitted = matrix @ np.linalg.lstsq(matrix, field, rcond=None)[0]
        assert np.abs(field - fitted).max() < 1e-4 * np.abs(field).max()
        np.testing.assert_allclose(maps[0, v].numpy()[(r < 1.2).any(axis=0)], 1, atol=1e-6)


def test_noise_along_the_lines_has_the_spectrum_and_none_across_them():
    normal = torch.randn(40, 4, 32, 32, generator=_generator(2))
    found = synthetic._one_over_f(normal, torch.full((40,), 1.0))
    assert float(found.var()) == pytest.approx(1, abs=0.02)
    power = torch.fft.rfft(found).abs().square().mean(dim=(0, 1, 2))
    reference = np.abs(np.fft.rfft(numpy_noise.one_over_f(np.random.default_rng(0), (40, 4, 32, 32)))) ** 2
    np.testing.assert_allclose(power[1:], reference.mean(axis=(0, 1, 2))[1:], rtol=0.12)
    across = (found[:, :, 1:] * found[:, :, :-1]).mean()
    assert abs(float(across)) < 0.02


def test_batches_come_from_the_generator_alone():
    batches = SyntheticBatches(PARAMETERS, count=3, batch_size=2, device=torch.device("cpu"))
    assert batches.count == 3
    first, again, other = (list(batches.epoch(n, _generator(seed))) for n, seed in ((1, 4), (1, 4), (2, 5)))
    assert len(first) == 3
    for (x, y), (x2, y2), (x3, _) in zip(first, again, other, strict=True):
        assert x.shape == (2, 4, 24, 24)
        assert y.shape == (2, 2, 24, 24)
        assert x.abs().max() == 1
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
        assert not torch.equal(x, x3)
    assert not torch.equal(first[0][0], first[1][0])


def test_mistakes_are_named():
    with pytest.raises(InputError, match="do not fit"):
        FieldGenerator(replace(SMALL, impurities=(10, 30)), [0.0], [0.8])
    with pytest.raises(InputError, match="too coarse for the oscillation"):
        FieldGenerator.of({**PARAMETERS, "pixel_size": 10.0})
    with pytest.raises(InputError, match="unknown material"):
        FieldGenerator.of({**PARAMETERS, "material": "Au(110)"})
