"""Files come back as the maps that were written; everything else is refused in one line."""

import io
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from stm_models.data import arrays
from stm_models.data.readers import READABLE, opening, read, select
from stm_models.errors import InputError
from stm_models.tasks.inputs import RawMap

RNG = np.random.default_rng(7)
MAP = RNG.random((12, 10))
STACK = RNG.random((5, 12, 10))
BIAS = np.array([0.2, 0.1, 0.0, -0.1, -0.2])


@pytest.mark.parametrize("dtype", ["f8", ">f4", "i2", "u1", "?"])
def test_npy_of_any_real_kind(tmp_path, dtype):
    values = (MAP * 200).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    raw = read(tmp_path / "a.npy")
    assert raw.values.dtype == np.dtype(float)
    np.testing.assert_array_equal(raw.values, values[None].astype(float))
    assert (raw.size_nm, raw.bias, raw.points, raw.source) == (None, None, None, "a.npy")


def test_npy_stack_and_size(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(STACK))
    raw = read(tmp_path / "a.npy", size_nm=(6.0, 5.0), channel=3)
    np.testing.assert_array_equal(raw.values, STACK[3:4])
    assert raw.size_nm == (6.0, 5.0)


def test_npz_with_everything(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", data=STACK, bias=BIAS, size_nm=[6, 5])
    raw = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(raw.values, STACK)
    np.testing.assert_array_equal(raw.bias, BIAS)
    assert raw.size_nm == (6.0, 5.0)
    assert read(tmp_path / "a.npz", size_nm=(1.0, 2.0)).size_nm == (1.0, 2.0)
    one = read(tmp_path / "a.npz", bias=-0.09)
    np.testing.assert_array_equal(one.values, STACK[3:4])
    assert one.bias.tolist() == [-0.1]
    assert "-0.1 V" in one.source


def test_npz_other_key(tmp_path):
    np.savez(tmp_path / "a.npz", topography=MAP)
    np.testing.assert_array_equal(read(tmp_path / "a.npz", key="topography").values[0], MAP)
    with pytest.raises(InputError, match="choose from topography"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8, 8, 5), 2), ((5, 8, 8), 0), ((8, 5, 8), 1), ((6, 7, 5), 2), ((6, 6, 6), 2)],
)
def test_mat_bias_axis(tmp_path, shape, axis):
    values = RNG.random(shape)
    savemat(tmp_path / "a.mat", {"m": values}, do_compression=True)
    np.testing.assert_array_equal(read(tmp_path / "a.mat").values, np.moveaxis(values, axis, 0))


def test_mat_bias_from_the_same_file(tmp_path):
    savemat(tmp_path / "a.mat", {"m": RNG.random((9, 9, 5)), "v": BIAS, "note": "text", "s": {"x": 1.0}})
    raw = read(tmp_path / "a.mat")
    np.testing.assert_array_equal(raw.bias, BIAS)
    assert raw.source == "a.mat[m]"


def test_mat_bias_from_the_only_neighbour(tmp_path):
    savemat(tmp_path / "a.mat", {"m": RNG.random((9, 9, 5))})
    (tmp_path / "broken.mat").write_bytes(b"nothing of the kind")
    savemat(tmp_path / "other.mat", {"v": np.arange(4.0)})
    assert read(tmp_path / "a.mat").bias is None
    savemat(tmp_path / "v.mat", {"v": BIAS})
    raw = read(tmp_path / "a.mat")
    np.testing.assert_array_equal(raw.bias, BIAS)
    assert "v.mat" in raw.source
    savemat(tmp_path / "w.mat", {"v": BIAS})
    assert read(tmp_path / "a.mat").bias is None
    with pytest.raises(InputError, match="does not state its biases"):
        read(tmp_path / "a.mat", bias=0.1)


def test_mat_with_several_maps(tmp_path):
    savemat(tmp_path / "a.mat", {"up": MAP, "down": 2 * MAP})
    with pytest.raises(InputError, match=r"up \(12, 10\), down \(12, 10\).*--key"):
        read(tmp_path / "a.mat")
    np.testing.assert_array_equal(read(tmp_path / "a.mat", key="down").values[0], 2 * MAP)
    with pytest.raises(InputError, match="did you mean 'down'"):
        read(tmp_path / "a.mat", key="dwn")
    savemat(tmp_path / "v.mat", {"v": np.arange(5.0)})
    with pytest.raises(InputError, match="vectors alone"):
        read(tmp_path / "v.mat")


