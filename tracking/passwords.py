"""Passwords in addresses of servers and databases, which nothing that is written or told may hold."""

from __future__ import annotations

import re

__all__ = ["redact"]

# As SQLAlchemy reads an address: a password may hold any of / # ? [ and stand among the options instead.
_BEFORE_HOST = re.compile(r"(://[^:/]*):.+@", re.DOTALL)
_AMONG_OPTIONS = re.compile(r"([?&]\w*passw\w*=)[^&]+", re.IGNORECASE)


def redact(text: str) -> str:
    """Return ``text``, an address or with one in it, without its password.

    Examples
    --------
    >>> redact("--storage=postgresql://me:a/b#c@host/x")
    '--storage=postgresql://me:***@host/x'
    >>> redact("postgresql://host/x?user=me&password=secret")
    'postgresql://host/x?user=me&password=***'
    """
    return _BEFORE_HOST.sub(r"\1:***@", _AMONG_OPTIONS.sub(r"\1***", text))
