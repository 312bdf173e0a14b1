"""Our server against onnxruntime alone and against other people's: CPU milliseconds per request, requests per second.

All serve one ONNX file (``--network conv``: on images averaged over 4 x 4 pixels; ``lattice``, the default for
FT-LDOS images; or ``timm:mobilenetv3_small_100``, in between at 256 pixels; the prediction alone), with one thread,
one run at once and one worker, and are asked about the same eight images by the same load generator, whose CPU time
is not counted. Ours is asked with binary tensors and with JSON; MLflow, BentoML and LitServe in their usual JSON;
bare FastAPI with the image's bytes. Each answer is compared, with the session's own beforehand and byte by byte under
load. ``bentoml``, ``litserve`` and ``fastapi`` live in environments that are made from ``benchmarks/peers`` (with uv,
or pip); one that cannot be had is said to be missing.
A ratio is of CPU time per request at eight connections, the median over rounds; ``over_raw`` is of the same over
onnxruntime alone in this process, in turns; ``grad_cam_rate`` (``gradient_rate`` of ``lattice``) is the share of the
plain rate that is left with that map in every answer, at eight connections too.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _peers
import numpy as np
import onnxruntime
from _peers import DIALECTS, Dialect, Missing
from _served import METHODS, write_models
from _timing import parser_of, report
from numpy.typing import NDArray

from deploy.serving.protocol import encode_request

SERVERS = {
    "ours": ("ours_binary", "ours_json"),
    **{name: (name,) for name in ("fastapi", "mlflow", "bentoml", "litserve")},
}
IMAGES = 8
TOLERANCE = 1e-4
Array = NDArray[np.float32]


class Bench:
    """One run: what is measured, and where its files are."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        self.sides = (64,) if quick else (64, 256)
        self.connections = (8,) if quick else (1, 8, 32)
        self.seconds, self.rounds = (1.0, 1) if quick else (3.0, 2)
        self.wrong = 0
        self.missing: dict[str, str] = {}

    def load(self, port: int, tree: _peers.Tree, connections: int, pairs: Path, seconds: float) -> dict[str, float]:
        """Ask for a while; return rates, and CPU time per request of the server's processes."""
        command = [sys.executable, Path(__file__).with_name("_load.py"), port, connections, seconds, pairs]
        before = tree.cpu_seconds()
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        spent = tree.cpu_seconds() - before
        if done.returncode:
            raise Missing(f"it failed under load: {done.stderr.strip()[-300:]}")
        found: dict[str, float] = json.loads(done.stdout)
        self.wrong += int(found["wrong"])
        rate = found["requests"] / found["seconds"]
        return {"cpu_ms": 1000 * spent / found["requests"], "per_s": rate, **found}

    def pairs(
        self, port: int, tree: _peers.Tree, name: str, dialect: Dialect, images: Array, expected: Array | None
    ) -> Path:
        """Ask about every image, compare with ``expected``, and write what the load generator sends and expects."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}_", dir=self.folder))
        for row, image in enumerate(images):
            request, answer, values = _peers.ask(port, tree, dialect, image[None], 600)
            if expected is not None:
                error = np.abs(values.reshape(-1) - expected[row]).max() / np.abs(expected[row]).max()
                self.wrong += int(not error <= TOLERANCE)
            (folder / f"{row}.request").write_bytes(request)
            (folder / f"{row}.answer").write_bytes(answer)
        return folder

    def server(self, name: str, model: Path, images: Array, expected: Array) -> dict[str, dict[int, dict[str, float]]]:
        """Measure one server in every dialect at every number of connections."""
        found: dict[str, dict[int, dict[str, float]]] = {}
        with _peers.serving(name, model, images.shape[-1], self.folder) as (port, tree):
            for dialect in SERVERS[name]:
                pairs = self.pairs(port, tree, dialect, DIALECTS[dialect], images, expected)
                self.load(port, tree, 8, pairs, 0.5)
                found[dialect] = {c: self.load(port, tree, c, pairs, self.seconds) for c in self.connections}
        return found

    def over_raw(self, model: Path, images: Array, expected: Array) -> list[float]:
        """Compare CPU time per request, at eight connections, to that of onnxruntime alone, alternately."""
        session, ratios = open_alone(model), []
        with _peers.serving("ours", model, images.shape[-1], self.folder) as (port, tree):
            asked = self.pairs(port, tree, "in_turns", DIALECTS["ours_binary"], images, expected)
            self.load(port, tree, 8, asked, 0.5)
            sides = {
                "served": lambda: self.load(port, tree, 8, asked, self.seconds / 2),
                "alone": lambda: raw(session, images, self.seconds / 2),
            }
            for number in range(2 if self.quick else 8):
                order = ("served", "alone") if number % 2 else ("alone", "served")
                spent = {name: sides[name]()["cpu_ms"] for name in order}
                ratios.append(spent["served"] / spent["alone"])
        return ratios

    def explained(self, model: Path, images: Array, method: str) -> dict[str, float]:
        """Compare the rate of answers with an explanation to that without, alternately."""

        def binary(outputs: list[str]) -> Dialect:
            def encode(image: Array) -> tuple[bytes, dict[str, str]]:
                body, length = encode_request(image, outputs)
                kind = {"Content-Type": "application/octet-stream"}
                return body, {**kind, "Inference-Header-Content-Length": str(length)}

            plain = DIALECTS["ours_binary"]
            return Dialect(plain.path, encode, plain.decode)

        with _peers.serving("ours", model, images.shape[-1], self.folder) as (port, tree):
            sides = {
                name: self.pairs(port, tree, name, binary(outputs), images, None)
                for name, outputs in (("plain", ["prediction"]), ("with", ["prediction", method]))
            }
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for number in range(2 if self.quick else 6):
                for name in ("plain", "with") if number % 2 else ("with", "plain"):
                    found = self.load(port, tree, 8, sides[name], 0.5 if self.quick else 1.5)
                    rates[name].append(found["per_s"])
        ratios = [a / b for a, b in zip(rates["with"], rates["plain"], strict=True)]
        return {"ratio": statistics.median(ratios), **{name: statistics.median(of) for name, of in rates.items()}}


def open_alone(model: Path) -> onnxruntime.InferenceSession:
    """Open the file as every server does, one thread on the CPU, with nothing of ours around it."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def raw(session: onnxruntime.InferenceSession, images: Array, seconds: float) -> dict[str, float]:
    """Run the session alone: CPU milliseconds and rate of one image after the other."""
    run, count = session.run, 0
    begun, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        run(["prediction"], {"image": images[count % len(images)][None]})
        count += 1
    return {"cpu_ms": 1000 * (time.process_time() - cpu) / count, "per_s": count / (time.perf_counter() - begun)}


