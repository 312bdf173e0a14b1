"""Rows of data sets that are asked for."""

from types import SimpleNamespace

import pytest

from deploy.model import questions
from deploy.model.questions import Reading, parse_samples, read_question
from stm_models.errors import InputError


@pytest.mark.parametrize(
    ("rows", "said"),
    [("108", "--sample is 108"), ("0:1000", "--samples asks for 108"), ("3,200", "--samples asks for 200")],
)
def test_a_row_that_is_not_there_is_told_with_the_option_that_asked(rows, said, tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "load_fitting", lambda *_, **__: range(108))
    session = SimpleNamespace(metadata=None)
    with pytest.raises(InputError) as caught:
        read_question(tmp_path, session, Reading(samples=parse_samples(rows)))
    assert str(caught.value) == f"{said}: {tmp_path} has samples 0 to 107"
