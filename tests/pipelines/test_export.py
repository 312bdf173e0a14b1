"""What an export says of the file that it wrote."""

from pipelines.export import describe


def test_the_agreement_of_the_full_graph_is_not_said_of_a_smaller_file():
    result = {"onnx": "a.onnx", "bytes": 1e6, "opset": 20, "parity": {"prediction": 1e-7}, "model": "stm-hubbard",
              "version": 1, "explanations": [], "refused": {}, "triton": []}  # fmt: skip
    assert "opset 20, agrees with torch to 1.0e-07" in describe({**result, "precision": {"kind": "fp32"}})
    costs = {"kind": "int8", "error": {"U": 0.02}, "budget": {"U": 0.03}, "novelty": 0.125}
    first, *lines = describe({**result, "precision": costs}).splitlines()
    assert "made of a full graph that agrees with torch to 1.0e-07 (relative); what int8 costs is below" in first
    assert "int8: U up to 0.02 off, budget 0.03" in lines
    assert "  p-value of novelty up to 0.125 off" in lines
