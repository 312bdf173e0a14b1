"""What `stm explain` is asked for, and what absent pixels look like."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipelines.explainers import chosen
from stm_models.errors import InputError


def _session(*explanations):
    return SimpleNamespace(path="a.onnx", metadata=SimpleNamespace(explanations=explanations))


@pytest.mark.parametrize("text", [None, "", "all"])
def test_a_file_without_maps_is_refused_whatever_is_asked_of_it(text):
    with pytest.raises(InputError, match=r"has no explanations: .*--method shap"):
        chosen(text, _session())


def test_methods_are_taken_once_and_in_their_order():
    session = _session("gradient", "guided")
    assert chosen(None, session) == ["gradient"]
    assert chosen("shap, all, gradient", session) == ["shap", "gradient", "guided"]
    assert chosen("shap,all", _session()) == ["shap"]
