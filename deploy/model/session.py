"""A loaded model file: images in, named outputs out."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from deploy.model import metadata as about
from deploy.model.contract import FOCUS, INPUT, OutputSpec, check_graph, output_specs, takes_focus
from deploy.model.image import as_batch
from deploy.model.provider import Runtime, open_model, open_part
from deploy.model.stopping import options_here, run_options
from deploy.model.subgraph import extract
from stm_models.errors import InputError, unknown

__all__ = ["FOCUS", "INPUT", "OutputSpec", "Session"]


class Session:
    """One model file, ready to run; safe to call from several threads at once.

    Parameters
    ----------
    path : path
        An ONNX file written by ``stm export``.
    provider, threads, allow_cpu, tf32
        See `deploy.model.provider.Runtime`.

    Attributes
    ----------
    metadata : ModelMetadata
    outputs : tuple of (name, shape)
    output_sizes : dict of str to int
        Numbers of an output for one image; a size that is not fixed counts as 1.
    provider : str
        ``"cpu"`` or ``"cuda"``: what is really used.
    provider_note : str
        Why CUDA is not used; empty where nothing needs saying.

    Raises
    ------
    InputError
        For a file that is missing, damaged, or not one of ours, and for CUDA asked but not to be had.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        provider: str = "auto",
        threads: int | None = None,
        allow_cpu: bool = False,
        tf32: bool = False,
    ) -> None:
        self.path = Path(path)
        self._runtime = Runtime(provider, threads, allow_cpu, tf32)
        self._content = _read(self.path)
        self.provider, self.provider_note, whole = open_model(self._content, str(self.path), self._runtime)
        self.metadata = about.parse(
            whole.get_modelmeta().custom_metadata_map,
            sha256=hashlib.sha256(self._content).hexdigest(),
            source=str(self.path),
        )
        check_graph(whole, self.metadata, str(self.path))
        self.outputs: tuple[OutputSpec, ...] = output_specs(whole)
        self.output_sizes = {name: math.prod(max(size, 1) for size in shape[1:]) for name, shape in self.outputs}
        self.output_names: tuple[str, ...] = tuple(name for name, _ in self.outputs)
        self.answer_names = tuple(name for name in self.output_names if name not in self.metadata.explanations)
        self._known = frozenset(self.output_names)
        self._shape = self.metadata.input.shape
        self._families = self._output_sets()
        # The graph of everything is one of them only where there is one explanation; else it is let go.
        self._parts: dict[tuple[str, ...], onnxruntime.InferenceSession] = (
            {self.output_names: whole} if self.output_names in self._families else {}
        )
        self._plans: dict[tuple[str, ...], tuple[tuple[onnxruntime.InferenceSession, list[str], bool], ...]] = {}
        self._lock = threading.Lock()
        self._options = run_options()

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
            Some of ``output_names``.
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
        batch = as_batch(image, self._shape)
        names = tuple(outputs)
        if not self._known.issuperset(names):
            raise unknown("output", next(name for name in names if name not in self._known), self.output_names)
        chosen = None if focus is None else self._check_focus(focus, len(batch))
        results: dict[str, NDArray[np.float32]] = {}
        for part, kept, focusable in self._plan(names):
            feed: dict[str, NDArray[Any]] = {INPUT: batch}
            if chosen is not None and focusable:
                feed[FOCUS] = chosen
            results.update(zip(kept, self._compute(part, kept, feed), strict=True))
        for name, values in results.items():
            if not (math.isfinite(values.item()) if values.size == 1 else np.isfinite(values).all()):
                finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
                raise InputError(
                    f"{name} of image row {int(np.argmin(finite))} is not a finite number: "
                    f"the values are far from what the model takes ({self.metadata.input.unit})"
                )
        return {name: results[name] for name in names} if len(names) > 1 else results

    def warm_up(self) -> None:
        """Make every graph and run it once, so that the first request is not the slow one."""
        image = np.random.default_rng(0).random((1, *self._shape), dtype=np.float32)
        for names in self._families:
            self._compute(self._part(names), list(names), {INPUT: image})

    def _compute(
        self, part: onnxruntime.InferenceSession, names: list[str], feed: dict[str, NDArray[Any]]
    ) -> list[NDArray[np.float32]]:
        options = options_here() or self._options
        if self.provider == "cpu" or FOCUS in feed:  # an optional input cannot be bound
            return part.run(names, feed, options)
        # Bound, the results are copied once, from the device straight to where they are read.
        binding = part.io_binding()
        for name, values in feed.items():
            binding.bind_cpu_input(name, values)
        for name in names:
            binding.bind_output(name, "cpu")
        part.run_with_iobinding(binding, options)
        return binding.copy_outputs_to_cpu()

    def _output_sets(self) -> list[tuple[str, ...]]:
        """Return the sets of outputs that have a graph of their own, the smallest first.

        They are few and fixed, so that no sequence of requests can make the process grow: the prediction
        alone, all that is no explanation, that and one explanation. Several explanations are several runs.
        """
        cheap = self.answer_names
        sets = [("prediction",), cheap, *((*cheap, name) for name in self.metadata.explanations)]
        ordered = (tuple(name for name in self.output_names if name in kept) for kept in sets)
        return list(dict.fromkeys(ordered))

    def _plan(self, names: tuple[str, ...]) -> tuple[tuple[onnxruntime.InferenceSession, list[str], bool], ...]:
        """Return which graphs are run for ``names``, what each gives, and whether it takes a focus."""
        plan = self._plans.get(names)
        if plan is None:
            steps = []
            for family, kept in self._steps(tuple(dict.fromkeys(names))):
                part = self._part(family)
                steps.append((part, kept, takes_focus(part)))
            plan = tuple(steps)
            if len(self._plans) < 64:  # so many orders of names may be asked for
                self._plans[names] = plan
        return plan

    def _steps(self, names: tuple[str, ...]) -> list[tuple[tuple[str, ...], list[str]]]:
        """Return one run for each explanation asked for, the first with all else."""
        costly = [name for name in names if name in self.metadata.explanations]
        first = [name for name in names if name not in costly or name in costly[:1]]
        return [
            (next(family for family in self._families if set(wanted) <= set(family)), wanted)
            for wanted in [first, *([name] for name in costly[1:])]
            if wanted
        ]

    def _part(self, family: tuple[str, ...]) -> onnxruntime.InferenceSession:
        found = self._parts.get(family)
        if found is None:
            with self._lock:
                if family not in self._parts:
                    self._parts[family] = open_part(extract(self._content, family), self._runtime, self.provider)
                found = self._parts[family]
        return found

    def _check_focus(self, focus: Sequence[int] | NDArray[Any], rows: int) -> NDArray[np.int64]:
        if not self.metadata.focusable:
            raise InputError(
                f"{self.path.name}: the pixel that is explained cannot be chosen: leave focus out, or, if the model "
                "answers with maps, write the file anew with 'stm export'"
            )
        values = np.asarray(focus)
        _, height, width = self._shape
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


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the model file {path}: {error.strerror}; give a .onnx file") from error
    if not content:
        raise InputError(f"the model file {path} is empty: export it again")
    return content
