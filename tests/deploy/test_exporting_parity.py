"""The guard between a model and its file."""

import zlib

import numpy as np
import pytest
import torch

from deploy.exporting.errors import ExportError
from deploy.exporting.excuses import TOLERANCE
from deploy.exporting.parity import BATCHES, FOCUSED, check, check_answers, check_focus
from stm_models.networks import bundle as bundles
from support import exported_models as models

MEAN = np.linspace(-1, 1, 30, dtype=np.float32).reshape(1, 5, 6)
SCALE = np.full((1, 5, 6), 0.5, dtype=np.float32)


def smooth(images):
    x = images.astype(np.float64)
    total = x.sum(axis=(1, 2, 3))
    return {
        "prediction": np.stack((np.sin(total), total), axis=1).astype(np.float32),
        "gradient": (np.cos(total)[:, None, None, None] * np.ones_like(x)).astype(np.float32),
        "distance": np.sqrt((x**2).sum(axis=(1, 2, 3))).astype(np.float32),
    }


def changed(name, change):
    def run(images):
        outputs = smooth(images)
        outputs[name] = change(outputs[name])
        return outputs

    return run


def test_equal_functions_pass_and_see_fresh_images_of_every_batch():
    seen = []

    def run(images):
        seen.append(images.copy())
        return smooth(images)

    errors = check(run, smooth, MEAN, SCALE)
    assert errors == {"prediction": 0.0, "gradient": 0.0, "distance": 0.0, "rows": 0.0, "kinks": 0.0, "rounding": 0.0}
    assert {len(images) for images in seen} == set(BATCHES)
    large = next(images for images in seen if len(images) == 17)
    assert large.dtype == np.float32
    assert len(np.unique(large)) > 0.9 * large.size
    assert abs((large - MEAN).std() - 0.5) < 0.1


@pytest.mark.parametrize("name", ["prediction", "gradient", "distance"])
@pytest.mark.parametrize("change", [lambda v: v * (1 + 1e-3), lambda v: v + 1e-3, lambda v: v * np.nan, np.zeros_like])
def test_a_wrong_output_is_named_with_the_table(name, change):
    with pytest.raises(ExportError, match="nothing was written") as caught:
        check(changed(name, change), smooth, MEAN, SCALE)
    lines = str(caught.value).splitlines()
    assert lines[1].split() == ["relative", "error", "batch", "1", "batch", "3", "batch", "17"]
    worst = next(line for line in lines if line.startswith(name)).split()[1:]
    assert len(worst) == 3
    assert max(float(value) for value in worst) > 1e-4


def test_small_differences_are_reported_but_pass():
    errors = check(changed("distance", lambda v: v * np.float32(1 + 1e-5)), smooth, MEAN, SCALE)
    assert 5e-6 < errors["distance"] < 2e-5


def test_samples_that_act_on_each_other_are_caught():
    def run(images):
        outputs = smooth(images)
        outputs["prediction"] = outputs["prediction"] + np.float32(1e-2 * (len(images) == 1))
        return outputs

    def reference(images):
        return run(images) if len(images) == 1 else smooth(images)

    with pytest.raises(ExportError) as caught:
        check(run, reference, MEAN, SCALE)
    assert float(str(caught.value).splitlines()[-1].split()[-1]) > 1e-4
    assert str(caught.value).splitlines()[-1].startswith("rows")


def test_a_gradient_frozen_at_the_first_image_is_caught():
    frozen = smooth(np.asarray(MEAN[None], dtype=np.float32))["gradient"]
    with pytest.raises(ExportError, match="does not change with the image"):
        check(changed("gradient", lambda v: np.broadcast_to(frozen, v.shape)), smooth, MEAN, SCALE)


def test_wrong_shapes_are_caught():
    with pytest.raises(ExportError, match="shapes"):
        check(changed("distance", lambda v: v[:, None]), smooth, MEAN, SCALE)


