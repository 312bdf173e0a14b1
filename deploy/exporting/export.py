"""Export a trained model to one self-describing ONNX file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.exporting import metadata as about
from deploy.exporting.config import ExportConfig
from deploy.exporting.errors import ExportError
from stm_models.config import validate
from stm_models.errors import InputError
from stm_models.explain.methods import METHODS, PATHS
from stm_models.files import output_directory

__all__ = ["ExportError", "ExportReport", "export"]

_ROOT = Path(__file__).resolve().parents[2]
_TAIL = 1500


@dataclass(frozen=True)
class ExportReport:
    """A file that was written and found faithful.

    Attributes
    ----------
    path : Path
        Absolute.
    sha256 : str
        Of the file, in hexadecimal.
    opset : int
    parity : dict of str to float
        Largest relative errors against torch, see `parity.check` and `parity.check_focus`; of a smaller file those of
        the full graph that it was made of.
    seconds : float
        Wall time of the whole export.
    size_bytes : int
    explanations : list of str
        Maps in the file.
    refused : dict of str to str
        Why others are not.
    precision : dict
        ``kind``; of a smaller one ``error``, ``budget`` and ``ends`` by target, and ``novelty``, see `precision.judge`;
        ``seconds``.
    """

    path: Path
    sha256: str
    opset: int
    parity: dict[str, float]
    seconds: float
    size_bytes: int
    explanations: list[str]
    refused: dict[str, str]
    precision: dict[str, Any]


def export(
    bundle_dir: str | Path, out: str | Path, metadata: Mapping[str, Any], config: ExportConfig | None = None
) -> ExportReport:
    """Write the model in ``bundle_dir`` as ``out``, having checked that the file does what the model does.

    Parameters
    ----------
    bundle_dir : path
        Folder with model.json and weights.safetensors.
    out : path
        The ONNX file, ending in ``.onnx``; an older one is replaced only when everything went well.
    metadata : mapping
        task, input, targets, explained, data, run_id, git_commit, metrics and distance; the first five as in
        the bundle. The exporter adds schema, opset, versions, answers, explanations, details, refused and created.
    config : ExportConfig, optional

    Raises
    ------
    InputError
        For a bundle that is missing, damaged or without a novelty, metadata that are incomplete or disagree
        with the bundle, a budget of a file of fp32, and an ``out`` that cannot be written.
    ExportError
        When the model cannot be expressed in ONNX or the file would not agree with it.

    Notes
    -----
    The work is done in a process of its own: tracing autograd can spoil later exports of the same process.
    The file's input is ``image`` (batch, C, H, W) float32 in physical units; its outputs are what `Bundle.answers`
    gives, ``prediction`` (batch, T) or maps (batch, T, H, W) the first, and maps (batch, C, H, W), or
    (batch, 1, H, W) for ``grad_cam``, that explain the target ``explained``. Of a model that answers with maps a
    second, optional input ``focus`` (batch or 1) int64 chooses the pixel ``y * W + x`` that is explained; -1, its
    value when it is not given, means the strongest one.
    onnxruntime computes all of them in every run; the part that computes the prediction can be cut out of the
    graph and holds nothing of the rest. A map that cannot be expressed in ONNX is left out, and metadata say why.
    """
    start = time.perf_counter()
    given = about.check(metadata)
    config = config or validate(ExportConfig, {}, "export")
    if config.budget and config.precision == "fp32":
        raise InputError(
            f"export.budget is {config.budget}, but a file of fp32 is held against the model itself: "
            "leave it out, or give --precision fp16 or int8"
        )
    bundle_dir, out = Path(bundle_dir).absolute(), Path(out).absolute()
    if not bundle_dir.is_dir():
        raise InputError(f"no model bundle at {bundle_dir}: give the folder that train wrote")
    if out.suffix != ".onnx":
        raise InputError(f"out is {out}: expected a file name that ends in .onnx")
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder; choose another file name")
    output_directory(out.parent)
    request = {
        "bundle": str(bundle_dir), "out": str(out), "metadata": given, "config": config.model_dump(), "left_out": {},
    }  # fmt: skip
    reply = _ask(request)
    if reply.get("error") == "graph":
        reply = _without_those_that_fail(request, reply)
    if reply.get("error") == "input":
        raise InputError(reply["message"])
    if "error" in reply:
        raise ExportError(reply["message"])
    return ExportReport(path=out, seconds=time.perf_counter() - start, **reply)


def _without_those_that_fail(request: Mapping[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    """Ask again without the maps that have no ONNX form; each is tried in a process of its own."""
    if "error" in _ask({**request, "trial": None}):
        return reply
    traced = [name for name in METHODS if name not in PATHS]
    tried = {name: _ask({**request, "trial": name}) for name in traced}
    left_out = {name: found["message"] for name, found in tried.items() if found.get("error") == "graph"}
    if "gradient" in left_out:
        left_out |= dict.fromkeys(PATHS, "it is made of the gradient, which has no ONNX form")
    return _ask({**request, "left_out": left_out}) if left_out else reply


def _ask(request: Mapping[str, Any]) -> dict[str, Any]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "deploy.exporting.worker"],
        input=json.dumps(request),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    try:
        reply: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        how = f"was ended by signal {-done.returncode}" if done.returncode < 0 else "failed"
        tail = done.stderr.strip()[-_TAIL:] or "it said nothing; perhaps it ran out of memory"
        raise ExportError(f"the exporting process {how}, nothing was written:\n{tail}") from None
    return reply
