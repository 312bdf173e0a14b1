"""Training one network on a data set as one recorded run: what train, tune and demo share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipelines.learning.network import Learnt, Measured, check, learn
from pipelines.learning.parts import Parts, load_parts
from pipelines.learning.recording import Fitted, calibrating, keep, opened
from pipelines.settings import Settings
from stm_models.files import sha256, sha256_of_json
from stm_models.networks import registry
from stm_models.progress import Progress
from stm_models.tasks.base import Task
from stm_models.training.config import TrainConfig
from stm_models.training.trainer import Watch
from tracking.runs import Run

__all__ = ["Fitted", "Measured", "Parts", "fit", "informed", "load_parts", "recipe"]


def informed(task: Task, config: TrainConfig, parts: Parts) -> TrainConfig:
    """Add to the network's options what the data say of the images."""
    known = task.known(parts.samples.attributes)
    return config.model_copy(update={"options": registry.informed(config.network, config.options, known)})


def recipe(settings: Settings, config: TrainConfig, parts: Parts, measured: Measured | None = None) -> str:
    """Identify a training before it is done: task, data, split, training parameters and measured maps.

    A file of weights to start from counts by what it holds, wherever it lies.
    """
    config = informed(settings.task, config, parts)
    if (weights := config.options.get("weights")) is not None:
        registry.check(config.network, config.options)
        config = config.model_copy(update={"options": {**config.options, "weights": sha256(Path(weights))}})
    about = {
        "task": settings.task.name,
        "data": parts.samples.attributes["digest"],
        "split": settings.split.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude={"threads", "device"}),
        "calibrate": settings.calibrate.model_dump(mode="json"),
    }
    if measured is not None and measured.images:
        about["measured"] = sorted(measured.digests.values())
    return sha256_of_json(about)


def fit(
    run: Run,
    settings: Settings,
    config: TrainConfig,
    parts: Parts,
    *,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    baselines: bool = True,
    checkpoint: Path | None = None,
    measured: Measured | None = None,
    watch: Watch | None = None,
) -> Fitted:
    """Train, score and record; the run gets data set, configuration, metrics, figures and the model bundle.

    Parameters
    ----------
    run : Run
        A run in progress.
    settings : Settings
    config : TrainConfig
        Training parameters (a trial's differ from ``settings.train``).
    parts : Parts
    on_epoch : callable, optional
        Called with the epoch (from 1) and its metrics; may raise to stop.
    baselines : bool
        Whether the task's baselines are fitted and logged beside it.
    checkpoint : Path, optional
        Where the training state is kept, to continue after an interruption.
    measured : Measured, optional
        Maps without labels that the training uses too; the run says so.
    watch : callable, optional
        Gives further metrics of every epoch's model.

    Raises
    ------
    InputError
        As `stm_models.training.trainer.train`.
    """
    task, measured = settings.task, measured or Measured()
    config = informed(task, config, parts)
    opened(run, settings, config, parts, recipe(settings, config, parts, measured))
    if measured.images:
        # What the model is asked about afterwards may have been seen before: nobody is to miss that.
        run.tags({"transductive": True})
        run.json(dict(measured.digests), "measured.json")
    check(task, config, parts)
    held = calibrating(run, settings, config, parts)

    learnt = _learn(run, task, config, parts, measured, on_epoch, checkpoint, watch)
    run.tags({f"start.{key}": value for key, value in learnt.final.model.network.start.items() if value})
    results = (learnt.chosen, learnt.final) if config.refit else (learnt.chosen,)
    seconds = sum(result.seconds for result in results)
    run.metrics({"best_epoch": learnt.chosen.best_epoch, "train_seconds": seconds})
    if any(result.halved for result in results):
        run.tags({"train.batches": "halved, since memory did not suffice"})
    return keep(
        run, settings, config, parts, held, learnt.final.model,
        chosen=learnt.chosen.model, history=learnt.chosen.history, baselines=baselines,
    )  # fmt: skip


def _learn(
    run: Run,
    task: Task,
    config: TrainConfig,
    parts: Parts,
    measured: Measured,
    on_epoch: Callable[[int, dict[str, float]], None] | None,
    checkpoint: Path | None,
    watch: Watch | None,
) -> Learnt:
    """Train with a bar on the terminal and a curve in the run."""
    with Progress(config.epochs, f"train {config.network}", "epoch") as bar:

        def report(epoch: int, entry: dict[str, float]) -> None:
            bar.update(epoch - bar.done, f"validation {task.metric} {entry[f'val_{task.metric}']:.4f}")
            run.metrics({key: value for key, value in entry.items() if key != "epoch"}, epoch)
            if on_epoch is not None:
                on_epoch(epoch, entry)

        def report_refit(epoch: int, entry: dict[str, float]) -> None:
            bar.update(0, f"fitted again with the validation samples: epoch {epoch}")
            run.metrics({"refit_train_loss": entry["train_loss"]}, epoch)

        return learn(
            task, config, parts, measured=measured, on_epoch=report, on_refit=report_refit, checkpoint=checkpoint,
            watch=watch,
        )  # fmt: skip
