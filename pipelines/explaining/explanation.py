"""What explain does: maps, pictures and scores of a few images, or means over a whole data set, and their record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.model import asking
from deploy.model.questions import Question, Reading, load_fitting, read_question
from deploy.model.session import Session
from pipelines.explaining import attention
from pipelines.explaining.explainers import SHAP, Explainer, chosen, explainers, needs_run
from pipelines.explaining.judged_maps import ScoreOptions, Subject, judge_maps, subjects, summary
from pipelines.explaining.mean_image import background_of, mean_image
from stm_models.errors import InputError
from stm_models.figures import explanation as figures
from stm_models.figures.png import save
from stm_models.files import output_directory, write_json

if TYPE_CHECKING:
    from pipelines.inspecting.representation import Trained
    from tracking.store import Store

__all__ = ["ExplainOptions", "Source", "explain", "explain_data_set"]

Array = NDArray[Any]


@dataclass(frozen=True)
class ExplainOptions:
    """What `explain` is asked to do.

    Attributes
    ----------
    method : str or None
        See `pipelines.explaining.explainers.chosen`.
    scored : bool
        Whether maps are judged.
    randomise : bool
        Whether the maps are compared with those of a model whose layers are drawn anew.
    background : str or None
        A data set whose mean absent pixels are taken from, and that shap draws from.
    draws, background_size : int
        Of shap's GradientExplainer.
    most : int
        So many samples of a data set are averaged at most.
    seed : int
    """

    method: str | None = None
    scored: bool = True
    randomise: bool = False
    background: str | None = None
    draws: int = 200
    background_size: int = 64
    most: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        for option, value, least in (
            ("draws", self.draws, 1), ("background-size", self.background_size, 1), ("most", self.most, 3),
            ("seed", self.seed, 0),
        ):  # fmt: skip
            if value < least:
                raise InputError(f"--{option} is {value}: expected {least} or above")


@dataclass(frozen=True)
class Source:
    """Where a model comes from: its tracking store and run, where it has any."""

    store: Store | None
    run_id: str | None

    def trained(self) -> Trained | None:
        """Return the torch model of the run."""
        if self.store is None or self.run_id is None:
            return None
        from pipelines.inspecting.representation import trained

        return trained(self.store, self.run_id)


def explain(
    session: Session, source: Source, path: str, reading: Reading, out: Path, options: ExplainOptions
) -> dict[str, Any]:
    """Explain a file, or some samples of a data set, with every chosen method.

    Writes what `asking.write_answers` does, NAME_METHOD.npy and .png for each method, and scores.json and scores.png.

    Parameters
    ----------
    session : Session
        The model file.
    source : Source
        Its run, where it has one.
    path : str
        File or data set.
    reading : Reading
        How it is read, and which of its samples.
    out : Path
        Folder to write to.
    options : ExplainOptions

    Returns
    -------
    dict
        ``answers``, ``methods``, ``files``, ``scores`` (means by method), ``notes``.

    Raises
    ------
    InputError
        For an unknown method, one that the model's address cannot give, and whatever `read_question` refuses.
    """
    methods = chosen(options.method, session)
    ways, model, absent = _ways(session, source, methods, options)
    known = _known_to_torch(session, model, methods) if model is not None and options.randomise else {}
    question = read_question(path, session, reading)
    if len(question.names) > asking.MAPS_AT_MOST:
        raise InputError(
            f"{len(question.names)} samples were asked about: expected at most {asking.MAPS_AT_MOST}; --by-target "
            "averages over more"
        )
    first = next((method for method in methods if method not in SHAP), None)
    answers, outputs = asking.answer(session, question, first)
    asked = subjects(session, question, outputs["prediction"], len(question.names))
    maps = {way.name: _maps(session, way, question, asked) for way in ways if way.method != first}
    # What can be refused is done: from here on files are written.
    files = asking.write_answers(output_directory(out), session, question, answers, first, outputs)
    for name, found in maps.items():
        files += asking.write_maps(out, session, question, answers, name, found)
    notes: list[str] = []
    record: dict[str, Any] = {}
    if options.scored:
        record, drawn, note = _scores(session, source, question, ways, asked, absent, options, out)
        files += drawn
        notes += note
    if model is not None and known:
        from stm_models.explain.randomisation import randomisation

        images, places = np.stack([one.image for one in asked]), [one.place for one in asked if one.place is not None]
        # The strongest pixel of a model drawn anew is another one: its map would differ whatever the model.
        fixed = {"places": np.stack(places)} if places else {}
        record["randomisation"] = {
            name: randomisation(partial(way, **fixed), model.bundle.model, images, seed=options.seed)
            for name, way in known.items()
        }
        notes += [f"{name}: not compared with maps of randomised layers" for name in methods if name not in known]
    if record:
        write_json(out / "scores.json", record)
        files.append(str((out / "scores.json").absolute()))
    return {
        "answers": answers, "methods": methods, "files": files, "scores": record.get("summary", {}),
        "randomisation": record.get("randomisation", {}), "notes": notes,
    }  # fmt: skip


def explain_data_set(session: Session, source: Source, path: str, out: Path, options: ExplainOptions) -> dict[str, Any]:
    """Average the maps of every chosen method over a data set; see `pipelines.explaining.attention.by_target`.

    Parameters
    ----------
    session : Session
        The model file.
    source : Source
        Its run, where it has one.
    path : str
        The data set, of images of the model's own size.
    out : Path
        Folder to write to.
    options : ExplainOptions
        At most ``most`` samples are taken, evenly over the values that maps are averaged by; maps are not judged.

    Returns
    -------
    dict
        ``methods``, ``files``, ``attention`` (what was found of each method, in words), ``samples`` (how many),
        ``notes``, and ``record``, what attention.json holds.

    Raises
    ------
    InputError
        For what is no data set, an unknown method, one that the model's address cannot give, and samples that do not
        fit the model or are too few.
    """
    if not Path(path).is_dir():
        raise InputError(f"--by-target got {path}, which is no data set: give a folder DATA.zarr")
    methods = chosen(options.method, session)
    ways, _, _ = _ways(session, source, methods, options)
    samples = load_fitting(path, session.metadata)
    if len(samples) > options.most:
        samples = attention.evenly(samples, attention.quantity(session, samples)[2], options.most)
    record, files = attention.by_target(session, ways, samples, output_directory(out), options.seed)
    notes = []
    if record["trained_on_this_data"]:
        notes.append("the model was trained on this data set: a fresh one says more about what it looks at")
    elif calibrated := record["calibrated_on_this_data"]:
        notes.append(f"calibrated on this data set: {' and '.join(calibrated)} of the model")
    return {
        "methods": methods, "files": files, "samples": len(samples), "notes": notes,
        "attention": {method: found["statement"] for method, found in record["methods"].items()}, "record": record,
    }  # fmt: skip


def _maps(session: Session, way: Explainer, question: Question, asked: Sequence[Subject]) -> Array:
    if way.method not in SHAP:
        return asking.predict_all(session, question.images, [way.method])[way.method]
    return np.concatenate([way.maps(question.images[i : i + 1], one.place) for i, one in enumerate(asked)])


def _ways(
    session: Session, source: Source, methods: Sequence[str], options: ExplainOptions
) -> tuple[list[Explainer], Trained | None, Array | None]:
    """Make the explainers; the torch model where one of them or the sanity check needs it; the mean of --background."""
    torch_needed = any(method in SHAP for method in methods)
    if options.randomise and source.run_id is None:
        raise needs_run("--randomise", session)
    model = source.trained() if torch_needed or options.randomise else None
    background = absent = None
    if options.background is not None:
        background, absent = background_of(options.background, session, options.background_size, options.seed)
    elif model is not None and torch_needed:
        background = _training_images(model, options)
    ways = explainers(methods, session, model, background, options.draws, options.seed)
    return ways, model, absent


def _training_images(model: Trained, options: ExplainOptions) -> NDArray[np.float32]:
    """Draw images that the run was fitted to."""
    images = model.data.parts(option="--background").train.images
    chosen_rows = np.random.default_rng([options.seed, 5]).permutation(len(images))[: options.background_size]
    return images[np.sort(chosen_rows)]


def _scores(
    session: Session,
    source: Source,
    question: Question,
    ways: Sequence[Explainer],
    asked: Sequence[Subject],
    absent: Array | None,
    options: ExplainOptions,
    out: Path,
) -> tuple[dict[str, Any], list[str], list[str]]:
    reference, where = mean_image(session, source.store, source.run_id, question, absent)
    if reference is None:
        return {}, [], [f"no scores: what an absent pixel looks like is {where}"]
    about = session.metadata
    settings = ScoreOptions(seed=options.seed)
    scores = judge_maps(session, ways, asked, reference, settings)
    unit = about.targets[about.explained].unit
    record = {
        "model": about.sha256, "explained": about.targets[about.explained].name, "unit": unit, "reference": where,
        "settings": vars(settings), "summary": summary(scores), "images": scores,
    }  # fmt: skip
    picture = save(figures.faithfulness(scores, unit=unit), out / "scores.png")
    return record, [str(picture.absolute())], []


def _known_to_torch(session: Session, model: Trained, methods: Sequence[str]) -> dict[str, Any]:
    """Return the chosen methods that the torch model has, to compare its maps with those of randomised ones."""
    from stm_models.explain.torch_maps import torch_maps

    known = torch_maps(model.bundle, session.metadata.explained)
    judged = {name: known[name] for name in methods if name in known}
    if not judged:
        raise InputError(f"--randomise knows {', '.join(known)}: choose one of them with --method")
    return judged
