"""What the machine does while a run goes on: processor, memory, disk and GPUs, under MLflow's names."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from stm_models.errors import InputError

__all__ = ["interval", "sample"]

_DEFAULT = 10.0


def interval() -> float:
    """Return the seconds between two samples: STM_SYSTEM_METRICS, else 10; 0 for none.

    Raises
    ------
    InputError
        When the variable is no such number.
    """
    text = os.environ.get("STM_SYSTEM_METRICS", "").strip()
    try:
        seconds = float(text) if text else _DEFAULT
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"STM_SYSTEM_METRICS is {text!r}: expected seconds between samples, or 0 for none")
    return seconds


def sample() -> dict[str, float]:
    """Return the present values; percentages of the processor are since the last call."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(Path.cwd()))
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
        "disk_usage_percentage": disk.percent,
        "disk_available_megabytes": disk.free / 1e6,
        **_gpus(),
    }
    return {f"system/{name}": float(value) for name, value in values.items()}


def _gpus() -> dict[str, float]:
    try:
        import pynvml
    except ImportError:
        return {}
    values: dict[str, float] = {}
    try:
        pynvml.nvmlInit()
        for number in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(number)
            memory = pynvml.nvmlDeviceGetMemoryInfo(device)
            values[f"gpu_{number}_utilization_percentage"] = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
            values[f"gpu_{number}_memory_usage_megabytes"] = memory.used / 1e6
            values[f"gpu_{number}_memory_usage_percentage"] = 100 * memory.used / memory.total
    except pynvml.NVMLError:
        return values
    return values
