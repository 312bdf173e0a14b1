"""Models as files, and what serves them."""

import stm_models  # noqa: F401  (before any import of onnxruntime, whose telemetry it switches off)
