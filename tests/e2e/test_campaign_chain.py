"""The campaign of ``make campaign`` against the whole chain: its quickest cases, with the demo's model."""

import json
import shutil
import sys

import pytest

import campaign_chain as campaign
from support import chain
from support import chain_faults as faults
from support import chain_limits as limits

ENDS = ("simulate", "predict")


@pytest.fixture(scope="module")
def calm(demo, tmp_path_factory):
    """Both ends of a chain where nothing happens; between them stands the demo's model."""
    found = chain.Chain(tmp_path_factory.mktemp("calm"))
    shutil.copy(demo.onnx, found.here / "model.onnx")
    found.whole(ENDS)
    return found


@pytest.fixture
def ends(calm, tmp_path):
    """A chain of two stages in a folder of its own, compared as far as it goes."""

    def make(**more):
        made = chain.Chain(tmp_path, **more)
        shutil.copy(calm.here / "model.onnx", made.here / "model.onnx")
        return made

    return make


def test_a_kill_and_an_interrupt_change_nothing(calm, tmp_path):
    for how in ("kill", "interrupt"):
        place = tmp_path / how
        place.mkdir()
        assert faults.FAULTS[f"{how}_simulate"](place, calm).endswith("as if nothing had been")


def test_a_full_disk_is_told_and_made_good(calm, tmp_path):
    try:
        said = faults.FAULTS["disk_full_predict"](tmp_path, calm)
    except limits.Skipped as reason:
        pytest.skip(f"no file system of a chosen size: {reason}")
    assert "as if nothing had been" in said


def test_no_home_no_utf8_and_an_odd_folder(calm, ends):
    odd = ends(
        name="-a 'b' \"c\" #d %41 {e} ?",
        variables={"HOME": None, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TMPDIR": "/none"},
        umask=0o077,
    )
    assert odd.whole(ENDS) == calm.truth(ENDS)
    assert not [path for path in odd.here.rglob("*") if path.stat().st_mode & 0o077 and path.name != "model.onnx"]


def test_no_network_is_asked_for(calm, ends, tmp_path):
    made = ends()
    try:
        made.before = limits.offline(tmp_path / "calls")
    except limits.Skipped as reason:
        pytest.skip(f"no network of its own: {reason}")
    assert made.whole(ENDS) == calm.truth(ENDS)
    assert limits.elsewhere(tmp_path / "calls") == []


def test_a_case_that_fails_is_reported(calm, tmp_path, monkeypatch, capsys):
    def fails(place, calm):
        raise AssertionError("lost")

    def skips(place, calm):
        raise limits.Skipped("no such machine")

    monkeypatch.setattr(campaign, "FAULTS", {"fails": fails, "skips": skips})
    monkeypatch.setattr(campaign, "undisturbed", lambda place: calm)
    monkeypatch.setattr(sys, "argv", ["campaign_chain.py"])
    assert campaign.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[1]["failed"] == "AssertionError: lost"
    assert rows[2]["skipped"] == "no such machine"
    assert rows[-1] == {"cases": 2, "failed": ["fails"], "skipped": ["skips"]}


def test_what_is_left_behind_is_seen(calm):
    strange = calm.place / "tmp" / "tmpabc"
    strange.mkdir()
    with pytest.raises(AssertionError, match="tmpabc"):
        calm.check_left()
    strange.rmdir()
