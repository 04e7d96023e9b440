"""The search of a recipe: what to vary, what to aim at."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from phonefit.pipeline.recipe_steps import Config


class Range(Config):
    """A numeric range to search."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(default=None, gt=0)
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and no step")
        if self.integer and not all(float(value).is_integer() for value in (self.low, self.high, self.step or 1)):
            raise ValueError("integer needs whole numbers for low, high and step")
        return self


def _kind_of_axis(value: object) -> str | None:
    if isinstance(value, Range | Mapping):
        return "range"
    return "choices" if isinstance(value, list | tuple) else None


Objective = Literal["quality", "latency_p90_ms", "bytes", "peak_memory", "instructions", "energy_uj"]
SamplerName = Literal["grid", "random", "tpe", "gp", "nsga2", "tensor_train", "ttopt"]
Axis = Annotated[
    Annotated[Range, Tag("range")] | Annotated[tuple[JsonValue, ...], Tag("choices")],
    Discriminator(
        _kind_of_axis,
        custom_error_type="axis",
        custom_error_message="should be a list of choices, or {low, high} with log, step or integer",
    ),
]


class SearchConfig(Config):
    """What to search. `space`: dotted recipe path -> list of choices, or {low, high, log, step, integer}.

    `trials` counts all trials of the study, those of earlier runs included. `after_run`: `phonefit run` goes on with
    the search. `untrusted`: whether the sampler learns from trials whose times or energy stayed untrusted, where an
    objective or a limit depends on them; either way they are shown, and marked.
    """

    sampler: SamplerName = "tpe"
    trials: int = Field(default=20, ge=1)
    objectives: tuple[Objective, ...] = ("quality", "latency_p90_ms", "bytes")
    space: Mapping[str, Axis] = {}
    after_run: bool = False
    untrusted: Literal["ignore", "learn"] = "ignore"

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if not objectives or len(set(objectives)) != len(objectives):
            raise ValueError("name each wanted objective once, and at least one")
        return objectives

    @model_validator(mode="after")
    def _sampler_takes_them(self) -> "SearchConfig":
        if self.sampler == "ttopt" and len(self.objectives) > 1:
            given = ", ".join(self.objectives)
            raise ValueError(f"sampler ttopt takes one objective, not {given}; tensor_train takes several")
        return self

    @field_validator("space")
    @classmethod
    def _distinct_choices(cls, space: Mapping[str, Axis]) -> Mapping[str, Axis]:
        for path, axis in space.items():
            if isinstance(axis, tuple) and (not axis or any(value in axis[:place] for place, value in enumerate(axis))):
                raise ValueError(f"{path} needs at least one choice, each different from the others")
        return space