def measure(bench: Bench, side: int, model: Path) -> dict[str, Any]:
    """Measure onnxruntime and every server at one size, round by round."""
    images = np.random.default_rng(side).random((IMAGES, 1, side, side), np.float32)
    session = open_alone(model)
    (expected,) = session.run(["prediction"], {"image": images})
    raw(session, images, 0.5)
    rounds: list[dict[str, Any]] = []
    for number in range(bench.rounds):
        found: dict[str, Any] = {"raw": [raw(session, images, bench.seconds)]}
        for name in SERVERS if number % 2 == 0 else reversed(SERVERS):
            if name in bench.missing:
                continue
            try:
                found |= bench.server(name, model, images, expected)
            except (Missing, subprocess.CalledProcessError) as error:
                bench.missing[name] = str(error)
                print(f"{name}: missing: {error}", file=sys.stderr, flush=True)
                continue
            found["raw"].append(raw(session, images, bench.seconds / 3))
            told = {dialect: f"{found[dialect][8]['cpu_ms']:.3g} ms" for dialect in SERVERS[name]}
            alone = f"{found['raw'][-1]['cpu_ms']:.3g} ms"
            print(f"{side} px, round {number}: {told}, alone {alone}", file=sys.stderr, flush=True)
        rounds.append(found)
    over = bench.over_raw(model, images, expected)
    result = summary(rounds)
    return {**result, "ratios": {"over_raw": statistics.median(over), **result["ratios"]}, "over_raw": over}


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians of all numbers, and of the ratios within each round."""
    result: dict[str, Any] = {"raw": _medians([one for found in rounds for one in found["raw"]]), "ratios": {}}
    for name in DIALECTS:
        having = [found[name] for found in rounds if name in found]
        if having:
            result[name] = {str(c): _medians([one[c] for one in having]) for c in having[0]}
    for name in DIALECTS:
        having = [found for found in rounds if name in found and "ours_binary" in found]
        if having and name != "ours_binary":
            pairs = [found[name][8]["cpu_ms"] / found["ours_binary"][8]["cpu_ms"] for found in having]
            result["ratios"][name] = statistics.median(pairs)
    return result


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def main() -> None:
    """Compare the answers, then measure every server at every size."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--network", choices=sorted(METHODS), default="conv", help="what is served (default: conv)")
    options = parser.parse_args()
    method = METHODS[options.network]
    ratios: dict[str, float] = {}
    detail: dict[str, Any] = {"network": options.network}
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary), quick=options.quick)
        for side in bench.sides:
            plain, full = write_models(bench.folder, options.network, side)
            found = measure(bench, side, plain)
            ratios |= {f"{name}_{side}": value for name, value in found.pop("ratios").items()}
            if side == 64:
                images = np.random.default_rng(1).random((IMAGES, 1, side, side), np.float32)
                explained = bench.explained(full, images, method)
                ratios[f"{method}_rate_{side}"] = explained["ratio"]
                found["explained"] = explained
            eight = found["ours_binary"]["8"]
            found["p99_over_p50"] = eight["p99_ms"] / eight["p50_ms"]
            detail[str(side)] = found
    assert bench.wrong == 0, f"{bench.wrong} answers were wrong"
    report(
        "serving", ratios=ratios, errors={"wrong_answers": float(bench.wrong)},
        detail={**detail, "missing": bench.missing, "quick": options.quick}, as_json=options.json,
    )  # fmt: skip


if __name__ == "__main__":
    main()
