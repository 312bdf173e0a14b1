"""Each reader on each measured file: axes, units and orientation, another library's values, and damaged copies."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipelines.cli import main
from stm_models.data.readers import open_stack, read
from stm_models.errors import InputError

pytestmark = pytest.mark.realdata
DAMAGE = Path(__file__).parents[1] / "support" / "damage.py"


@dataclass(frozen=True)
class Expected:
    """What a file must give."""

    shape: tuple[int, int, int]
    bias: tuple[float, float] | None
    size_nm: tuple[float, float] | None
    channel: str | None
    unit: str | None
    said: str  # by `stm inspect`


FILES = {
    "STS_grid_lockin.3ds": Expected((200, 30, 30), (-0.22, 0.22), (5, 5), "LockinX", "V", "turned by 45 degrees"),
    "test.sxm": Expected((1, 256, 256), (0.2, 0.2), (5000, 5000), "Z", "m", "setpoint 2.000E-10 A"),
    "STM_nanonis_generic_4_5.sxm": Expected((1, 256, 256), (0.05, 0.05), (4, 4), "Z", "m", "rows turned over"),
    "Bias-Spectroscopy00015_20230420.dat": Expected(
        (2048, 1, 1), (-0.05, 0.05), None, "LI Demod 1 X", "A", "setpoint 2.5e-11"
    ),
    "m_nematic.mat": Expected((101, 64, 64), (-0.1, 0.1), None, None, None, "size: the file does not state it"),
}


@pytest.fixture
def real():
    """Return a function from a file's name to its path."""

    def find(name: str) -> Path:
        named = os.environ.get("STM_REALDATA")
        found = next(iter(sorted(Path(named).rglob(name))), None) if named else None
        if found is None:
            pytest.skip(f"STM_REALDATA ({named}) names no folder with {name}")
        return found

    return find


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_gives(real, name):
    expected, raw = FILES[name], read(real(name))
    assert raw.values.shape == expected.shape
    assert (raw.channel, raw.unit) == (expected.channel, expected.unit)
    if expected.size_nm is None:
        assert raw.size_nm is None
    else:
        assert raw.size_nm == pytest.approx(expected.size_nm)
    assert sorted((raw.bias[0], raw.bias[-1])) == pytest.approx(expected.bias, abs=1e-7)
    stack = open_stack(real(name))
    assert stack.dims == ("bias", "y", "x")
    np.testing.assert_array_equal(stack.values, raw.values)
    for channel in raw.channels if raw.channel else ():
        assert np.isfinite(read(real(name), channel=channel).values).all()


@pytest.mark.parametrize("name", FILES)
def test_inspection_says_it(real, name, tmp_path, capsys):
    assert main(["inspect", str(real(name)), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert FILES[name].said in said
    report = json.loads((tmp_path / "inspect.json").read_text())
    assert report["channels"] == FILES[name].shape[0]
    assert (tmp_path / "contact_sheet.png").stat().st_size > 3000


def test_the_grid_as_another_library_reads_it(real):
    """Bit by bit nanonispy2's, whose arrays are (y, x, bias), for every channel."""
    nanonispy2 = pytest.importorskip("nanonispy2", reason="the reference reader is not installed")
    path = real("STS_grid_lockin.3ds")
    missing = dict.fromkeys(("Delay before measuring (s)", "Start time", "End time", "Comment"), "0")
    theirs = nanonispy2.read.Grid(str(path), header_override=missing).signals
    for name in read(path).channels:
        ours = read(path, channel=name)
        np.testing.assert_array_equal(ours.values, np.moveaxis(theirs[name], 2, 0))
        np.testing.assert_allclose(ours.bias, theirs["sweep_signal"], atol=1e-7)


def test_the_rows_of_the_grid_go_up(real):
    """The file records where each spectrum was taken: in the frame, turned clockwise, y grows with the row."""
    path = real("STS_grid_lockin.3ds")
    content = path.read_bytes()
    start = content.index(b":HEADER_END:\r\n") + 14
    data = np.frombuffer(content[start:], ">f4").reshape(30, 30, 810)
    x, y = data[..., 2] - 8.451877e-8, data[..., 3] - 6.329924e-7
    along_x, along_y = (x - y) / np.sqrt(2), (x + y) / np.sqrt(2)
    np.testing.assert_allclose(np.diff(along_y, axis=0), 5e-9 / 30, rtol=0.02)
    np.testing.assert_allclose(np.diff(along_x, axis=1), 5e-9 / 30, rtol=0.02)


def test_the_slope_of_the_current_is_the_lock_in_signal(real):
    """The lock-in measures dI/dV: both agree up to a factor and an offset."""
    path = real("STS_grid_lockin.3ds")
    lock_in, slope = (read(path, channel=name).values.mean(axis=(1, 2)) for name in ("LockinX", "dI/dV"))
    assert abs(np.corrcoef(lock_in[5:-5], slope[5:-5])[0, 1]) > 0.9


@pytest.mark.parametrize("name", ["test.sxm", "STM_nanonis_generic_4_5.sxm"])
def test_scans_as_another_library_reads_them(real, name):
    """nanonispy2 gives lines in the order of scanning; turned over, forward and backward show one surface."""
    nanonispy2 = pytest.importorskip("nanonispy2", reason="the reference reader is not installed")
    theirs = nanonispy2.read.Scan(str(real(name)))
    up = theirs.header["scan_dir"] == "up"
    for way, tag in (("forward", ""), ("backward", " [bwd]")):
        image = theirs.signals["Z"][way]
        image = image if up else image[::-1]
        np.testing.assert_array_equal(
            read(real(name), channel=f"Z{tag}").values[0], image if way == "forward" else image[:, ::-1]
        )
    there, back = (read(real(name), channel=channel).values[0] for channel in ("Z", "Z [bwd]"))
    there, back = (one - one.mean(axis=1, keepdims=True) for one in (there, back))
    assert (
        np.corrcoef(there.ravel(), back.ravel())[0, 1] > np.corrcoef(there.ravel(), back[:, ::-1].ravel())[0, 1] + 0.2
    )


def test_the_spectrum_as_text_says(real):
    path = real("Bias-Spectroscopy00015_20230420.dat")
    lines = path.read_text(encoding="latin-1").split("[DATA]")[1].splitlines()[1:]
    column = lines[0].split("\t").index("LI Demod 1 X (A)")
    values = [float(line.split("\t")[column]) for line in lines[1:]]
    np.testing.assert_array_equal(read(path).values[:, 0, 0], values)


def test_the_rhk_file(real):
    path = real("hopg_300k_2020_08_11_16_04_06_999.sm4")
    if importlib.util.find_spec("rhkpy") is None:
        with pytest.raises(InputError, match="pip install rhkpy"):
            read(path)
        return
    raw = read(path)
    assert raw.values.shape == (241, 4, 4)
    assert (raw.bias[0], raw.bias[-1]) == pytest.approx((-0.6, 0.6), abs=1e-6)
    assert raw.size_nm == pytest.approx((100, 100))
    assert read(path, channel="image topography").values.shape == (1, 256, 256)


@pytest.mark.parametrize("name", FILES)
def test_damaged_copies(real, name):
    copies = 60
    done = subprocess.run(
        [sys.executable, "-P", DAMAGE, "1", str(copies), str(real(name))],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report, peak = map(json.loads, done.stdout.splitlines())
    assert report["wrong"] == []
    assert report["slowest"] < 5
    assert report["refused"] >= copies // 5
    assert report["read"] + report["refused"] == copies
    assert peak["peak_bytes"] < 1024**3
