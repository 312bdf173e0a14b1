"""Instrument files come back in physical units and orientation, and what is odd about them is said or refused."""

from __future__ import annotations

import struct
import subprocess
import sys
import types
import zlib

import numpy as np
import pytest
import tifffile
import xarray as xr
from PIL import Image

from stm_models.data import arrays
from stm_models.data.readers import open_stack, read
from stm_models.errors import InputError
from stm_models.figures.measured import maps
from support import instrument_files as files

RNG = np.random.default_rng(3)
BIAS = np.linspace(-0.2, 0.3, 6)
CUBE = RNG.random((4, 5, 6)) + 1
STACK = np.moveaxis(CUBE, 2, 0).astype("f4").astype("f8")


@pytest.mark.parametrize("falling", [False, True])
def test_a_grid(tmp_path, falling):
    bias, cube = (BIAS[::-1], CUBE[..., ::-1]) if falling else (BIAS, CUBE)
    path = files.grid(tmp_path / "a.3ds", {"Current (A)": 9 * cube, "LI Demod 1 X (A)": cube}, bias=bias)
    raw = read(path)
    np.testing.assert_array_equal(raw.values, STACK)
    np.testing.assert_allclose(raw.bias, BIAS, atol=1e-8)
    assert raw.size_nm == pytest.approx((3.0, 4.0))
    assert (raw.channel, raw.unit, raw.channels) == ("LI Demod 1 X", "A", ("Current (A)", "LI Demod 1 X (A)"))
    assert "45 degrees" in raw.orientation
    assert raw.settings == {"setpoint": 1e-10, "lock_in_amplitude": 0.005}
    one = read(path, channel="current", bias=0.11)
    np.testing.assert_allclose(one.values, 9 * STACK[3:4], rtol=1e-6)
    assert "Current" in one.source
    np.testing.assert_array_equal(read(path, channel=2).values, STACK[2:3])


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["LIX 1 (A)", "LockinX (V)", "LI Demod 1 X (A)"], "LI Demod 1 X"),
        (["LI Demod 1 X [00001] (A)", "LI Demod 1 X [bwd] (A)", "LI Demod 1 X [AVG] (A)"], "LI Demod 1 X [AVG]"),
        (["LI Demod 1 X [bwd] (A)", "LockinX (V)", "LIR 1 omega (A)"], "LIR 1 omega"),
        (["Current [AVG] (A)", "LIX 1 omega [AVG] (A)", "LIX 1 omega [bwd] (A)"], "LIX 1 omega [AVG]"),
        (["Current (A)", "LI Y 1 omega (A)", "LI X 1 omega (A)"], "LI X 1 omega"),
        (["LockinY (V)", "LockinX (V)"], "LockinX"),
        (["Current [bwd] (A)", "Current [AVG] (A)"], "dI/dV from Current [AVG]"),
    ],
)
def test_which_signal_is_the_conductance(tmp_path, names, chosen):
    path = files.grid(tmp_path / "a.3ds", {name: CUBE + i for i, name in enumerate(names)}, bias=BIAS)
    assert read(path).channel == chosen
    with pytest.raises(InputError, match=r"choose from .*LI|choose from .*Lockin|choose from .*Current"):
        read(path, channel="Bias_m")


def test_long_names_and_settings_are_read_at_once(tmp_path):
    digits, name = "1" * 1_000_000, f"a{' ' * 1_000_000}b"
    path = files.grid(
        tmp_path / "a.3ds", {"LIX 1 (A)": CUBE, name: CUBE}, bias=BIAS,
        edit=lambda head: head.replace("Lock-in>Amplitude=5E-3", f"Bias>Bias (V)={digits}x\r\nLock-in>Amplitude=5E-3"),
    )  # fmt: skip
    raw = read(path)
    assert raw.settings["bias_V"] == digits[:80]
    assert raw.settings["lock_in_amplitude"] == 5e-3
    assert raw.channels == ("LIX 1 (A)", name)


