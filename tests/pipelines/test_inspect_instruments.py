"""`stm inspect` on instrument files: what they say is said, what cannot be drawn is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deploy.model.questions import parse_channel
from pipelines.cli import main
from support import instrument_files as files

RNG = np.random.default_rng(2)
BIAS = np.linspace(-0.1, 0.1, 3)


def test_a_grid(tmp_path, capsys):
    """A wave of 1 nm along x in the second signal; the first rises along y."""
    x, y = np.meshgrid(np.arange(20) * 0.2, np.arange(16) * 0.2)
    wave, slope = (np.repeat(one[..., None], 3, axis=2) for one in (2 + np.cos(2 * np.pi * x), y))
    path = files.grid(
        tmp_path / "a.3ds", {"Current (A)": slope, "LIX 1 (A)": wave}, bias=BIAS[::-1], size_nm=(3.2, 4.0)
    )
    assert main(["inspect", str(path), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    for words in ("3 channels of 16 x 20 pixels on 3.2 x 4 nm", "Nanonis grid", "-0.1 to 0.1 V", "LIX 1 (A): first of",
                  "Current (A), LIX 1 (A)", "setpoint 1e-10"):  # fmt: skip
        assert words in said
    report = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert report["fourier"]["peaks"][0][0]["kx"] == pytest.approx(2 * np.pi)
    assert set(report["pictures"]) == {"spectrum", "map", "fourier"}
    assert report["bias_V"] == pytest.approx([-0.1, 0, 0.1], abs=1e-8)
    assert report["unknown"] == []
    assert main(["inspect", str(path), "--channel", "current", "--bias", "0", "--out", str(tmp_path / "one")]) == 0
    one = json.loads((tmp_path / "one" / "inspect.json").read_text())
    assert (one["channel"], one["channels"]) == ("Current", 1)
    assert one["statistics"]["highest"] == pytest.approx([3.0])


def test_a_spectrum_has_no_map(tmp_path, capsys):
    path = files.spectrum(tmp_path / "a.dat", {"Bias (V)": BIAS, "Current (A)": BIAS**2})
    assert main(["inspect", str(path), "--out", str(tmp_path / "out")]) == 0
    assert "not drawn: map: 1 x 1 pixels" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert set(report["pictures"]) == {"spectrum"}
    assert (report["channel"], report["unit"]) == ("dI/dV from Current", "S")


def test_what_is_too_small_or_damaged_is_refused(tmp_path, capsys):
    np.save(tmp_path / "a.npy", RNG.random((1, 16)))
    assert main(["inspect", str(tmp_path / "a.npy"), "--out", str(tmp_path / "out")]) == 2
    path = files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": RNG.random((4, 5, 3))}, bias=BIAS, cut=1)
    assert main(["inspect", str(path), "--out", str(tmp_path / "out")]) == 2
    first, second = capsys.readouterr().err.strip().splitlines()
    assert "at least 4 x 4" in first
    assert "a.3ds is cut short" in second


@pytest.mark.parametrize(
    ("text", "meant"), [("3", 3), ("-1", -1), ("LIX 1", "LIX 1"), ("1e3", "1e3"), ("9" * 30, "9" * 30)]
)
def test_a_channel_is_a_number_or_a_name(text, meant):
    assert parse_channel(text) == meant
