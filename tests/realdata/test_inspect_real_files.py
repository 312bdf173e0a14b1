"""`stm inspect` on a measured stack: its biases, and the moiré lattice and nematic stripes in its Fourier transform."""

from __future__ import annotations

import json
from itertools import permutations

import numpy as np
import pytest

from pipelines.cli import main

pytestmark = pytest.mark.realdata


def test_the_nematic_stack(nematic, tmp_path, capsys):
    assert main(["inspect", str(nematic), "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert any("--size-nm" in what for what in result["unknown"])
    report = json.loads((tmp_path / "inspect.json").read_text())
    assert report["channels"] == 101
    assert report["pixels"] == {"height": 64, "width": 64}
    assert (min(report["bias_V"]), max(report["bias_V"])) == pytest.approx((-0.1, 0.1), abs=1e-6)
    assert report["fourier"]["unit"] == "rad/pixel"
    assert all(path.stat().st_size <= 300_000 for path in tmp_path.glob("*.png"))


def inspected(nematic, folder, bias):
    # The file does not state its size; nothing below depends on it.
    assert main(["inspect", str(nematic), "--bias", str(bias), "--size-nm", "50x50", "--out", str(folder)]) == 0
    report = json.loads((folder / "inspect.json").read_text())
    assert report["channels"] == 1
    assert report["bias_V"] == pytest.approx([bias], abs=1e-6)
    return report["fourier"]["peaks"][0]


def test_its_moire_lattice(nematic, tmp_path):
    """Away from the flat band the strong peaks hold a triangular lattice: three of one length, the middle their sum."""
    found = inspected(nematic, tmp_path, 0.05)[:5]
    pixel = 2 * np.pi / 50
    vectors = [np.array([peak["kx"], peak["ky"]]) for peak in found]
    triads = [
        three
        for three in permutations(vectors, 3)
        if np.abs(three[0] + three[1] - three[2]).max() < 1.01 * pixel
        and np.ptp([np.linalg.norm(one) for one in three]) < 0.8 * pixel
    ]
    assert triads


def test_its_nematic_stripes(nematic, tmp_path):
    """One wave alone dominates at -14 mV (Rubio-Verdu et al., Nat. Phys. 18, 196, 2022), none does at +50 mV."""
    stripes = inspected(nematic, tmp_path, -0.014)
    lattice = inspected(nematic, tmp_path, 0.05)
    assert stripes[0]["magnitude"] > 3 * stripes[1]["magnitude"]
    assert lattice[0]["magnitude"] < 1.3 * lattice[1]["magnitude"]
