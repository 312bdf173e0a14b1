"""How a model becomes a file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stm_models.config import Config
from stm_models.explain.methods import METHODS, Steps

__all__ = ["ExportConfig"]


class ExportConfig(Config):
    """The section ``export``."""

    explanations: tuple[str, ...] | Literal["all", "cheap"] = Field(
        default="cheap", description="maps in the file by name, all, none, or those whose check takes seconds"
    )
    ig_steps: int = Field(
        default=32, ge=2, le=1024, description="points of integrated gradients; more where they do not add up"
    )
    eg_draws: int = Field(default=50, ge=1, le=4096, description="draws of expected gradients")
    background: int = Field(default=16, ge=1, le=16, description="most training images stored for expected gradients")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="of these draws")
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    budget: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="largest error allowed of fp16 and int8, by target, in its unit"
    )

    @field_validator("explanations", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """Take names with commas between as a list, and ``none`` as an empty one."""
        if not isinstance(value, str) or value in ("all", "cheap"):
            return value
        return () if value == "none" else tuple(name.strip() for name in value.split(","))

    @field_validator("explanations")
    @classmethod
    def _known(cls, value: tuple[str, ...] | str) -> tuple[str, ...] | str:
        for name in value if isinstance(value, tuple) else ():
            if name not in METHODS:
                raise ValueError(
                    f"unknown explanation {name!r}: expected some of {', '.join(METHODS)}, or all, cheap or none"
                )
        return value

    @property
    def steps(self) -> Steps:
        """How finely lines are sampled."""
        return Steps(self.ig_steps, self.eg_draws, self.background, self.seed)