def test_the_slope_of_the_current(tmp_path):
    """Second-order differences are exact for a parabola between the ends."""
    current = (2 * BIAS + 5 * BIAS**2)[::-1] * np.ones((4, 5, 1))
    path = files.grid(tmp_path / "a.3ds", {"Current (A)": current, "Z (m)": CUBE}, bias=BIAS[::-1])
    raw = read(path)
    np.testing.assert_allclose(raw.values[1:-1, 2, 3], (2 + 10 * BIAS)[1:-1], rtol=1e-5)
    assert (raw.unit, raw.channel) == ("S", "dI/dV from Current")
    assert "derivative" in raw.reason
    assert "no lock-in signal" in raw.notes[0]
    assert read(path, channel="dI/dV").notes == ()
    both = files.grid(tmp_path / "b.3ds", {"Current (A)": current, "LockinX (V)": CUBE}, bias=BIAS[::-1])
    np.testing.assert_array_equal(read(both, channel="dI/dV").values, raw.values)


def test_segments_share_their_ends(tmp_path):
    """Counting shared ends once: 4 + 3 - 1 = 6 points; a linear axis would put the third at 0.1 V."""
    path = files.grid(
        tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, segments="300E-3,0E+0,1E-2,1E-1,4,0,0;0E+0,-1E+0,0,0,3,0"
    )
    raw = read(path)
    np.testing.assert_allclose(raw.bias, [-1.0, -0.5, 0.0, 0.1, 0.2, 0.3], atol=1e-12)
    np.testing.assert_array_equal(raw.values, STACK[::-1])
    for wrong in ("0,1,0,0,9", "0,1,0,0,x", "0,1", "0,1,0,0,1e99", "0,1,0,0,999999999999", ""):
        files.grid(path, {"LIX 1 (A)": CUBE}, segments=wrong or ";")
        with pytest.raises(InputError, match="segments"):
            read(path)


def test_a_sweep_that_turns_round(tmp_path):
    path = files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, segments="0,1,0,0,4;1,0,0,0,3")
    raw = read(path)
    np.testing.assert_allclose(raw.bias, [0, 1 / 3, 2 / 3, 1])
    assert "turns round" in raw.notes[0]


@pytest.mark.parametrize("hole", [0.0, np.nan])
def test_an_unfinished_grid(tmp_path, hole):
    cube = CUBE.copy()
    cube[3], cube[2, 2:] = hole, hole
    path = files.grid(tmp_path / "a.3ds", {"Current (A)": cube, "LIX 1 (A)": cube}, bias=BIAS)
    raw = read(path)
    np.testing.assert_array_equal(raw.values, STACK[:, :2])
    assert raw.size_nm == pytest.approx((1.5, 4.0))
    assert "2 of 4 rows" in raw.notes[0]
    with pytest.raises(InputError, match="no row"):
        read(files.grid(tmp_path / "b.3ds", {"LIX 1 (A)": np.full_like(CUBE, hole)}, bias=BIAS))
    cube = CUBE.copy()
    cube[1, 1, 1] = np.nan
    with pytest.raises(InputError, match="1 of 120 values are NaN"):
        read(files.grid(path, {"LIX 1 (A)": cube}, bias=BIAS))


def test_a_line_of_spectra_has_no_field(tmp_path):
    path = files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE[:1]}, bias=BIAS, size_nm=(0.0, 4.0))
    raw = read(path)
    assert raw.size_nm is None
    assert raw.values.shape == (6, 1, 5)
    assert read(path, size_nm=(1, 4)).size_nm == (1, 4)
    with pytest.raises(InputError, match="both positive"):
        read(files.grid(path, {"LIX 1 (A)": CUBE}, bias=BIAS, size_nm=(-3.0, 4.0)))


def swap(old, new):
    def edit(head):
        assert old in head
        return head.replace(old, new)

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (swap("Points=6", "Points=1000000000"), "cut short"),
        (swap('"5 x 4"', '"0 x 4"'), "Grid dim = '0 x 4'; expected 2 positive whole"),
        (swap('"5 x 4"', '"5 x -4"'), "positive whole"),
        (swap('"5 x 4"', f'"{"9" * 900} x 4"'), "positive whole"),
        (swap("Points=6", "Points=5"), "header is damaged"),
        (swap("Points=6\r\n", ""), "4 x 5 spectra of 1 channels and 7 points"),
        (swap("Bias (V)", "Z (m)"), r"sweeps 'Z \(m\)'"),
        (swap("LIX 1 (A)", "Phase (deg)"), "no current.*--channel NAME"),
        (swap("=5\r\n", "=4\r\n"), "lists 5 parameters"),
        (swap("4.000000E-09", "-4.000000E-09"), "both positive"),
        (swap("4.000000E-09", "nan"), "Grid settings"),
        (swap(":HEADER_END:\r\n", ""), "HEADER_END"),
        (swap("Sweep Start;Sweep End", "Sweep Start;Sweep"), "Sweep Start"),
    ],
)
def test_a_grid_that_is_refused(tmp_path, edit, words):
    path = files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, bias=BIAS, edit=edit)
    with pytest.raises(InputError, match=words):
        read(path)


