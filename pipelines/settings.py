"""Presets, files and ``--set`` become one validated configuration."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationInfo, field_validator

from pipelines.recipes import SECTION, Recipes
from stm_models.config import NO_YAML, Config, merge, parse_assignments, validate
from stm_models.errors import InputError, unknown
from stm_models.tasks.base import Task
from stm_models.tasks.perturbation import find
from stm_models.tasks.registry import get
from stm_models.training.config import TrainConfig

__all__ = [
    "CalibrateConfig",
    "DemoConfig",
    "EvaluateConfig",
    "PromoteConfig",
    "Settings",
    "SplitConfig",
    "TuneConfig",
    "arguments",
    "load",
    "only_section",
    "only_sections",
    "optional_int",
    "preset_folder",
    "presets",
]

PRESET = "quick"
"""The preset of every command where none is named."""
# A checkout has configs/ beside this package, an installed wheel has it inside.
_HERE = Path(__file__).resolve().parent
_CONFIGS = _HERE / "presets" if (_HERE / "presets").is_dir() else _HERE.parent / "configs"


class SplitConfig(Config):
    """Which samples train, validate, and stand for values never seen."""

    unseen_fraction: float = Field(
        0.16, ge=0, lt=1, description="share of the values of the task's stratifying label held out whole"
    )
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="share of the other groups")
    seed: int = Field(0, ge=0)
    include_unconverged: bool = Field(False, description="use states whose cycle did not converge too")
    folds: int = Field(0, ge=0, le=1000, description="0, or so many folds, of which one validates")
    fold: int = Field(0, ge=0, description="which, from 0", validate_default=True)
    judged: tuple[str, ...] | None = Field(
        None, min_length=1, description="perturbation sets that decide between models (default: the task's)"
    )

    @field_validator("folds")
    @classmethod
    def _several(cls, value: int) -> int:
        if value == 1:
            raise ValueError("expected 2 folds or more, or 0 for none")
        return value

    @field_validator("fold")
    @classmethod
    def _one_of_them(cls, value: int, info: ValidationInfo) -> int:
        folds = info.data.get("folds", 0)
        if value >= max(folds, 1):
            raise ValueError(f"there are {folds} folds, numbered from 0")
        return value


class TuneConfig(Config):
    """How a search goes."""

    trials: int = Field(8, ge=1, le=100_000)
    epochs: int = Field(30, ge=1, description="most epochs of one trial")
    sampler: Literal["tpe", "gp", "cmaes", "random"] = "tpe"
    pruner: Literal["none", "median", "hyperband", "wilcoxon"] = "median"
    networks: tuple[str, ...] = Field((), description="networks to choose from; none: the training's")
    objectives: tuple[Literal["error", "latency"], ...] = ("error",)
    heartbeat: int = Field(20, ge=1, le=3600, description="seconds between a worker's signs of life")
    seed: int = Field(0, ge=0, lt=2**31)

    @field_validator("networks")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected every network once")
        return value

    @field_validator("objectives")
    @classmethod
    def _error_first(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value not in (("error",), ("error", "latency")):
            raise ValueError("expected [error] or [error, latency]")
        return value


class EvaluateConfig(Config):
    """The freshly simulated states that a demo reports on."""

    states: int = Field(48, ge=4, le=100_000, description="half at the training's targets, half at unseen ones")
    seed: int = Field(20260, ge=0, description="together with the simulation's seed")


class PromoteConfig(Config):
    """What a model must show to become champion."""

    alpha: float = Field(0.05, gt=0, lt=1, description="largest p of the paired test against the champion")
    slack: float = Field(
        0.25, ge=0, description="so much may one perturbation set be worse, of the champion's mean over all"
    )
    floors: dict[str, float] = Field(
        default_factory=dict, description="worst value of the task's metric allowed, by perturbation set"
    )
    parity: float = Field(1e-4, gt=0, lt=1, description="largest relative difference between file and torch model")
    latency_ms: float = Field(2000.0, gt=0, description="longest time for one image on one thread")


class CalibrateConfig(Config):
    """The simulated states that intervals and novelty are calibrated on."""

    states: int = Field(
        300, ge=0, le=100_000, description="simulated for the purpose, at continuous targets; 0: those held out"
    )
    level: float = Field(0.9, ge=0.5, le=0.99, description="share of new samples whose truth is to lie inside")
    seed: int = Field(40_960, ge=0, description="together with the simulation's seed")


class DemoConfig(Config):
    """What a demo trains: the tuned network for so many epochs, and others beside it.

    Attributes
    ----------
    epochs : int or None
        ``None``: those of ``train``.
    states : int or None
        What it calibrates on; ``None``: those of ``calibrate``.
    compare : dict
        Training values by network name.
    """

    epochs: int | None = Field(None, ge=1, le=100_000)
    states: int | None = Field(None, ge=0, le=100_000)
    compare: dict[str, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Everything that configures a command of one task.

    Attributes
    ----------
    recipes : Recipes
        What ``train`` was made of, for its own network and for others, and what of it is not the preset's own.
    """

    task: Task
    preset: str
    simulate: Any
    split: SplitConfig
    train: TrainConfig
    tune: TuneConfig
    evaluate: EvaluateConfig
    demo: DemoConfig
    promote: PromoteConfig = field(default_factory=lambda: validate(PromoteConfig, {}, "promote"))
    calibrate: CalibrateConfig = field(default_factory=lambda: validate(CalibrateConfig, {}, "calibrate"))
    recipes: Recipes = field(default_factory=Recipes)

    def training_of(self, network: str) -> TrainConfig:
        """Return the training as it is for ``network``, with its options where they are given, on the same machine."""
        if network == self.train.network:
            return self.train
        values = {"loss": self.task.losses[0], **self.recipes.of(network)}
        return validate(TrainConfig, values | self.train.model_dump(include={"threads", "device"}), "train")

    def record(self, *sections: str) -> dict[str, Any]:
        """Plain values of some sections, as they are logged."""
        values: dict[str, Any] = {"task": self.task.name, "preset": self.preset}
        return values | {section: getattr(self, section).model_dump(mode="json") for section in sections}


