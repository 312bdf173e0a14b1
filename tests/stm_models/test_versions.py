"""What is installed."""

import importlib.metadata

from stm_models.versions import PACKAGES, installed, version_of


def test_versions_are_those_of_the_distributions_that_are_there():
    assert version_of("numpy") == importlib.metadata.version("numpy")
    assert version_of("no-such-distribution") is None
    assert installed(("no-such-distribution", "numpy")) == {"numpy": version_of("numpy")}
    assert {"numpy", "torch", "onnx"} <= set(installed()) <= set(PACKAGES)
