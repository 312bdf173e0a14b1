"""One spelling of the names by which a server is asked."""

import pytest

from stm_models.hosts import host_name, is_loopback, spelt


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("127.0.0.1:8081", "127.0.0.1"), ("Localhost", "localhost"), ("[::1]", "::1"), ("[0:0:0:0:0:0:0:1]:80", "::1"),
        ("[2001:DB8::0:1]:443", "2001:db8::1"), (" stm.example:80 ", "stm.example"), ("", ""), ("[", ""),
    ],
)  # fmt: skip
def test_a_host_header_names_its_host_in_one_spelling(header, name):
    assert host_name(header) == name == spelt(name)


def test_loopback():
    assert all(map(is_loopback, ("localhost", "LOCALHOST", "127.0.0.2", "::1", "0:0:0:0:0:0:0:1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "stm.example", "")))
