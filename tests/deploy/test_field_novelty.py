"""How far a field larger than the model's tile lies outside: one p-value of those of its tiles."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from deploy.model import fields
from stm_models.signal.conformal import least_p
from stm_models.tasks.verdict import verdict


def test_one_odd_tile_does_not_put_a_field_outside():
    class Counted:
        metadata = SimpleNamespace(input=SimpleNamespace(shape=(1, 48, 48)), novelty=None)
        output_names = ("prediction", "distance", "novelty")
        asked = 0

        def run(self, tiles, outputs):
            self.asked += len(tiles)
            distance = np.where(np.arange(len(tiles)) == 0, 9.0, 1.0).astype(np.float32)
            return {"prediction": tiles, "distance": distance, "novelty": 0.3 / distance}

    session = Counted()
    image = np.random.default_rng(2).random((1, 80, 80), dtype=np.float32)
    found = fields.ask_field(session, image, ("prediction", "distance", "novelty"))
    assert session.asked > 1
    assert found["distance"].shape == (1,)
    assert 1.0 < found["distance"][0] < 9.0
    assert 0.3 < found["novelty"][0] < 0.6  # twice the mean


class _Alike:
    """A model of 48 x 48 pixels to which all tiles are as novel."""

    output_names = ("prediction", "novelty")

    def __init__(self, groups, chances):
        self.metadata = SimpleNamespace(input=SimpleNamespace(shape=(1, 48, 48)), novelty={"groups": groups})
        self.chances = chances

    def run(self, tiles, outputs):
        return {"prediction": tiles, "novelty": np.resize(np.float32(self.chances), len(tiles))}


def _of_field(groups, chances):
    found = fields.ask_field(_Alike(groups, chances), np.zeros((1, 120, 120), np.float32), ("novelty",))
    return float(found["novelty"][0]), verdict(found, 0, novelty={"groups": groups})["verdict"]


@pytest.mark.parametrize("groups", [12, 39, 60, 100, 300, 1600])
def test_a_field_whose_every_tile_is_as_far_as_can_be_told_gets_the_verdict_of_one_tile(groups):
    least = np.array([least_p(groups)], np.float32)
    chance, words = _of_field(groups, least)
    assert chance == pytest.approx(least_p(groups), rel=1e-6)
    assert words == verdict({"novelty": least}, 0, novelty={"groups": groups})["verdict"]
    assert "at most" in words


def test_a_field_of_tiles_outside_is_outside_where_twice_their_mean_cannot_be():
    for groups, others, start in ((400, 0.0095, "outside"), (400, 0.012, "unusual"), (30, 0.049, "unusual")):
        chance, words = _of_field(groups, [*[least_p(groups)] * 3, others])
        assert words.startswith(start)
        assert chance >= others * (1 - 1e-6)
    # Where it can be, one tile like the training data changes nothing.
    assert _of_field(1600, [*[least_p(1600)] * 3, 0.012])[1].startswith("outside")


def test_the_p_value_of_a_field_is_one_however_its_tiles_hang_together():
    rng = np.random.default_rng(0)
    for groups, alike in itertools.product((12, 30, 400, 1600), (0.0, 0.9, 1.0)):
        least = least_p(groups)
        common = rng.random((20_000, 1))
        each = np.where(rng.random((20_000, 4)) < alike, common, rng.random((20_000, 4)))
        chances = np.array([fields._together(row, groups)[0] for row in np.maximum(each, least)])
        for level in (least, 0.01, 0.02, 2 * least, 0.05, 0.1, 0.2):
            assert (chances <= level).mean() <= level + 4 * np.sqrt(level / len(chances))
