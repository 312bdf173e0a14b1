"""The tables of `simulate` keys in the documentation are those of the fields."""

import importlib
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {
    "physics.md": ("stm_models.tasks.hubbard.config", "HubbardSimulation"),
    "impurity.md": ("stm_models.tasks.impurity.config", "ImpuritySimulation"),
}


def _shown(value):
    """A default as one would write it after ``--set``, a range of one value as that value."""
    if isinstance(value, tuple):
        if len(value) == 1 or (len(value) == 2 and value[0] == value[1]):
            return _shown(value[0])
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _row(name, field):
    default = "" if field.is_required() else f"`{_shown(field.default)}`"
    return f"| `{name}` | {default} | {field.description} |"


@pytest.mark.parametrize("page", PAGES)
def test_table_of_keys_is_that_of_the_fields(page):
    module, name = PAGES[page]
    fields = getattr(importlib.import_module(module), name).model_fields
    assert all(field.description and "|" not in field.description for field in fields.values())
    expected = ["| `simulate.` | default | what it is |", "|---|---|---|", *(_row(*each) for each in fields.items())]
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    assert expected[0] in lines, "\n".join(expected)
    start = lines.index(expected[0])
    end = next((row for row in range(start, len(lines)) if not lines[row].startswith("|")), len(lines))
    assert lines[start:end] == expected, "the table should be\n" + "\n".join(expected)