def test_a_model_that_gives_nan_is_blamed_itself():
    broken = changed("prediction", lambda v: v * np.nan)
    with pytest.raises(ExportError, match="the model itself gives NaN"):
        check(broken, broken, MEAN, SCALE)
    endless = changed("prediction", lambda v: v + np.inf)
    for ours, model, truth in ((broken, broken, broken), (smooth, endless, smooth)):
        with pytest.raises(ExportError, match="the model itself gives NaN"):
            check(ours, model, MEAN, SCALE, truth=truth)
    with pytest.raises(ExportError, match="errors above the limit"):
        check(changed("prediction", lambda v: v - 777), smooth, MEAN, SCALE, truth=endless)


def _rounded(seed, size):
    """What float32 makes of an ill-conditioned map: each program its own error."""
    rng = np.random.default_rng(seed)

    def run(images):
        outputs = smooth(images)
        outputs["gradient"] = outputs["gradient"] * (1 + size * rng.normal(size=outputs["gradient"].shape))
        return outputs

    return run


def test_what_float32_cannot_tell_apart_is_counted_and_passes_but_no_more():
    errors = check(_rounded(1, 3e-4), _rounded(2, 3e-4), MEAN, SCALE, truth=smooth)
    assert errors["rounding"] > 0
    with pytest.raises(ExportError):
        check(_rounded(1, 3e-4), _rounded(2, 3e-4), MEAN, SCALE)  # float64 was not asked
    with pytest.raises(ExportError):
        check(_rounded(1, 9e-3), _rounded(2, 3e-4), MEAN, SCALE, truth=smooth)  # much worse than torch
    with pytest.raises(ExportError):
        check(_rounded(1, 3e-4), smooth, MEAN, SCALE, truth=smooth)  # torch itself has no such error


def test_a_row_where_torch_was_lucky_passes_as_its_neighbours_tell_what_float32_is_worth_there():
    def rounded(seed, size, lucky=0):
        def run(images):
            outputs = smooth(images)
            for row, image in enumerate(images):
                if len(images) != lucky:
                    rng = np.random.default_rng([seed, zlib.crc32(image.tobytes())])
                    outputs["distance"][row] *= 1 + size * rng.normal()
            return outputs

        return run

    errors = check(rounded(1, 3e-4), rounded(2, 3e-4, lucky=max(BATCHES)), MEAN, SCALE, truth=smooth)
    assert errors["rounding"] > 0
    with pytest.raises(ExportError, match="errors above the limit"):
        check(rounded(1, 9e-3), rounded(2, 3e-4, lucky=max(BATCHES)), MEAN, SCALE, truth=smooth)


def _step(shift):
    """Gradient jumps by 10 % where one pixel crosses ``shift`` above its mean."""

    def run(images):
        outputs = smooth(images)
        outputs["gradient"] = np.ones_like(images)
        x = images[:, 0, 2, 3] - MEAN[0, 2, 3]
        outputs["gradient"] *= (1 + 0.1 * (x > shift))[:, None, None, None]
        return outputs

    return run


def test_a_kink_within_rounding_is_no_error_but_a_displaced_one_is():
    seen = []
    check(lambda images: seen.append(images) or smooth(images), smooth, MEAN, SCALE)
    pixel = float(next(s for s in seen if len(s) == 17)[5, 0, 2, 3] - MEAN[0, 2, 3])
    errors = check(_step(pixel + 1e-7), _step(pixel - 1e-7), MEAN, SCALE)
    assert errors["kinks"] == 1
    assert errors["gradient"] < 1e-6
    with pytest.raises(ExportError):
        check(_step(pixel + 1e-3), _step(pixel - 1e-3), MEAN, SCALE)


def mapped(images, focus=None, wrong=lambda place: place):
    """Scores sin(x) of each pixel, and their slope at one of them."""
    x = images[:, 0].reshape(len(images), -1).astype(np.float64)
    place = np.sin(x).argmax(axis=1)
    if focus is not None:
        given = np.broadcast_to(wrong(np.asarray(focus)), place.shape)
        place = np.where(given < 0, place, given)
    gradient = np.zeros(x.shape)
    rows = np.arange(len(x))
    gradient[rows, place] = np.cos(x[rows, place])
    return {
        "prediction": np.sin(x).reshape(-1, 1, *images.shape[2:]).astype(np.float32),
        "gradient": gradient.reshape(images.shape).astype(np.float32),
        "distance": np.abs(x).mean(axis=1).astype(np.float32),
    }


