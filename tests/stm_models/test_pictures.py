"""Turbo pictures forth and back, and files that are none."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from stm_models.data.pictures import from_turbo, grey, read_png, to_turbo
from stm_models.errors import InputError


def save(path, values):
    Image.fromarray(values).save(path)
    return path


def test_every_level_of_turbo_is_found_again(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = colormaps["turbo"](levels, bytes=True)[..., :3]
    assert np.array_equal(from_turbo(read_png(save(tmp_path / "a.png", colours)), "a.png"), levels / np.float32(255))


def test_a_picture_is_what_matplotlib_would_save(tmp_path):
    values = np.random.default_rng(0).normal(3, 2, (20, 20))
    theirs = io.BytesIO()
    from matplotlib.image import imsave

    imsave(theirs, values, cmap="turbo", format="png")
    ours = Image.open(io.BytesIO(to_turbo(values)))
    assert np.array_equal(np.asarray(ours), np.asarray(Image.open(theirs).convert("RGB")))


def test_forth_and_back_loses_less_than_one_level(tmp_path):
    values = np.random.default_rng(1).exponential(1, (40, 30))
    (tmp_path / "a.png").write_bytes(to_turbo(values))
    scaled = (values - values.min()) / np.ptp(values)
    assert np.abs(from_turbo(read_png(tmp_path / "a.png"), "a.png") - scaled).max() < 1 / 255


def test_grey_is_pillows_and_not_monotonic_in_turbo():
    colours = colormaps["turbo"](np.arange(256)[None], bytes=True)[..., :3]
    found = grey(colours)
    weights = np.array([0.299, 0.587, 0.114])
    assert np.abs(found * 255 - colours @ weights).max() <= 1
    assert np.argmax(found) not in (0, 255)
    assert found[0, 0] < 0.2 > found[0, -1]


def test_small_deviations_of_resampling_are_taken_and_foreign_colours_not():
    smooth = np.linspace(0, 1, 64)[:, None] * np.ones(64)
    colours = colormaps["turbo"](smooth, bytes=True)[..., :3]
    bent = np.asarray(Image.fromarray(colours).resize((40, 40), Image.Resampling.BILINEAR))
    expected = np.asarray(Image.fromarray(smooth.astype(np.float32)).resize((40, 40), Image.Resampling.BILINEAR))
    assert np.abs(from_turbo(bent, "bent") - expected).max() < 0.02
    with pytest.raises(InputError, match=r"other\.png: 100% of the pixels have no colour of the turbo map"):
        from_turbo(colormaps["gray"](smooth, bytes=True)[..., :3] // 2 + 120, "other.png")


@pytest.mark.parametrize("wrong", ["text", "cut", "empty", "jpeg", "huge", "alpha", "deep"])
def test_what_is_no_usable_picture(tmp_path, wrong):
    path = tmp_path / "a.png"
    colours = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    if wrong == "text":
        path.write_text("not a picture")
    elif wrong == "cut":
        save(path, colours)
        path.write_bytes(path.read_bytes()[:-600])
    elif wrong == "empty":
        path.write_bytes(b"")
    elif wrong == "jpeg":
        Image.fromarray(colours).save(path, "JPEG")
    elif wrong == "huge":
        save(path, np.zeros((2, 4097, 3), np.uint8))
    elif wrong == "alpha":
        save(path, np.dstack([colours, np.full((32, 32), 100, np.uint8)]))
    else:
        Image.fromarray(colours[..., 0].astype(np.uint16)).save(path)
    with pytest.raises(InputError, match=r"a\.png"):
        read_png(path)


def test_a_flat_image_is_refused():
    with pytest.raises(InputError, match="all pixels equal 2"):
        to_turbo(np.full((8, 8), 2.0))
