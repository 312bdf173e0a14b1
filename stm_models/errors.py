"""The exception for a user's mistake, and the one for a training that its parameters do not suit."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "TrainingFailed", "one_line", "unknown"]


class InputError(Exception):
    """Bad input: the message says what was wrong, the value got, what was expected and the way out.

    The command line prints it as one line and exits with code 2; the server answers 400 with it.
    """


class TrainingFailed(InputError):
    """A training that cannot go on with its parameters: it diverged, or memory did not suffice; others may do."""


def one_line(error: BaseException, most: int = 120) -> str:
    """Return what an error of another package says, or its name where it says nothing, as one line for a message.

    >>> one_line(ValueError("no such     chunk")), one_line(KeyError())
    ('no such chunk', 'KeyError')

    Parameters
    ----------
    error : BaseException
    most : int
        Characters at most.
    """
    return " ".join(str(error).split())[:most] or type(error).__name__


def unknown(what: str, got: object, choices: Iterable[object]) -> InputError:
    """Return the error for a name that does not exist, with the choices and the nearest one.

    Parameters
    ----------
    what : str
        Kind of thing, e.g. ``"preset"``.
    got : object
        The name that was given.
    choices : iterable
        Every valid name.
    """
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(got), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {what} {str(got)!r}: choose from {', '.join(names) or 'none'}{hint}")
