"""Everything in a quarter of an hour: simulate, tune, train, register, export, serve, ask, explain.

Files go to --out, runs to the tracking store. Run again, it keeps what is finished and continues.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.client import Client
from deploy.model import asking, questions
from deploy.model.session import Session
from pipelines import settings
from pipelines.learning.fitting import Parts, fit, load_parts, recipe
from pipelines.learning.network import forget
from pipelines.promoting import promotion, publishing
from pipelines.scoring.judging import judge
from pipelines.server_process import serving
from pipelines.simulating.simulation import simulate
from pipelines.tuning.search import Search
from stm_models.config import validate
from stm_models.files import output_directory, write_json
from stm_models.machine import cores
from stm_models.networks import registry
from stm_models.tasks.registry import get
from stm_models.training.config import TrainConfig
from tracking import runs
from tracking.store import Store, connect

__all__ = ["arguments", "describe", "run"]

_REQUESTS = 50


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--task", default="hubbard")
    parser.add_argument("--out", default="demo-output", metavar="DIR")
    parser.add_argument("--workers", type=int, default=cores(), help="processes that simulate")
    settings.arguments(parser, task=False)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Go through all of it."""
    start = time.monotonic()
    chosen = settings.load(args.task, args.preset, config=args.config, assignments=args.assignments, seed=args.seed)
    task = chosen.task
    if chosen.demo.states is not None:
        chosen = replace(chosen, calibrate=chosen.calibrate.model_copy(update={"states": chosen.demo.states}))
    for config in _configs(chosen, chosen.train.model_dump()):
        registry.check(config.network, config.options)
    out, store = output_directory(args.out).absolute(), connect()
    print(f"{task.title}: {store.location}", file=sys.stderr)

    _say("1/6 simulating")
    data = simulate(task, chosen.simulate, out / "data.zarr", workers=args.workers)
    parts = load_parts(data.data, task, chosen.split, chosen.train.targets)

    _say("2/6 tuning")
    found = Search(store, chosen, parts).run()

    _say("3/6 training")
    trained = [_train(store, chosen, config, parts, out) for config in _configs(chosen, found["best"]["train"])]

    _say("4/6 exporting, registering, promoting")
    best = publishing.best_run(store, task, [found["best"]["run_id"], *trained])
    onnx = out / "model.onnx"
    version = publishing.published(store, task, best, onnx)
    promoted = promotion.promote(store, task, best.id, data.data, config=chosen.promote)

    _say("5/6 judging the exported file on freshly simulated states")
    scores, beside, fresh = judge(store, chosen, parts, onnx, out, args.workers)

    _say("6/6 serving and asking")
    with serving(f"models:/{promoted['model']}/{version}") as client:
        answer = _ask(client, onnx, fresh, out)
    result = {
        "task": task.name, "units": _units(parts),
        "data": data.data, "digest": data.digest, "runs": [found["parent"], *trained],
        "best_run": best.id, "network": best.tags["network"], "baselines": beside, "model_version": version,
        "promotion": promoted, "onnx": str(onnx), "metrics": scores, **answer, "store": store.location,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip
    write_json(out / "demo.json", result)
    return result


def describe(result: dict[str, Any]) -> str:
    """Say what was made, how good it is, where it is, and what to try next."""
    answer, version, model = result["prediction"], result["model_version"], result["promotion"]["model"]
    task = get(result["task"])
    rows = {f"{result['network']} (the exported file)": result["metrics"], **result["baselines"]}
    judged = f"unseen_{task.metric}" if task.unseen else task.metric
    winner = (max if task.larger_is_better else min)(rows, key=lambda name: rows[name][judged])
    units = " and ".join(unit for unit in result["units"] if unit != "1")
    widths = [max(9, len(column.title) + 2) for column in task.columns]
    titles = "".join(f"{column.title:<{width}}" for column, width in zip(task.columns, widths, strict=True))
    lines = [
        f"Made in {result['seconds']:.0f} s:",
        f"  data       {result['data']}  (digest {result['digest'][:12]})",
        f"  model      {result['onnx']}, {model} version {version}",
        f"             {result['promotion']['reason']}",
        f"  runs       {result['store']}",
        f"  answer     {result['files'][0]}",
        "",
        f"{'On fresh states' + (f' ({units})' if units else ''):<35}{titles}".rstrip(),
    ]
    for name, found in rows.items():
        cells = zip(task.columns, widths, strict=True)
        values = "".join(f"{found[column.metric]:<{width}{column.format}}" for column, width in cells)
        lines.append(f"  {name:<33}{values}".rstrip())
    lines += [
        f"  best {task.metric}{' on unseen values' if task.unseen else ''}: {winner}",
        "",
        f"The server answered in {result['server']['latency_ms']:.2f} ms: {task.words(answer)}; {answer['verdict']}",
        "",
        "Try next:",
        *(f"  {shlex.join(command)}" for command in next_commands(result)),
    ]
    return "\n".join(lines)


def next_commands(result: dict[str, Any]) -> list[list[str]]:
    """Three commands to try after a demo."""
    promoted = result["promotion"]
    champion = promoted["promoted"] or (promoted["champion"] or {}).get("version") == result["model_version"]
    model = f"models:/{promoted['model']}" + ("@champion" if champion else f"/{result['model_version']}")
    stm = ".venv/bin/stm" if Path(".venv/bin/stm").exists() else "stm"
    return [
        [stm, "predict", model, result["data"], "--sample", "3", "--explain", result["explanation"], "--out", "answer"],
        [stm, "serve", model],
        [stm, "compare"],
    ]


def _configs(chosen: settings.Settings, best: dict[str, Any]) -> list[TrainConfig]:
    """Return the tuned network's configuration at full length, then those of the networks beside it."""
    full = {"epochs": chosen.demo.epochs or chosen.training_of(best["network"]).epochs, "seed": chosen.train.seed}
    configs = [validate(TrainConfig, {**best, **full}, "train")]
    for network, values in chosen.demo.compare.items():
        plain = chosen.training_of(network).model_dump()
        configs.append(validate(TrainConfig, {**plain, **values}, f"demo.compare.{network}"))
    return configs


def _train(store: Store, chosen: settings.Settings, config: TrainConfig, parts: Parts, out: Path) -> str:
    """Train, unless a finished run has this very recipe, and return the run's id."""
    wanted = recipe(chosen, config, parts)
    for row in runs.find(store, chosen.task.name):
        if row.status == "FINISHED" and row.tags.get("training.recipe") == wanted and row.parent is None:
            return row.id
    checkpoint = out / f"{wanted[:16]}.pt"
    with runs.start(store, chosen.task.name, f"train {config.network}") as record:
        fit(record, chosen, config, parts, checkpoint=checkpoint)
    forget(checkpoint)
    return record.id


def _ask(client: Client, onnx: Path, fresh: Path, out: Path) -> dict[str, Any]:
    """Ask the server about one fresh state, explained; measure how long a plain answer takes."""
    session = Session(onnx)
    question = questions.read_question(fresh, session, questions.Reading(samples=(0,)))
    explanation = session.metadata.explanations[0]
    outputs = client.infer(question.images, (*session.metadata.answers, explanation))
    answers = asking.answer_from(session, question, outputs)
    files = asking.write_answers(out / "answer", session, question, answers, explanation, outputs)
    times = []
    for _ in range(_REQUESTS):
        begin = time.perf_counter()
        client.infer(question.images)
        times.append(time.perf_counter() - begin)
    return {
        "prediction": answers[0],
        "explanation": explanation,
        "files": files,
        "server": {"ready": client.ready(), "latency_ms": round(1000 * float(np.median(times)), 3)},
    }


def _units(parts: Parts) -> list[str]:
    return list(dict.fromkeys(target["unit"] for target in parts.samples.attributes["targets"]))


def _say(text: str) -> None:
    print(f"\n== {text}", file=sys.stderr, flush=True)
