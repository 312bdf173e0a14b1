"""A loaded model file: images in, named outputs out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from deploy.serving import metadata as about
from deploy.serving import provider as providers
from deploy.serving.image import as_batch
from deploy.serving.subgraph import extract
from stm_models.errors import InputError, unknown
from stm_models.machine import cores

__all__ = ["FOCUS", "INPUT", "OutputSpec", "Session"]

INPUT = "image"
FOCUS = "focus"
_FATAL = 4
_FLOAT = "tensor(float)"

# (name, shape) of one output; the batch is -1, and so is any other size that is not fixed.
OutputSpec = tuple[str, tuple[int, ...]]


class Session:
    """One model file, ready to run; safe to call from several threads at once.

    Parameters
    ----------
    path : path
        An ONNX file written by ``stm export``.
    provider : {"auto", "cpu", "cuda"}
        ``"auto"`` takes CUDA where it works, else the CPU, and says so in ``provider_note``.
    threads : int, optional
        Threads of one run; by default every core that this process may use.

    Attributes
    ----------
    metadata : ModelMetadata
    provider : str
        ``"cpu"`` or ``"cuda"``: what is really used.
    provider_note : str
        Why CUDA is not used; empty where nothing needs saying.

    Raises
    ------
    InputError
        For a file that is missing, damaged, or not one of ours, and for CUDA asked but not to be had.
    """

    def __init__(self, path: str | Path, *, provider: str = "auto", threads: int | None = None) -> None:
        if provider not in providers.PROVIDERS:
            raise unknown("provider", provider, providers.PROVIDERS)
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected at least 1: leave it out to use every core")
        self.path = Path(path)
        content = _read(self.path)
        self._settings = _settings(threads)
        self.provider, self.provider_note, self._session = _open(self.path, content, provider, self._settings)
        self.metadata = about.parse(
            self._session.get_modelmeta().custom_metadata_map,
            sha256=hashlib.sha256(content).hexdigest(),
            source=str(self.path),
        )
        self.outputs: tuple[OutputSpec, ...] = tuple(
            (out.name, _shape(out.shape)) for out in self._session.get_outputs()
        )
        self._check_graph()
        self._families = self._output_sets()
        self._content = content
        self._parts: dict[tuple[str, ...], onnxruntime.InferenceSession] = {self.output_names: self._session}
        self._lock = threading.Lock()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs that can be asked for."""
        return tuple(name for name, _ in self.outputs)

    def run(
        self,
        image: NDArray[Any],
        outputs: Sequence[str] = ("prediction",),
        focus: Sequence[int] | NDArray[Any] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Run the model; explanations that are not asked for are not computed.

        Parameters
        ----------
        image : (batch, C, H, W) float32
            In the unit of ``metadata.input``; other real numbers are converted.
        outputs : sequence of str
            Some of `output_names`.
        focus : (batch,) or (1,) integers, optional
            Of a model whose metadata say ``focusable``: the pixel ``y * W + x`` of the answered map that
            explanations explain, one for each image or for all; -1, and without it, the strongest one.

        Returns
        -------
        dict of str to ndarray
            One (batch, ...) float32 array per name asked.

        Raises
        ------
        InputError
            For a wrong dtype or shape, NaN or infinity, an unknown output, a focus that the model does not take or
            that is no pixel of its, or a result that is not finite.
        """
        batch = as_batch(image, self.metadata.input.shape)
        names = list(dict.fromkeys(outputs))
        for name in names:
            if name not in self.output_names:
                raise unknown("output", name, self.output_names)
        if not names:
            return {}
        feed = {INPUT: batch} if focus is None else {INPUT: batch, FOCUS: self._check_focus(focus, len(batch))}
        options = onnxruntime.RunOptions()
        options.log_severity_level = _FATAL
        results: dict[str, NDArray[np.float32]] = {}
        for asked in self._shares(names):
            part = self._part(asked)
            given = feed if _takes_focus(part) else {INPUT: batch}  # no explanation was asked for
            results |= dict(zip(asked, part.run(asked, given, options), strict=True))
        results = {name: results[name] for name in names}
        for name, values in results.items():
            if not np.isfinite(values).all():
                finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
                raise InputError(
                    f"{name} of image row {int(np.argmin(finite))} is not a finite number: "
                    f"the values are far from what the model takes ({self.metadata.input.unit})"
                )
        return results

    def warm_up(self) -> None:
        """Make every graph and run it once, so that the first request is not the slow one."""
        image = np.random.default_rng(0).random((1, *self.metadata.input.shape), dtype=np.float32)
        for names in self._families:
            self._part(names).run(list(names), {INPUT: image})

    def _output_sets(self) -> list[tuple[str, ...]]:
        """Return the sets of outputs that have a graph of their own, the smallest first.

        They are few and fixed, so that no sequence of requests can make the process grow: the prediction
        alone, all that is no explanation, that and one explanation. Several explanations are several runs.
        """
        costly = self.metadata.explanations
        cheap = tuple(name for name in self.output_names if name not in costly)
        sets = [("prediction",), cheap, *((*cheap, name) for name in costly)]
        ordered = (tuple(name for name in self.output_names if name in kept) for kept in sets)
        return list(dict.fromkeys(ordered))

    def _shares(self, names: Sequence[str]) -> list[list[str]]:
        """Return which of ``names`` are computed together: all that are no explanation with the first that is."""
        costly = [name for name in names if name in self.metadata.explanations]
        cheap = [name for name in names if name not in costly]
        return [[*cheap, *costly[:1]], *([name] for name in costly[1:])]

    def _part(self, outputs: Sequence[str]) -> onnxruntime.InferenceSession:
        names = next(family for family in self._families if set(outputs) <= set(family))
        found = self._parts.get(names)
        if found is None:
            with self._lock:
                if names not in self._parts:
                    part = extract(self._content, names)
                    self._parts[names] = _session(part, self._settings, self.provider)
                found = self._parts[names]
        return found

    def _check_focus(self, focus: Sequence[int] | NDArray[Any], rows: int) -> NDArray[np.int64]:
        if not self.metadata.focusable:
            raise InputError(
                f"{self.path}: the pixel that is explained cannot be chosen: leave focus out, or, if the model "
                "answers with maps, write the file anew with 'stm export'"
            )
        values = np.asarray(focus)
        _, height, width = self.metadata.input.shape
        if values.dtype.kind not in "iu" or values.shape not in ((rows,), (1,)):
            raise InputError(
                f"focus is {values.dtype} of shape {values.shape}: expected integers of shape ({rows},), one pixel "
                "y * width + x for each image, or (1,)"
            )
        if values.size and not (values.min() >= -1 and values.max() < height * width):
            wrong = values[(values < -1) | (values >= height * width)][0]
            raise InputError(
                f"focus is {wrong}: expected y * width + x from 0 to {height * width - 1} for maps of {height} x "
                f"{width} pixels, or -1 for the strongest"
            )
        return values.astype(np.int64)

    def _check_graph(self) -> None:
        expected = (-1, *self.metadata.input.shape)
        found = [(i.name, i.type, _shape(i.shape)) for i in self._session.get_inputs()]
        name, kind, shape = found[0] if len(found) == 1 else ("", "", ())
        fits = len(shape) == 4 and shape[0] == -1 and all(s in (-1, e) for s, e in zip(shape, expected, strict=True))
        if name != INPUT or kind != _FLOAT or not fits:
            raise InputError(
                f"{self.path}: its inputs are {found}, expected one float input {INPUT!r} "
                f"of shape {expected}: write the file with 'stm export'"
            )
        if self.metadata.focusable and not _takes_focus(self._session):
            raise InputError(
                f"{self.path}: its metadata say focusable, but it has no optional int64 input {FOCUS!r}: "
                "write the file with 'stm export'"
            )
        kinds = {out.name: out.type for out in self._session.get_outputs()}
        for needed in ("prediction", *self.metadata.explanations):
            if kinds.get(needed) != _FLOAT:
                raise InputError(
                    f"{self.path}: it has no float output {needed!r}, only {', '.join(kinds)}: "
                    "write the file with 'stm export'"
                )
        if "lower" in kinds and self.metadata.interval is None:
            raise InputError(
                f"{self.path}: its metadata lacks interval, without which nobody can judge the outputs 'lower' and "
                "'upper': write the file with 'stm export'"
            )
        shape = dict(self.outputs)["prediction"]
        # Maps (batch, 1, y, x) are the task's to read.
        width = (*shape, 0)[1]
        if len(shape) != 4 and width not in (-1, len(self.metadata.targets)):
            raise InputError(
                f"{self.path}: its prediction has {width} columns for {len(self.metadata.targets)} targets: "
                "write the file with 'stm export'"
            )


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the model file {path}: {error.strerror}; give a .onnx file") from error
    if not content:
        raise InputError(f"the model file {path} is empty: export it again")
    return content


def _settings(threads: int | None) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _FATAL
    # Set outright: on a shared node onnxruntime's own choice is every core of the machine.
    settings.intra_op_num_threads = threads or cores()
    return settings


def _open(
    path: Path, content: bytes, provider: str, settings: onnxruntime.SessionOptions
) -> tuple[str, str, onnxruntime.InferenceSession]:
    note = ""
    if provider != "cpu":
        session, note = _open_cuda(content, settings)
        if session is not None:
            return "cuda", "", session
        if provider == "cuda":
            raise InputError(f"provider 'cuda' asked for, but {note}: use --provider cpu or mend the CUDA set-up")
        note = f"running on the CPU: {note}"
    try:
        return "cpu", note, _session(content, settings, "cpu")
    except Exception as error:
        reason = " ".join(str(error).split())[-300:]  # onnxruntime begins with names of its functions
        raise InputError(
            f"{path} is damaged or no ONNX model that this version runs ({reason}): export or copy it again"
        ) from error


def _open_cuda(content: bytes, settings: onnxruntime.SessionOptions) -> tuple[onnxruntime.InferenceSession | None, str]:
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return None, "the installed onnxruntime has no CUDA (onnxruntime-gpu has)"
    if not providers.cuda_devices():
        return None, "no CUDA device was found"
    complaint = providers.load_cuda_libraries()
    try:
        session = _session(content, settings, "cuda")
    except Exception as error:
        return None, f"CUDA did not take the model ({' '.join(str(error).split())[:200]})"
    if session.get_providers()[0] != "CUDAExecutionProvider":
        return None, f"its libraries did not load ({complaint[:200] or 'install stm-lab[cuda]'})"
    return session, ""


def _session(content: bytes, settings: onnxruntime.SessionOptions, kind: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, settings, providers=providers.options(kind), enable_fallback=0)


def _takes_focus(session: onnxruntime.InferenceSession) -> bool:
    return any(
        one.name == FOCUS and one.type == "tensor(int64)" and len(one.shape) == 1
        for one in session.get_overridable_initializers()
    )


def _shape(shape: Sequence[Any]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in shape)
