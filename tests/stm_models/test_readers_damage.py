"""Damaged files of every kind are read or refused: no other exception, no crash, no hang, never more than 1 GiB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from support import damage
from support import instrument_files as files

SLOWEST = 5.0  # s


def survive(paths, *, copies, seed=0, timeout=120):
    """Read damaged copies in a process of their own; return its report."""
    done = subprocess.run(
        [sys.executable, "-P", damage.__file__, str(seed), str(copies), *map(str, paths)],
        capture_output=True, text=True, timeout=timeout, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"
    *reports, peak = map(json.loads, done.stdout.splitlines())
    assert peak["peak_bytes"] < 1024**3
    assert len(reports) == len(paths)
    for report in reports:
        assert report["wrong"] == []
        assert report["slowest"] < SLOWEST, report
        assert report["read"] + report["refused"] == copies
        assert report["refused"] > copies / 20, report
    return reports


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    rng = np.random.default_rng(5)
    stack = rng.random((5, 12, 10))
    cube, bias = np.moveaxis(stack, 0, 2), np.linspace(-1, 1, 5)
    files.grid(folder / "linear.3ds", {"Current (A)": cube, "LIX 1 (A)": cube}, bias=bias)
    files.grid(folder / "segments.3ds", {"Current (A)": cube}, segments="0,1,0,0,3;1,3,0,0,3")
    files.scan(folder / "a.sxm", [stack[0], stack[1]], [("Z", "m", "both")], direction="down")
    files.spectrum(folder / "a.dat", {"Bias (V)": np.arange(40), "Current (A)": rng.random(40)})
    np.savetxt(folder / "a.txt", rng.random((40, 3)))
    np.save(folder / "a.npy", stack)
    np.savez_compressed(folder / "a.npz", data=stack, bias=bias, size_nm=[3, 4])
    for name, compress in (("packed.mat", True), ("plain.mat", False)):
        savemat(folder / name, {"m": cube, "v": bias, "s": {"x": 1.0}, "t": "text"}, do_compression=compress)
    pictures = [Image.fromarray((one * 65535).astype("u2")) for one in stack]
    pictures[0].save(folder / "a.png")
    pictures[0].save(folder / "a.tif")
    pictures[0].save(folder / "packed.tiff", compression="tiff_adobe_deflate")
    Image.fromarray(stack[0].astype("f4")).save(
        folder / "frames.tif", save_all=True, append_images=[Image.fromarray(one.astype("f4")) for one in stack[1:]]
    )
    return sorted(folder.iterdir())


def test_damaged_files(whole):
    assert len(whole) == 13
    survive(whole, copies=120)


def test_the_check_itself_fails_for_an_unguarded_reader(whole, tmp_path):
    """A reader that lets other exceptions out, or takes all memory, is found out."""
    script = tmp_path / "damage.py"
    text = Path(damage.__file__).read_text()
    script.write_text(text.replace("raw = read(path)", "raw = __import__('numpy').load(path)"))
    npy = next(str(path) for path in whole if path.name == "a.npy")
    done = subprocess.run([sys.executable, "-P", script, "0", "40", npy], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[0])["wrong"]
    script.write_text(text.replace("raw = read(path)", "raw = bytearray(2 * GIB)"))
    done = subprocess.run([sys.executable, "-P", script, "0", "1", npy], capture_output=True, text=True, check=True)
    assert "MemoryError" in json.loads(done.stdout.splitlines()[0])["wrong"][0]