def test_text_is_in_units_of_a(tmp_path):
    table = np.column_stack([RNG.uniform(-9, 9, (70, 2)), RNG.random(70)])
    np.savetxt(tmp_path / "LDOS.dat", table, header="x y value")
    raw = read(tmp_path / "LDOS.dat")
    assert raw.values.shape == (1, 1, 70)
    np.testing.assert_allclose(raw.values[0, 0], table[:, 2])
    np.testing.assert_allclose(raw.points, table[:, :2] * 0.246)
    assert raw.size_nm == pytest.approx(tuple(np.ptp(table[:, 1::-1], axis=0) * 0.246))
    with pytest.raises(InputError, match="leave it out"):
        read(tmp_path / "LDOS.dat", size_nm=(1.0, 1.0))


STACKED = RawMap(STACK, None, BIAS, "s")


@pytest.mark.parametrize(("bias", "index"), [(0.2, 0), (0.04, 2), (-0.06, 3), (-0.2, 4), (-0.29, 4), (0.3, 0)])
def test_select_the_nearest_bias(bias, index):
    chosen = select(STACKED, bias=bias)
    np.testing.assert_array_equal(chosen.values, STACK[index : index + 1])
    assert chosen.bias.tolist() == [BIAS[index]]


def test_select_leaves_a_single_map_alone():
    single = RawMap(MAP[None], None, None, "s")
    assert select(single) is single
    assert select(single, channel=0).source == "s"


@pytest.mark.parametrize(
    ("raw", "choice", "words"),
    [
        (STACKED, {}, "-0.2 to 0.2 V"),
        (replace(STACKED, bias=None), {}, "0 to 4"),
        (STACKED, {"bias": 0.31}, "outside -0.2 to 0.2 V"),
        (STACKED, {"bias": -14.0}, "outside"),
        (STACKED, {"bias": float("nan")}, "outside"),
        (STACKED, {"channel": 5}, "0 to 4"),
        (STACKED, {"channel": -1}, "0 to 4"),
        (STACKED, {"channel": 1, "bias": 0.1}, "one of them"),
        (replace(STACKED, bias=None), {"bias": 0.1}, "--channel"),
        (RawMap(MAP[None], None, np.array([0.1]), "s"), {"bias": 0.2}, "outside"),
    ],
)
def test_select_refuses(raw, choice, words):
    with pytest.raises(InputError, match=words):
        select(raw, **choice)