def test_chosen_pixels_are_compared_in_batches_alone_and_one_for_all():
    seen = []

    def run(images, focus):
        seen.append((len(images), len(focus)))
        return mapped(images, focus)

    assert check_focus(run, mapped, MEAN, SCALE) == {"focus": 0.0}
    assert {(size, size) for size in FOCUSED} | {(FOCUSED[-1], 1)} == set(seen)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda focus: (focus + 1) % 30, "errors above the limit"),  # the pixel beside
        (lambda focus: focus * 0 - 1, "does not change"),  # always the strongest
        (lambda focus: np.where(focus == -1, 0, focus), "focus -1 asks for"),
        (lambda focus: np.where(len(focus) == 1, -1, focus), "errors above|one for all"),
    ],
)
def test_a_graph_that_explains_another_pixel_is_caught(wrong, message):
    with pytest.raises(ExportError, match=message):
        check_focus(lambda images, focus: mapped(images, focus, wrong), mapped, MEAN, SCALE)


def _answers(bundle, spoil=None):
    def run(images):
        with torch.no_grad():
            found = {name: value.numpy() for name, value in bundle.answers(torch.from_numpy(images)).items()}
        return found if spoil is None else spoil(found)

    return run


@pytest.mark.parametrize("kept", [1, 3, 16])
def test_answers_are_compared_on_held_out_images_and_on_blends_of_them_with_noise(kept):
    known = np.random.default_rng(3).normal(5, 1, (kept, 1, 5, 6)).astype(np.float32)
    seen = []

    def run(images):
        seen.append(images)
        return smooth(images)

    errors = check_answers(run, smooth, known, MEAN, SCALE)
    assert {len(images) for images in seen} == set(BATCHES)
    large = next(images for images in seen if len(images) == 17)
    apart = np.abs(large[:, None] - known[None]).max(axis=(2, 3, 4)).min(axis=1)
    assert (apart[::2] < 1e-4).all()
    assert (np.diff(apart[1::2]) > 0).all()
    assert apart[-2] > 1
    assert len(np.unique(large, axis=0)) == 17  # no draw twice
    assert max(errors.values()) == 0


def test_a_wrong_table_of_p_values_or_of_intervals_and_a_shifted_distance_are_caught(tmp_path):
    made = bundles.load(models.make("mlp", tmp_path / "mlp").bundle)
    stretched = made.heldout.numpy() * np.linspace(1, 1.5, 16, dtype=np.float32)[:, None, None, None]
    others = stretched, made.model.pixel_mean.numpy(), made.model.pixel_scale.numpy()
    right = _answers(made)
    assert max(check_answers(right, right, *others).values()) < TOLERANCE

    late = bundles.load(tmp_path / "mlp")
    late.novelty.starts.mul_(5)
    late.novelty.widths.mul_(5)
    wrong = [_answers(late), _answers(made, lambda found: found | {"distance": found["distance"] + 1})]
    for factor in np.unique(made.interval.factor):
        same = bundles.load(tmp_path / "mlp")
        same.interval.factor.fill_(float(factor))
        wrong.append(_answers(same))
    assert len(wrong) > 3
    for one in wrong:
        with pytest.raises(ExportError, match="errors above the limit"):
            check_answers(one, right, *others)


def test_bounds_may_jump_where_the_model_s_own_do():
    """An image that calibrated may lie on an edge of a table, and float32 on either side of it."""

    def run(shift):
        return lambda images: smooth(images) | {"upper": 1.0 + (images[:, 0, 2, 3] - MEAN[0, 2, 3] > shift)[:, None]}

    errors = check_answers(run(4e-7), run(-4e-7), MEAN[None], MEAN, SCALE)
    assert errors["upper"] < TOLERANCE
    assert errors["kinks"] > 0
    with pytest.raises(ExportError, match="errors above the limit"):
        check_answers(run(0.1), run(-0.1), MEAN[None], MEAN, SCALE)
