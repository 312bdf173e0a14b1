"""Science of the platform: physics, data, signals, tasks, networks, training, explanations.

Nothing here needs a tracking store or a server; a notebook can use it alone.
"""

import os

# onnxruntime's wheel keeps telemetry, and writes an identity to HOME and TMPDIR, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
