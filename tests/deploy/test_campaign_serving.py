"""The campaigns of ``make campaign`` against the server, in a minute."""

import pytest

import campaign_serving as campaign
from support import serving_soak as soak
from support import serving_versions as versions


def test_a_busy_server_changes_its_model_without_a_wrong_answer(tmp_path):
    found = campaign.soak(tmp_path, minutes=0.5, moves=4, bad=5, connections=8)
    campaign.check_soak(found, growth=0.1)  # in half a minute not all is warm


def test_an_answer_without_what_was_asked_for_is_wrong():
    bank = soak.Bank(count=2)
    bank.add(1, versions.toy(1))
    right = bank.expected["1"][0]
    assert bank.right("1", 0, right, right)
    assert not bank.right("1", 0, {}, right)
    assert not bank.right("1", 0, {"gradient": right["gradient"]}, ["gradient", "prediction"])
    assert not bank.right("1", 1, right, right)
    assert not bank.right("2", 0, right, right)


def test_a_thousand_malformed_requests_are_answered_and_change_nothing(tmp_path):
    found = campaign.fuzz(tmp_path, 1000)
    assert found["requests"] >= 1000
    assert found["400"] > 300
    assert "500" not in found


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"wrong": 1}, True),
        ({"failed": 1}, True),
        ({"memory_growth": 0.06}, True),
        ({"descriptors_after": 8}, True),
        ({}, False),
    ],
)
def test_the_soak_is_held_against_its_promise(change, matters):
    found = {
        "answers": 10_000, "seconds": 30, "failed": 0, "wrong": 0, "versions_unseen": [], "memory_growth": 0.01,
        "descriptors_before": 7, "descriptors_after": 7, **change,
    }  # fmt: skip
    if matters:
        with pytest.raises(AssertionError):
            campaign.check_soak(found)
    else:
        campaign.check_soak(found)