def test_a_grid_without_a_sweep_or_an_end(tmp_path):
    with pytest.raises(InputError, match="its sweep goes from"):
        read(files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, bias=np.zeros(6)))
    with pytest.raises(InputError, match="its sweep goes from"):
        read(files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, bias=np.array([np.nan, 1.0])))
    with pytest.raises(InputError, match="cut short"):
        read(files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, bias=BIAS, cut=4))


def test_a_large_grid_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, bias=BIAS)
    monkeypatch.setattr(arrays, "LARGEST", 900)
    with pytest.raises(InputError, match="expected at most"):
        read(path)


IMAGE = RNG.random((6, 7)).astype("f4").astype("f8")
CHANNELS = [("Z", "m", "both"), ("LI_Demod_1_X", "A", "both")]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_scan_stands_as_the_sample_does(tmp_path, direction):
    """The true image, first row lowest: an upward scan meets it row by row, a backward line from its end."""
    scanned = IMAGE if direction == "up" else IMAGE[::-1]
    images = [scanned + 1, scanned[:, ::-1] + 2, scanned, scanned[:, ::-1] + 3]
    path = files.scan(tmp_path / "a.sxm", images, CHANNELS, direction=direction)
    raw = read(path)
    np.testing.assert_array_equal(raw.values[0], IMAGE)
    assert raw.channels == ("Z (m)", "Z [bwd] (m)", "LI_Demod_1_X (A)", "LI_Demod_1_X [bwd] (A)")
    assert (raw.unit, raw.bias.tolist(), raw.size_nm) == ("A", [-0.2], (3.0, 4.0))
    assert raw.settings["setpoint"] == 5e-10
    assert "30 degrees" in raw.orientation
    table = b":Z-CONTROLLER:\n\tName\tSetpoint\n\tcurrent\t5.000E-10 A\n:DATA_INFO:"
    path.write_bytes(path.read_bytes().replace(b":DATA_INFO:", table))
    both = read(path).settings
    assert (both["setpoint"], both["controller"]) == (5e-10, "current")
    backward = read(path, channel="LI Demod 1 X [bwd]")
    np.testing.assert_allclose(backward.values[0], IMAGE + 3, rtol=1e-6)
    np.testing.assert_array_equal(backward.values, read(path, channel=3).values)
    np.testing.assert_allclose(read(path, channel="Z").values[0], IMAGE + 1, rtol=1e-6)
    with pytest.raises(InputError, match="choose 0 to 3"):
        read(path, channel=4)


def test_a_scan_without_lock_in_says_so(tmp_path):
    raw = read(files.scan(tmp_path / "a.sxm", [IMAGE, IMAGE], [("Current", "A", "forward"), ("Z", "m", "forward")]))
    assert raw.channel == "Z"
    assert "no dI/dV" in raw.notes[0]


@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_unfinished_scan(tmp_path, direction):
    image = IMAGE.copy()
    image[4:], image[3, 5] = np.nan, np.nan
    raw = read(files.scan(tmp_path / "a.sxm", [image], [("Z", "m", "forward")], direction=direction))
    np.testing.assert_array_equal(raw.values[0], IMAGE[:3] if direction == "up" else IMAGE[:3][::-1])
    assert raw.size_nm == pytest.approx((1.5, 4.0))
    assert "3 of 6 lines" in raw.notes[0]
    assert raw.unrecorded == ((0, 3) if direction == "up" else (3, 0))
    middles = np.arange(3) + (0.5 if direction == "up" else 3.5)
    np.testing.assert_allclose(open_stack(tmp_path / "a.sxm").y, 0.5 * middles)
    assert maps(raw, [0], ["Z"]).axes[0].get_ylim() == ((0, 1.5) if direction == "up" else (1.5, 3))


