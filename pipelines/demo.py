"""Everything in a few minutes: simulate, tune, train, register, export, serve, ask, explain.

Files go to --out, runs to the tracking store. Run again, it keeps what is there and continues.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deploy.client import Client
from deploy.serving.session import Session
from pipelines import asking, publishing, settings
from pipelines.evaluate import evaluate
from pipelines.fitting import Fitted, Parts, fit, load_parts
from pipelines.simulation import SimulationSummary, simulate
from pipelines.tune import tune
from stm_models.config import validate
from stm_models.data.dataset import load
from stm_models.errors import InputError
from stm_models.files import output_directory, write_json
from stm_models.training.baselines import fit_baselines
from stm_models.training.config import TrainConfig
from stm_models.training.metrics import metrics
from tracking import runs
from tracking.store import Store, connect

__all__ = ["arguments", "describe", "run"]

_START_SECONDS = 120
_REQUESTS = 50


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--task", default="hubbard")
    parser.add_argument("--out", default="demo-output", metavar="DIR")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that simulate")
    settings.arguments(parser, task=False)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Go through all of it."""
    start = time.monotonic()
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=args.assignments, seed=args.seed)
    out, store = output_directory(args.out).absolute(), connect()
    task = chosen.task

    _say("1/6 simulating")
    data = simulate(task, chosen.simulate, out / "data.zarr", workers=args.workers)
    parts = load_parts(data.data, task, chosen.split)

    _say("2/6 tuning")
    found = tune(store, chosen, parts)

    _say("3/6 training")
    fitted = [_train(store, chosen, config, parts) for config in _configs(chosen, found["best"]["train"])]

    _say("4/6 exporting, registering, promoting")
    best = publishing.best_run(store, task)
    onnx = out / "model.onnx"
    report, version = publishing.publish(store, task, best.id, onnx)
    promotion = publishing.promote(store, task, best.id)
    uri = f"models:/{promotion['model']}/{version}"

    _say("5/6 judging the exported file on freshly simulated states")
    scores, beside, fresh = _judge(store, chosen, parts, onnx, out, args.workers)

    _say("6/6 serving and asking")
    with _server(uri) as client:
        answer = _ask(client, onnx, fresh, out)
    result = {
        "task": task.name, "data": data.data, "digest": data.digest,
        "runs": [found["parent"], *(one.run_id for one in fitted)], "best_run": best.id,
        "network": best.tags["network"], "baselines": beside, "model_version": version, "promotion": promotion,
        "onnx": str(onnx), "parity": report.parity, "metrics": scores, **answer,
        "store": store.location, "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    write_json(out / "demo.json", result)
    return result


def describe(result: dict[str, Any]) -> str:
    """Say what was made, how good it is, where it is, and what to try next."""
    scores, version = result["metrics"], result["model_version"]
    model = result["promotion"]["model"]
    address = f"models:/{model}@champion" if result["promotion"]["promoted"] else f"models:/{model}/{version}"
    unit = next(value["unit"] for value in result["prediction"].values() if isinstance(value, dict) and "unit" in value)
    rows = {f"{result['network']} (the exported file)": scores, **result["baselines"]}
    table = [
        f"  {name:<26}{found['mae']:<9.4f}{found['unseen_mae']:<12.4f}{found['unseen_r2']:.4f}"
        for name, found in rows.items()
    ]
    winner = min(rows, key=lambda name: rows[name]["unseen_mae"])
    return "\n".join(
        [
            f"Made in {result['seconds']:.0f} s:",
            f"  data       {result['data']}  (digest {result['digest'][:12]})",
            f"  model      {result['onnx']}, {model} version {version}",
            f"             {result['promotion']['reason']}",
            f"  runs       {result['store']}",
            f"  answer     {result['files'][0]}",
            "",
            f"{'On fresh states (' + unit + ')':<29}MAE      MAE unseen  R² unseen",
            *table,
            f"  smallest error on unseen values: {winner}",
            "",
            f"The server answered in {result['server']['latency_ms']:.2f} ms: {_sentence(result['prediction'])}",
            "",
            "Try next:",
            f"  .venv/bin/stm serve {address}",
            f"  .venv/bin/stm predict {address} {result['data']} --sample 3 --explain gradient --out answer",
            "  .venv/bin/stm compare",
        ]
    )  # fmt: skip


def _configs(chosen: settings.Settings, best: dict[str, Any]) -> list[TrainConfig]:
    full = {"epochs": chosen.train.epochs, "seed": chosen.train.seed}
    configs = [validate(TrainConfig, {**best, **full}, "train")]
    for network, values in chosen.demo.compare.items():
        plain = chosen.train.model_dump() | {"network": network, "options": {}}
        configs.append(validate(TrainConfig, {**plain, **values}, f"demo.compare.{network}"))
    return configs


def _train(store: Store, chosen: settings.Settings, config: TrainConfig, parts: Parts) -> Fitted:
    with runs.start(store, chosen.task.name, f"train {config.network}") as record:
        return fit(record, chosen, config, parts)


def _judge(
    store: Store, chosen: settings.Settings, parts: Parts, onnx: Path, out: Path, workers: int
) -> tuple[dict[str, float], dict[str, dict[str, float]], Path]:
    """Score file and baselines on two fresh simulations: at the training's targets and at unseen ones."""
    task, wanted = chosen.task, chosen.evaluate
    baselines = fit_baselines(
        task.baselines,
        parts.train.images,
        parts.train.targets,
        parts.train.coordinates["group"],
        chosen.train.seed,
    )
    scores: dict[str, float] = {}
    beside: dict[str, dict[str, float]] = {name: {} for name in baselines}
    for prefix, unseen in (("", False), ("unseen_", True)):
        config = task.fresh(chosen.simulate, wanted.seed + unseen, wanted.states // 2, unseen=unseen)
        made: SimulationSummary = simulate(
            task, config, out / f"fresh{'-unseen' if unseen else ''}.zarr", workers=workers
        )
        found = evaluate(store, onnx, made.data)["metrics"]
        samples = load(made.data)
        keys = ("mae", "r2") if unseen else ("mae", "rmse", "r2")
        scores |= {f"{prefix}{key}": found[key] for key in keys}
        for name, predictor in baselines.items():
            theirs = metrics(predictor(samples.images), samples.targets)
            beside[name] |= {f"{prefix}{key}": theirs[key] for key in keys}
    return scores, beside, Path(made.data)


@contextmanager
def _server(uri: str) -> Iterator[Client]:
    """Run ``stm serve`` on a free port as long as the block lasts."""
    command = [sys.executable, "-m", "pipelines", "serve", uri, "--port", "0"]
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    timer = time.monotonic()
    said: list[str] = []
    try:
        assert process.stderr is not None  # noqa: S101 - a pipe was asked for
        for line in process.stderr:
            said.append(line.strip())
            if line.startswith("ready: "):
                break
        else:
            raise InputError(f"the server did not start: {said[-1] if said else 'it said nothing'}")
        client = Client(said[-1].split()[1])
        client.wait_ready(max(1.0, _START_SECONDS - (time.monotonic() - timer)))
        yield client
        client.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _ask(client: Client, onnx: Path, fresh: Path, out: Path) -> dict[str, Any]:
    """Ask the server about one fresh state, explained; measure how long a plain answer takes."""
    session = Session(onnx)
    question = asking.read_question(fresh, session, asking.Reading(sample=0))
    explanation = session.metadata.explanations[0]
    outputs = client.infer(question.images, ("prediction", "distance", explanation))
    answers = asking.answer_from(session, question, outputs)
    files = asking.write_answers(out / "answer", session, question, answers, explanation, outputs[explanation])
    times = []
    for _ in range(_REQUESTS):
        begin = time.perf_counter()
        client.infer(question.images)
        times.append(time.perf_counter() - begin)
    latency = round(1000 * float(np.median(times)), 3)
    return {
        "prediction": answers[0],
        "files": files,
        "server": {"ready": client.ready(), "latency_ms": latency},
    }


def _sentence(prediction: dict[str, Any]) -> str:
    found = [f"{name} = {value['value']:.3f} {value['unit']} (true {prediction['true'][name]:.3f})"
             for name, value in prediction.items() if isinstance(value, dict) and "value" in value]  # fmt: skip
    return f"{', '.join(found)}; {prediction['verdict']}"


def _say(text: str) -> None:
    print(f"\n== {text}", file=sys.stderr, flush=True)
