"""The search syntax of the table: words, and comparisons of metrics, parameters and tags.

``network=conv unseen_mae<0.1 tag.data.digest=4f1c* -outcome=failed "two words"``
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stm_models.errors import InputError
from tracking.rows import RunRow
from tracking.ui.values import Values

__all__ = ["Term", "keep", "keys", "parse"]

_TOKEN = re.compile(r'(-?)((?:"[^"]*"|[^\s"])+)')
_COMPARISON = re.compile(r'([\w.\-/:]+|"[^"]*")(<=|>=|!=|=|<|>|~)(.*)', re.DOTALL)
_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SYNTAX = "expected words, or KEY=VALUE, KEY!=VALUE, KEY~TEXT, KEY<NUMBER, with - before what must not be"


@dataclass(frozen=True)
class Term:
    """One condition: a word anywhere (no key), or a comparison of what ``key`` names with ``value``."""

    negated: bool
    key: str
    comparison: str
    value: str


def parse(query: str) -> list[Term]:
    """Read a query.

    Raises
    ------
    InputError
        Where a quotation has no end, a comparison no value, or ``<`` and the like no number.
    """
    if query.count('"') % 2:
        raise InputError(f"the search {query!r} has a quotation mark without an end: {_SYNTAX}")
    terms = []
    for match in _TOKEN.finditer(query):
        negated, token = bool(match[1]), match[2]
        compared = _COMPARISON.fullmatch(token)
        if compared is None:
            terms.append(Term(negated, "", "~", _plain(token)))
            continue
        key, comparison, value = _plain(compared[1]), compared[2], _plain(compared[3])
        if not value and comparison not in ("=", "!="):
            raise InputError(f"the search has nothing after {key}{comparison}: {_SYNTAX}")
        if comparison[0] in "<>" and _number(value) is None:
            raise InputError(f"the search compares {key} {comparison} {value!r}, which is no number: {_SYNTAX}")
        terms.append(Term(negated, key, comparison, value))
    return terms


def keys(query: str) -> list[str]:
    """Return what a query compares; nothing of one that cannot be understood."""
    try:
        return [term.key for term in parse(query) if term.key]
    except InputError:
        return []


def keep(rows: Sequence[RunRow], query: str, values: Values) -> list[RunRow]:
    """Return the rows that satisfy every term of ``query``.

    Raises
    ------
    InputError
        As `parse`, or for a key that no run has; the nearest is named.
    """
    terms = parse(query)
    for term in terms:
        if term.key and rows and not values.knows(term.key):
            raise _unknown(term.key, values.keys)
    return [row for row in rows if all(_holds(term, row, values) for term in terms)]


def _holds(term: Term, row: RunRow, values: Values) -> bool:
    found = _anywhere(term.value, row) if not term.key else _compare(term, values.of(row, term.key))
    return found is not term.negated


def _anywhere(word: str, row: RunRow) -> bool:
    sought = word.casefold()
    texts = (row.name, row.experiment, row.outcome, row.id, *row.params.values(), *row.tags.values())
    return any(sought in text.casefold() for text in texts)


def _compare(term: Term, value: float | str | None) -> bool:
    if value is None:
        return term.comparison == "!="
    sought = _number(term.value)
    mine = value if isinstance(value, float) else _number(value)
    if term.comparison in _NUMBERS and sought is not None and mine is not None:
        return _NUMBERS[term.comparison](mine, sought)
    if term.comparison[0] in "<>":
        return False
    text, wanted = str(value).casefold(), term.value.casefold()
    if term.comparison == "~":
        return wanted in text
    return _fits(text, wanted.replace("…", "*")) is (term.comparison == "=")


def _fits(text: str, pattern: str) -> bool:
    """Tell whether a text fits a pattern, ``*`` for any characters: of many, a regular expression takes days."""
    first, *others = pattern.split("*")
    if not others:
        return text == first
    *middle, last = others
    start, end = len(first), len(text) - len(last)
    if start > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for piece in middle:
        found = text.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return True


def _unknown(key: str, keys: Sequence[str]) -> InputError:
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.5) or [one for one in keys if key in one][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else "see the list of columns for what they have"
    return InputError(f"the search asks for {key!r}, which is no metric, parameter or tag of these runs: {hint}")


def _plain(text: str) -> str:
    return text.replace('"', "")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