def test_a_spectrum(tmp_path):
    signal = RNG.random(6)
    columns = {"Bias calc (V)": BIAS[::-1], "Current (A)": BIAS[::-1] ** 2, "LI Demod 1 X (A)": signal}
    raw = read(files.spectrum(tmp_path / "a.dat", columns))
    np.testing.assert_allclose(raw.values[:, 0, 0], signal[::-1], rtol=1e-6)
    np.testing.assert_allclose(raw.bias, BIAS, rtol=1e-6)
    assert raw.settings == {"setpoint": 2.5e-11, "x_m": 1e-9}
    slope = read(tmp_path / "a.dat", channel="dI/dV")
    np.testing.assert_allclose(slope.values[1:-1, 0, 0], 2 * BIAS[1:-1], atol=1e-6)
    with pytest.raises(InputError, match=r"is over 'Z rel \(m\)'"):
        read(files.spectrum(tmp_path / "b.dat", {"Z rel (m)": BIAS, "Current (A)": BIAS}))
    with pytest.raises(InputError, match="no slope"):
        read(files.spectrum(tmp_path / "b.dat", {"Bias (V)": 0 * BIAS, "Current (A)": BIAS}))
    with pytest.raises(InputError, match="cut short"):
        read(files.spectrum(tmp_path / "b.dat", {"Bias (V)": [], "Current (A)": []}))


@pytest.mark.parametrize(
    ("name", "dtype"), [("a.png", "u1"), ("a.png", "u2"), ("a.tif", "u1"), ("a.tiff", "u2"), ("a.tif", "f4")]
)
def test_a_picture(tmp_path, name, dtype):
    values = (RNG.random((6, 7)) * 250).astype(dtype)
    Image.fromarray(values).save(tmp_path / name)
    raw = read(tmp_path / name, size_nm=(6, 7))
    np.testing.assert_array_equal(raw.values[0], values[::-1])
    assert "not a calibrated signal" in raw.notes[0]
    assert read(tmp_path / name).size_nm is None


@pytest.mark.parametrize("dtype", ["i1", "i2", "u2", "i4", "u4"])
def test_numbers_of_a_tiff_are_what_was_written(tmp_path, dtype):
    """Pillow takes a signed byte for an unsigned one, and an unsigned word of 32 bits for a signed one."""
    ends = np.iinfo(dtype)
    values = np.linspace(float(ends.min), float(ends.max), 42).clip(ends.min, ends.max - 300).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values.reshape(6, 7), photometric="minisblack")
    np.testing.assert_array_equal(read(tmp_path / "a.tif").values[0], values.reshape(6, 7)[::-1])


def test_a_tiff_that_counts_white_as_zero(tmp_path):
    values = (RNG.random((6, 7)) * 250).astype("u1")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(read(tmp_path / "a.tif").values[0], 255 - values[::-1])
    tifffile.imwrite(tmp_path / "a.tif", values.astype("u2"), photometric="miniswhite")
    with pytest.raises(InputError, match="WhiteIsZero"):
        read(tmp_path / "a.tif")


def test_frames_of_a_picture(tmp_path):
    frames = [Image.fromarray((RNG.random((6, 7)) * 250).astype("u1")) for _ in range(3)]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read(tmp_path / "a.tif").values, [np.asarray(frame)[::-1] for frame in frames])
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=[frames[1].resize((3, 3))])
    with pytest.raises(InputError, match="frame 1"):
        read(tmp_path / "a.tif")


def test_colours_are_refused_grey_ones_are_not(tmp_path):
    grey = Image.fromarray((RNG.random((6, 7)) * 250).astype("u1"))
    grey.convert("RGBA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png").values[0], np.asarray(grey)[::-1])
    Image.fromarray((RNG.random((6, 7, 3)) * 250).astype("u1")).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="in colours"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("side", [12_000, 16_000, 20_000, 2**31 - 1])
def test_a_picture_that_would_fill_the_memory(tmp_path, side, recwarn):
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9)))]
    parts.append((b"IEND", b""))
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(InputError, match=r"expected at most|exceeds limit"):
        read(tmp_path / "a.png")
    assert not recwarn.list


