"""One module for each command, and what wires the packages."""

import stm_models  # noqa: F401  (before any import of onnxruntime, whose telemetry it switches off)
