"""Labels in file names: the two patterns of the public code find the right U in every name that is written."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stm_models.errors import InputError
from stm_models.tasks.hubbard.conventions.names import file_stem, parse


@given(
    U=st.floats(0, 99, allow_subnormal=False),
    index=st.integers(1, 31),
    distance=st.floats(1.5, 5),
    dielectric=st.none() | st.floats(1, 500),
    filling=st.floats(-8, 8),
    state=st.integers(0, 10**6),
    draw=st.integers(0, 999),
)
def test_their_patterns_find_our_label(U, index, distance, dielectric, filling, state, draw):
    known = {"index": index, "layer_distance": distance, "dielectric": dielectric, "filling": filling}
    stem = file_stem(U, known, state, draw)
    for suffix in (".dat", ".png"):
        first = re.search(r"U(\d+.\d+)", stem + suffix)
        second = re.search(r"LDOS-Mu-I.*-U([0-9.]+)-.*", stem + suffix)
        assert first is not None
        assert second is not None
        assert float(first.group(1)) == float(second.group(1)) == pytest.approx(U, abs=5.1e-6)
    named = parse(stem + ".dat")
    assert named.U is not None
    assert abs(named.U - U) <= 5.1e-6
    assert named.fields["index"] == index
    assert named.fields["layer_distance"] == pytest.approx(distance, abs=0.0051)
    assert named.fields["filling"] == pytest.approx(filling, abs=0.0051)
    assert named.fields["seed"] == state
    if dielectric is None:
        assert "dielectric" not in named.fields
    else:
        assert named.fields["dielectric"] == pytest.approx(dielectric, rel=1e-5)
    assert parse(file_stem(U, known, state, draw + 1) + ".dat").state == named.state
    assert parse(file_stem(U, known, state + 1, draw) + ".dat").state != named.state


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("LDOS-Mu-I5-d2.74-eps10-U3.00000-n0.dat", "LDOS-Mu-I5-d2.74-eps10-U3.00000-n1.dat", True),
        ("LDOS-Mu-I5-U3.00000-s1-n0.dat", "LDOS-Mu-I5-U3.00000-s2-n0.dat", False),
        ("TBG-n4_U0.5.png", "TBG-n5_U0.5.png", False),  # no field of its own
        ("TBG_U0.5-n4.png", "TBG_U0.5-n5.png", True),
        ("TBG_U0.5-n4.png", "TBG_U1.5-n4.png", False),
        ("map-n4.png", "map-n5.png", False),  # a manifest has their labels
        ("map-s1-n4.png", "map-s1-n5.png", True),
    ],
)
def test_names_that_differ_in_the_number_of_the_draw_alone_are_of_one_state(one, other, alike):
    assert (parse(one).state == parse(other).state) == alike


@pytest.mark.parametrize(
    ("name", "U"),
    [
        ("LDOS-Mu-I9-U3.25-whatever.dat", 3.25),
        ("TBG_U0.5.png", 0.5),
        ("LDOS-Mu-I9-P2.0-U12.50000-eta0.01.txt", 12.5),
        ("U3.dat", None),
        ("LDOS-Mu.dat", None),
        ("U1.2.3-a.png", 1.2),
        ("xU300K.png", None),
        ("U1,3.png", None),
        ("a_U3.0eV.png", 3.0),
        ("a_U3.0eV_b.png", 3.0),
        ("a_U3.0_eV.png", 3.0),
        ("a_U3.0_U3.00.png", 3.0),
        ("U3.0_mu2.png", 3.0),
        ("LDOS-Mu-I9-U3-a.dat", 3.0),
    ],
)
def test_foreign_names(name, U):
    named = parse(name)
    assert named.U == U
    assert named.state == name.rsplit(".", 1)[0]


def test_two_labels_are_refused():
    with pytest.raises(InputError, match=r"two labels, U = 1 and 2"):
        parse("U1.0-LDOS-Mu-I9-U2.0-a.dat")
    with pytest.raises(InputError, match=r"two labels, U = 3 and 4\.5: rename it.*manifest\.csv"):
        parse("a_U3.0_U4.5.png")
    with pytest.raises(InputError, match=r"3 labels, U = 1 and 2 and 3"):
        parse("U1.0_U2.0_U3.0.png")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("m3_U1.3e-1.png", "1.3e-1"),
        ("U1.3E2_a.png", "1.3E2"),
        ("a_U3000.0meV.dat", "3000.0meV"),
        ("a_U3000.0_meV.dat", "3000.0_meV"),
        ("U3.0K.png", "3.0K"),
        ("U3.0eVs.png", "3.0eVs"),
        ("LDOS-Mu-I9-U1.3e-1-a.dat", "1.3e-1"),
    ],
)
def test_a_label_in_other_units_is_refused(name, read):
    with pytest.raises(InputError, match=rf"U = {read}, expected a plain number of eV: rename it.*manifest\.csv"):
        parse(name)