def arguments(parser: argparse.ArgumentParser, *, task: bool = True) -> None:
    """Add the options that every configured command shares."""
    if task:
        parser.add_argument("task", help="name of the task, e.g. hubbard")
    parser.add_argument("--preset", default=PRESET, help=f"a file among the task's presets (default: {PRESET})")
    parser.add_argument("--config", metavar="FILE.yaml", help="values laid over the preset")
    parser.add_argument(
        "--set", dest="assignments", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="one value laid over all others; repeat, or separate with ';'",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=optional_int,
        help="seed of simulation, split, training and search, but for those that --config or --set gives "
        "(default: the preset's)",
    )  # fmt: skip


def optional_int(text: str) -> int | None:
    """Return the number that an option gives; ``None`` for the empty text of an MLproject parameter left out."""
    try:
        return int(text) if text else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None


def only_section(name: str, assignments: list[str]) -> dict[str, Any]:
    """Return what ``--set`` gives the one section that a command reads.

    Raises
    ------
    InputError
        For another section, or something that is no keys and values.
    """
    found = only_sections(name, assignments, name).get(name, {})
    if not isinstance(found, dict):
        raise InputError(f"--set {name} is {found!r}: expected {name}.KEY=VALUE")
    return found


def only_sections(command: str, assignments: list[str], *names: str) -> dict[str, Any]:
    """Return what ``--set`` gives, in sections that a command reads; others would change nothing.

    Raises
    ------
    InputError
        For another section, or something that is no keys and values.
    """
    values = parse_assignments(assignments)
    for section in values:
        if section not in names:
            raise unknown(f"section of stm {command}", section, names)
    return values


def presets(task: str) -> list[str]:
    """Names of the presets of a task."""
    return sorted(path.stem for path in preset_folder(task).glob("*.yaml"))


def preset_folder(task: str) -> Path:
    """Return where the presets of a task are: with the task if it brings its own, else in ``configs``."""
    return get(task).presets or _CONFIGS / task


