"""What is installed here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

__all__ = ["PACKAGES", "installed", "version_of"]

PACKAGES = (
    "numpy", "scipy", "numba", "finufft", "xarray", "zarr", "torch", "torchvision", "timm", "scikit-learn", "mlflow",
    "optuna", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "shap",
)  # fmt: skip
"""Those that results depend on."""


def version_of(name: str) -> str | None:
    """Return the version of a distribution; ``None`` where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def installed(names: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of those that are installed, by name."""
    return {name: found for name in names if (found := version_of(name)) is not None}
