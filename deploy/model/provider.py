"""Choosing where onnxruntime computes, and saying what was really chosen."""

from __future__ import annotations

import contextlib
import ctypes
import io
from dataclasses import dataclass
from typing import Any

import onnxruntime

from deploy.model.on_cuda import adapted
from stm_models.errors import InputError, one_line, unknown
from stm_models.machine import cores

__all__ = ["PROVIDERS", "Runtime", "cuda_devices", "load_cuda_libraries", "open_model", "open_part", "options"]

PROVIDERS = ("auto", "cpu", "cuda")
_FATAL = 4


@dataclass(frozen=True)
class Runtime:
    """How a model is to be run.

    Attributes
    ----------
    provider : {"auto", "cpu", "cuda"}
        ``"auto"`` takes CUDA where it works, else the CPU.
    threads : int, optional
        Threads of one run on the CPU; by default every core that this process may use.
    allow_cpu : bool
        Whether ``"cuda"`` may fall back to the CPU, with a note, instead of being an error.
    tf32 : bool
        Whether CUDA may round products to ten bits of mantissa: faster, too coarse for parity with the model that was
        exported.

    Raises
    ------
    InputError
        For an unknown provider, or less than one thread.
    """

    provider: str = "auto"
    threads: int | None = None
    allow_cpu: bool = False
    tf32: bool = False

    def __post_init__(self) -> None:
        if self.provider not in PROVIDERS:
            raise unknown("provider", self.provider, PROVIDERS)
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}, expected at least 1")

    def settings(self) -> onnxruntime.SessionOptions:
        """Return onnxruntime's options of one session."""
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _FATAL
        # Set outright: on a shared node onnxruntime's own choice is every core of the machine.
        settings.intra_op_num_threads = self.threads or cores()
        return settings


def cuda_devices() -> int:
    """Count the CUDA devices that the driver sees; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def load_cuda_libraries() -> str:
    """Load CUDA's and cuDNN's libraries from installed packages; return what onnxruntime complained of."""
    said = io.StringIO()
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is None:
        return ""
    try:
        # It prints its complaints to stdout, where a command's JSON goes.
        with contextlib.redirect_stdout(said):
            preload()
    except (OSError, RuntimeError) as error:
        said.write(str(error))
    return " ".join(said.getvalue().split())


def options(kind: str, tf32: bool = False) -> list[Any]:
    """Return onnxruntime's provider list for ``"cpu"`` or ``"cuda"``."""
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"use_tf32": int(tf32)}), "CPUExecutionProvider"]


def open_model(content: bytes, source: str, runtime: Runtime) -> tuple[str, str, onnxruntime.InferenceSession]:
    """Open a model file's content where ``runtime`` says.

    Parameters
    ----------
    source : str
        How to call the file in an error.

    Returns
    -------
    kind : {"cpu", "cuda"}
        Where it really runs.
    note : str
        Why that is not CUDA; empty where nothing needs saying.
    session : onnxruntime.InferenceSession

    Raises
    ------
    InputError
        For a damaged file, or CUDA asked for, not to be had, and no leave to use the CPU.
    """
    note = why = ""
    if runtime.provider != "cpu":
        session, why = _open_cuda(content, runtime)
        if session is not None:
            return "cuda", "", session
        note = f"running on the CPU: {why}"
    try:  # first, since CUDA takes no damaged file either
        on_cpu = open_part(content, runtime, "cpu")
    except Exception as error:
        reason = " ".join(str(error).split())[-300:]  # onnxruntime begins with names of its functions
        raise InputError(
            f"{source} is damaged or no ONNX model that this version runs ({reason}): export or copy it again"
        ) from error
    if runtime.provider == "cuda" and not runtime.allow_cpu:
        raise InputError(f"provider 'cuda' asked for, but {why}: use --provider auto or cpu, or mend the CUDA set-up")
    return "cpu", note, on_cpu


def open_part(content: bytes, runtime: Runtime, kind: str) -> onnxruntime.InferenceSession:
    """Open one graph on ``kind``; never falls back to another provider by itself."""
    if kind == "cuda":
        content = adapted(content)
    providers = options(kind, tf32=True) if runtime.tf32 else options(kind)
    return onnxruntime.InferenceSession(content, runtime.settings(), providers=providers, enable_fallback=0)


def _open_cuda(content: bytes, runtime: Runtime) -> tuple[onnxruntime.InferenceSession | None, str]:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return None, "the installed onnxruntime has no CUDA (onnxruntime-gpu has)"
    if not cuda_devices():
        return None, "no CUDA device was found"
    complaint = load_cuda_libraries()
    try:
        session = open_part(content, runtime, "cuda")
    except Exception as error:
        return None, f"CUDA did not take the model ({one_line(error, 200)})"
    if session.get_providers()[0] != "CUDAExecutionProvider":
        return None, f"its libraries did not load ({complaint[:200] or 'install stm-lab[cuda]'})"
    return session, ""
