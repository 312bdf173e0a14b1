"""The exception of a failed export."""

from __future__ import annotations

__all__ = ["ExportError", "NoGraphError"]


class ExportError(RuntimeError):
    """The model could not be turned into a faithful ONNX file; no file was written.

    Not a user's mistake: the message says which step failed, or lists the errors of every output.
    """


class NoGraphError(ExportError):
    """Something of the model has no form in ONNX; the rest may have one."""