def load(
    task: str,
    preset: str = PRESET,
    *,
    config: str | None = None,
    assignments: list[str] | None = None,
    seed: int | None = None,
    recorded: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the preset, lay seed, file, assignments and a run's recorded values over it, and validate the whole.

    Parameters
    ----------
    task, preset : str
        Names of the task and of one of its presets.
    config : str, optional
        A YAML file with sections, as presets have.
    assignments : list of str, optional
        ``section.key=value``, several separated by semicolons.
    seed : int, optional
        Of every section that has one: simulate, split, train and tune.
    recorded : mapping, optional
        Sections of a run's configuration; each of their keys replaces what the preset has under it, whole.

    Raises
    ------
    InputError
        For an unknown task, preset, section, key or perturbation, or an impossible value.
    """
    found = get(task)
    if preset not in presets(task):
        raise unknown(f"preset of {task}", preset, presets(task))
    values = _read(preset_folder(task) / f"{preset}.yaml")
    file = _read(Path(config)) if config else {}
    given = merge({key: value for key, value in file.items() if key != SECTION}, parse_assignments(assignments or []))
    kinds: dict[str, type[Config]] = {
        "simulate": found.simulation, "split": SplitConfig, "train": TrainConfig, "tune": TuneConfig,
        "evaluate": EvaluateConfig, "demo": DemoConfig, "promote": PromoteConfig, "calibrate": CalibrateConfig,
    }  # fmt: skip
    for source in (values, file):
        _sections(source, (*kinds, SECTION))
    _sections(given, tuple(kinds))
    if seed is not None:
        values = merge(values, {name: {"seed": seed} for name in ("simulate", "split", "train", "tune")})
    again = recorded or {}
    recipes = Recipes.read(values, file, given, again.get("train", {}).get("network") or found.default_network)
    values = {**merge(values, given), "train": {"loss": found.losses[0], **recipes.of(recipes.network)}}
    for name in kinds.keys() & again.keys():
        values[name] = {**values.get(name, {}), **again[name]}  # whole: {} is no less than another value
    made: dict[str, Any] = {name: validate(kind, values.get(name, {}), name) for name, kind in kinds.items()}
    for name in (*(made["split"].judged or ()), *made["promote"].floors):
        find(found.perturbations(), name)
    if (fraction := given.get("split", {}).get("unseen_fraction")) and not found.unseen:
        raise InputError(
            f"split.unseen_fraction is {fraction}, but task {task} has no values to hold out whole: leave it out"
        )
    chosen = Settings(found, preset, **made, recipes=recipes)
    for network in (chosen.train.network, *recipes.own):
        training = chosen.training_of(network)
        find(found.perturbations(), training.perturbation)
        if training.loss not in found.losses:
            raise unknown(f"loss of {task}", training.loss, found.losses)
    return chosen


def _sections(values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse sections that are none."""
    for section, keys in values.items():
        if section not in known:
            raise unknown("section of the configuration", section, known)
        if not isinstance(keys, dict):
            example = (
                f"{section}: {{NAME: {{epochs: 20}}}} in a file" if section == SECTION else f"--set {section}.seed=1"
            )
            raise InputError(
                f"section {section!r} of the configuration is {keys!r}: expected keys below it, e.g. {example}"
            )


class _EachKeyOnce(yaml.SafeLoader):
    """YAML without keys that stand twice in one mapping, of which the last would count."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                line = key.start_mark.line + 1
                raise InputError(f"the configuration has the key {key.value!r} twice, again in line {line}: keep one")
            seen.add(key.value)
        return node


def _read(path: Path) -> dict[str, Any]:
    try:
        values = _EachKeyOnce(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, *NO_YAML) as error:
        reason = getattr(error, "strerror", None) or "no valid YAML"
        raise InputError(f"cannot read the configuration {path}: {reason}; give a YAML file with sections") from error
    if not isinstance(values or {}, dict):
        raise InputError(f"the configuration {path} is no mapping: expected sections such as 'train:'")
    return values or {}