def npy_bytes(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def mat_bytes(**arrays):
    buffer = io.BytesIO()
    savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


def zip_bytes(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def lying_npy():
    honest = npy_bytes(MAP)
    return honest.replace(b"(12, 10)", b"(99999999999, 10)".ljust(8))[: len(honest)]


HOLED = np.where(MAP > 0.9, np.nan, MAP)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.npy", b"", "empty"),
        ("a.npy", b"\x89PNG\r\n", "cannot read"),
        ("a.npy", npy_bytes(MAP)[:-50], "cannot read"),
        ("a.npy", lying_npy(), "cannot read"),
        ("a.npy", npy_bytes(np.array([{1: 2}], dtype=object), allow_pickle=True), "cannot read"),
        ("a.npy", npy_bytes(MAP + 1j), "real numbers"),
        ("a.npy", npy_bytes(np.array([["a", "b"]])), "real numbers"),
        ("a.npy", npy_bytes(MAP[0]), r"\(10,\)"),
        ("a.npy", npy_bytes(np.zeros((2, 2, 2, 2))), r"\(2, 2, 2, 2\)"),
        ("a.npy", npy_bytes(np.zeros((0, 4))), "cannot read|shape"),
        ("a.npy", npy_bytes(HOLED), f"{np.isnan(HOLED).sum()} of 120 values are NaN"),
        ("a.npz", b"PK\x03\x04 and so on", "cannot read"),
        ("a.npz", npz_bytes(data=STACK)[:-200], "cannot read"),
        ("a.npz", npz_bytes(data=STACK, bias=BIAS[:3]), "bias has shape"),
        ("a.npz", npz_bytes(data=STACK, bias=BIAS * np.nan), "finite"),
        ("a.npz", npz_bytes(data=MAP, size_nm=[5.0]), "height and width"),
        ("a.npz", npz_bytes(data=MAP, size_nm=[5.0, 0.0]), "positive"),
        ("a.npz", npz_bytes(data=np.array([None]), fill=MAP), "cannot read"),
        ("a.npz", zip_bytes(data="hello"), "real numbers"),
        ("a.npz", zip_bytes(**{"data": npy_bytes(STACK), "data.npy": npy_bytes(MAP)}), "holds 'data' more than once"),
        ("a.mat", b"MATLAB 5.0 MAT-file, or so it says", "cannot read"),
        ("a.mat", mat_bytes(m=STACK)[:-300], "cannot read"),
        ("a.mat", mat_bytes(s={"x": MAP}, text="a"), "no numeric array"),
        ("a.mat", mat_bytes(m=MAP + 1j), "real numbers"),
        ("a.mat", b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 600, "7.3"),
        ("a.dat", b"Experiment\tbias spectroscopy\n1 2\n", "cut short"),
        ("a.dat", b"# x y value\n", "columns x y value"),
        ("a.dat", b"1 2\n3 4\n", r"\(2, 2\)"),
        ("a.dat", b"1 2 3\n3 nan 5\n", "1 positions"),
        ("a.dat", b"1 2 3\n3 4 inf\n", "1 of 2 values"),
        ("a.txt", b"\xff\xfe\x00\x01", "cannot read"),
        ("a.xyz", b"1 2 3\n", "kind '.xyz'"),
        ("a", b"1 2 3\n", "kind 'unknown'; expected .*.npy"),
        ("b.npy", npy_bytes(MAP * -1e300), "reach 9.*e\\+299"),
        ("b.npy", mat_bytes(m=MAP), "by its content it is a MATLAB file; rename it to b.mat"),
        ("b.mat", npy_bytes(MAP), "rename it to b.npy"),
        ("b.dat", npz_bytes(data=MAP), "it is a zip archive"),
        ("b.txt", b"Experiment\tbias spectroscopy\n", "it is a Nanonis spectrum; rename it to b.dat"),
        ("b.3ds", b":NANONIS_VERSION:\n2\n", "it is a Nanonis scan; rename it to b.sxm"),
        ("b.mat", b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "7.3"),
        ("b.png", b"\xff\xd8\xff\xe0", "it is a JPEG picture; expected"),
        ("b.png", b"abc", "cannot read b.png .cannot identify image file 'b.png'"),
        ("b.sm4", b"no such thing", "cannot read|rhkpy"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, name, content, words, recwarn):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert not recwarn.list


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "a.npy")
    with pytest.raises(InputError, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("size", [(0.0, 5.0), (5.0, -5.0), (np.nan, 5.0), (5.0,)])
def test_size_must_be_positive(tmp_path, size):
    np.save(tmp_path / "a.npy", MAP)
    with pytest.raises(InputError, match="height and width"):
        read(tmp_path / "a.npy", size_nm=size)


@pytest.mark.parametrize(("name", "content"), [("a.npy", npy_bytes(MAP)), ("a.dat", b"1 2 3\n")])
def test_a_key_where_there_are_no_names(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="leave the key out"):
        read(tmp_path / name, key="m")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.mat"])
def test_too_large_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, name):
    zeros = np.zeros((200, 200), "f4")
    if name == "a.npy":
        np.save(tmp_path / name, zeros)
    elif name == "a.npz":
        np.savez_compressed(tmp_path / name, data=zeros)
    else:
        savemat(tmp_path / name, {"m": zeros}, do_compression=True)
    assert read(tmp_path / name).values.shape == (1, 200, 200)
    monkeypatch.setattr(arrays, "LARGEST", 150_000)
    with pytest.raises(InputError, match="GiB; expected at most"):
        read(tmp_path / name)


def test_only_the_chosen_channel_must_be_finite(tmp_path):
    broken = STACK.copy()
    broken[4, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", broken)
    assert read(tmp_path / "a.npy", channel=1).values.shape == (1, 12, 10)
    with pytest.raises(InputError, match="1 of 600"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1", "i8", "?"])
def test_mat_arrays_as_scipy_reads_them(tmp_path, compress, dtype):
    values = (STACK * 100).astype(dtype)
    savemat(tmp_path / "a.mat", {"name": "text", "cell": [1, "b"], "a_long_name": values, "b": MAP.T, "z": 1 + 2j},
            do_compression=compress)  # fmt: skip
    for key in ("a_long_name", "b"):
        stored = loadmat(tmp_path / "a.mat")[key]
        expected = np.moveaxis(stored, 2, 0) if stored.ndim == 3 else stored[None]
        np.testing.assert_array_equal(read(tmp_path / "a.mat", key=key).values, expected)


def test_a_mat_file_that_unpacks_to_more_than_it_says(tmp_path):
    savemat(tmp_path / "a.mat", {"m": np.zeros((300, 300))}, do_compression=True)
    content = (tmp_path / "a.mat").read_bytes()
    body = bytearray(zlib.decompress(content[136:]))
    body[32:40] = np.array([9, 9], "<i4").tobytes()  # the shape
    packed = zlib.compress(bytes(body))
    (tmp_path / "a.mat").write_bytes(content[:128] + np.array([15, len(packed)], "<u4").tobytes() + packed)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "a.mat")


def test_every_kind_named_has_a_reader():
    assert set(READABLE) == set(opening._MODULES)


def test_a_name_where_signals_have_none(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    with pytest.raises(InputError, match="no named signals"):
        read(tmp_path / "a.npy", channel="LI Demod 1 X")
