"""What a p-value is said to mean, also where few states calibrated it."""

import numpy as np
import pytest

from stm_models.signal.conformal import least_p, tail_table
from stm_models.tasks.verdict import STRANGE, UNUSUAL, blind, verdict


@pytest.mark.parametrize("groups", [1, 12, 19, 20, 60, 99, 100, 298, 299, 1600])
def test_the_least_p_value_is_that_of_an_image_infinitely_far(groups):
    table = tail_table(np.arange(1.0, groups + 1), np.arange(groups))
    assert table([1e30])[0] == pytest.approx(least_p(groups), rel=1e-9)
    assert (least_p(groups) >= UNUSUAL) == (groups <= 19) == ("is unusual" in blind(groups))
    assert (least_p(groups) >= STRANGE) == (groups <= 99) == bool(blind(groups))


def _of(groups, chance):
    return verdict({"novelty": np.array([chance], np.float32)}, 0, novelty={"groups": groups})


@pytest.mark.parametrize(
    ("groups", "start", "end"),
    [
        (12, "at most 7.7 % of", " cannot tell whether an image is unusual; take the value with care"),
        (60, "unusual: at most 1.6 % of", " is outside the training data; take the value with care"),
        (400, "outside the training data: at most 0.75 % of", "; do not trust the value"),
    ],
)
def test_an_image_infinitely_far_is_never_called_like_the_training_data(groups, start, end):
    words = _of(groups, least_p(groups))["verdict"]
    assert words.startswith(start)
    assert words.endswith(end)


def test_what_few_states_can_tell_is_said_as_before():
    assert _of(12, 0.4)["verdict"] == "like the training data (40 % of held-out simulated images lie as far)"
    assert _of(60, 0.03)["verdict"].startswith("unusual: 3 % of")
    assert _of(400, 0.0085)["verdict"].startswith("outside the training data: 0.85 % of")
    # A file that does not say how many states there were.
    assert "at most" not in verdict({"novelty": np.array([1 / 13])}, 0)["verdict"]