def test_an_rhk_file_says_what_it_needs(tmp_path, monkeypatch):
    (tmp_path / "a.sm4").write_bytes(b"8\0" + "STiMage 005.004 1".encode("utf-16-le"))
    monkeypatch.setitem(sys.modules, "rhkpy", None)
    with pytest.raises(InputError, match="pip install rhkpy"):
        read(tmp_path / "a.sm4")


def test_an_rhk_file(tmp_path, monkeypatch):
    """What rhkpy 1.3.10 gives: repetitions and both sweeps apart, bias falling, forward and backward images."""
    both = np.stack([CUBE, CUBE + 2], axis=-1)[..., None, :]  # (y, x, bias, repetition, direction)
    axes = ("specpos_y", "specpos_x", "bias", "repetitions", "biasscandir")
    images = np.stack([IMAGE, 5 * IMAGE], axis=-1)
    spectra = xr.Dataset(
        {name: (axes, scale * both[:, :, ::-1], {"units": "pA"}) for name, scale in (("lia", 1), ("current", 3))},
        {"bias": BIAS[::-1], "specpos_x": np.arange(5) * 2.0, "specpos_y": np.arange(4) * 3.0},
        {"setpoint": np.float32(500), "setpoint units": "pA"},
    )
    image = xr.Dataset(
        dict.fromkeys(("topography", "current", "lia"), (("y", "x", "scandir"), images)),
        {"scandir": ["forward", "backward"]}, {"size_x": 7.0, "size_y": 6.0, "bias": np.float32(0.5)},
    )  # fmt: skip
    file = types.SimpleNamespace(datatype="map", spectra=spectra, image=image)
    monkeypatch.setitem(sys.modules, "rhkpy", types.SimpleNamespace(rhkdata=lambda path: file))
    (tmp_path / "a.sm4").write_bytes(b"8\0" + "STiMage 005.004 1".encode("utf-16-le"))
    raw = read(tmp_path / "a.sm4")
    np.testing.assert_allclose(raw.values, np.moveaxis(CUBE, 2, 0) + 1)
    np.testing.assert_array_equal(raw.bias, BIAS)
    assert (raw.size_nm, raw.unit, raw.channel) == ((12.0, 10.0), "pA", "spectra lia")
    assert raw.settings == {"setpoint": 500.0, "setpoint_unit": "pA"}
    slope = read(tmp_path / "a.sm4", channel="dI/dV")
    np.testing.assert_allclose(slope.values[2], 3 * (STACK[3] - STACK[1]) / 0.2, rtol=1e-4)
    topograph = read(tmp_path / "a.sm4", channel="image topography")
    np.testing.assert_array_equal(topograph.values[0], IMAGE)
    assert (topograph.size_nm, topograph.unit) == ((6.0, 7.0), "nm")
    with pytest.raises(InputError, match="choose from spectra lia"):
        read(tmp_path / "a.sm4", channel="phase")
    file.datatype = "line"
    with pytest.raises(InputError, match="holds 'line'"):
        read(tmp_path / "a.sm4")


def test_named_axes(tmp_path):
    path = files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, bias=BIAS)
    stack = open_stack(path)
    assert stack.dims == ("bias", "y", "x")
    np.testing.assert_array_equal(stack.values, STACK)
    assert (stack.attrs["units"], stack.bias.attrs["units"], stack.x.attrs["units"]) == ("A", "V", "nm")
    np.testing.assert_allclose(stack.y, [0.375, 1.125, 1.875, 2.625])
    np.testing.assert_array_equal(stack.sel(bias=0.3, method="nearest").values, STACK[5])
    np.save(tmp_path / "a.npy", STACK)
    bare = open_stack(tmp_path / "a.npy")
    assert "bias" not in bare.coords
    assert (bare.x.attrs["units"], bare.attrs["units"]) == ("px", "unknown")
    np.savetxt(tmp_path / "a.txt", RNG.random((30, 3)))
    assert open_stack(tmp_path / "a.txt").dims == ("bias", "point")


def test_reading_needs_no_xarray(tmp_path):
    path = files.grid(tmp_path / "a.3ds", {"LIX 1 (A)": CUBE}, bias=BIAS)
    script = "import sys; sys.modules['xarray'] = None; from stm_models.data.readers import open_stack, read; "
    script += (
        f"print(read({str(path)!r}).values.shape)\ntry: open_stack({str(path)!r})\nexcept Exception as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "(6, 4, 5)"
    assert "needs the package xarray" in done.stdout
