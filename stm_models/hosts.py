"""Names of this machine, and of a server in a request's Host header."""

from __future__ import annotations

import ipaddress

__all__ = ["LOOPBACK", "host_name", "is_loopback", "spelt"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_name(header: str) -> str:
    """Return the host that a Host header names, without its port, as `spelt`.

    >>> host_name("LocalHost:8081"), host_name("[0:0:0:0:0:0:0:1]:8081")
    ('localhost', '::1')
    """
    host = header.strip().lower()
    return spelt(host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0])


def spelt(name: str) -> str:
    """Return a name or address in the one way that it is compared in.

    >>> spelt("[0:0:0:0:0:0:0:1]"), spelt("STM.example.org.")
    ('::1', 'stm.example.org')
    """
    name = name.strip().lower()
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    name = name.removesuffix(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name
