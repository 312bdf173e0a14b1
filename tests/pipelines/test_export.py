"""What an export says of the file that it wrote."""

import argparse

import pytest

from pipelines.export import _config, describe
from stm_models.errors import InputError


def config(*assignments, precision=None):
    return _config(argparse.Namespace(assignments=list(assignments), precision=precision))


def test_maps_are_named_singly_with_commas_as_a_list_or_by_a_word():
    assert config().explanations == "cheap"
    assert config("export.explanations=all").explanations == "all"
    assert config("export.explanations=gradient").explanations == ("gradient",)
    assert config("export.explanations=gradient, grad_cam").explanations == ("gradient", "grad_cam")
    assert config("export.explanations=[gradient, grad_cam]").explanations == ("gradient", "grad_cam")
    assert config("export.explanations=none").explanations == config("export.explanations=[]").explanations == ()
    with pytest.raises(
        InputError, match=r"unknown explanation 'gradeint': expected some of gradient, .* or all, cheap"
    ):
        config("export.explanations=gradeint")


def test_the_precision_is_given_once():
    assert config().precision == "fp32"
    assert config(precision="fp16").precision == "fp16"
    assert config("export.precision=int8").precision == "int8"
    assert config("export.precision=int8", precision="int8").precision == "int8"
    for given in ("fp16", "fp32"):
        with pytest.raises(InputError, match=f"--precision is {given} and export.precision int8: give one of them"):
            config("export.precision=int8", precision=given)


def test_a_budget_is_not_negative():
    assert config("export.budget.U=0").budget == {"U": 0.0}
    with pytest.raises(InputError, match="greater than or equal to 0"):
        config("export.budget.U=-1")


def test_the_agreement_of_the_full_graph_is_not_said_of_a_smaller_file():
    result = {"onnx": "a.onnx", "bytes": 1e6, "opset": 20, "parity": {"prediction": 1e-7}, "model": "stm-hubbard",
              "version": 1, "explanations": [], "refused": {}, "triton": []}  # fmt: skip
    assert "opset 20, agrees with torch to 1.0e-07" in describe({**result, "precision": {"kind": "fp32"}})
    costs = {"kind": "int8", "error": {"U": 0.02}, "budget": {"U": 0.03}, "novelty": 0.125}
    first, *lines = describe({**result, "precision": costs}).splitlines()
    assert "made of a full graph that agrees with torch to 1.0e-07 (relative); what int8 costs is below" in first
    assert "int8: U up to 0.02 off, budget 0.03" in lines
    assert "  p-value of novelty up to 0.125 off" in lines
