"""The search of a recipe: what to vary, what to aim at."""

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

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


def is_database(storage: str) -> bool:
    """Whether the name of a storage is the URL of a database, rather than a kind of file in the run folder."""
    return storage.startswith(("postgresql://", "postgres://"))


class PromotionConfig(Config):
    """Fine-tuning in rungs: after 1/factor, 1/factor², … of its epochs a trial goes on when it is among the best
    1/factor of those that came as far; no rung before `least_epochs`.
    """

    factor: int = Field(default=3, ge=2, le=10)
    least_epochs: int = Field(default=1, ge=1)


class ScreeningConfig(Config):
    """What ends a trial before it is finished. The first two only end what could not have been on the front.

    `architecture`: the network with random weights is converted, and held against the budget, before it is trained.
    exact: where weights do not decide the shape; declared: also where a step declares its target, with a margin.
    `before_device`: a trial whose files miss a limit, or are dominated, by what is known without the device is not
    measured. `predictor`: latencies predicted from the study's own reports count as known, less their error.
    `promotion`: short trainings first; none: every training is whole.
    """

    architecture: Literal["exact", "declared", "off"] = "exact"
    before_device: bool = True
    predictor: bool = False
    promotion: PromotionConfig | None = None


class SearchConfig(Config):
    """What to search. `space`: dotted recipe path -> list of choices, or {low, high, log, step, integer}.

    `trials` counts all trials of the study, those of earlier runs included. `after_run`: `phonefit run` goes on with
    the search. `untrusted`: whether the sampler learns from trials whose times or energy stayed untrusted, where an
    objective or a limit depends on them; either way they are shown, and marked. `devices`: where bench.device names
    several, whether the worst of them counts in an objective, or their mean by these weights. `screening`: which
    trials are ended early. `storage`: sqlite or journal, files in the run folder for one machine; or
    postgresql://USER@HOST/DATABASE.
    """

    sampler: SamplerName = "tpe"
    trials: int = Field(default=20, ge=1)
    objectives: tuple[Objective, ...] = ("quality", "latency_p90_ms", "bytes")
    space: Mapping[str, Axis] = {}
    after_run: bool = False
    untrusted: Literal["ignore", "learn"] = "ignore"
    devices: Literal["worst"] | Mapping[str, Annotated[float, Field(gt=0)]] = "worst"
    screening: ScreeningConfig = ScreeningConfig()
    storage: str = "sqlite"

    @field_validator("storage")
    @classmethod
    def _known_and_without_password(cls, storage: str) -> str:
        if storage not in ("sqlite", "journal") and not is_database(storage):
            raise ValueError("should be sqlite, journal, or postgresql://USER@HOST/DATABASE")
        if is_database(storage) and (urlsplit(storage).password or "password=" in urlsplit(storage).query):
            raise ValueError(
                "a recipe is stored with each trial and must hold no password; put it into ~/.pgpass or PGPASSWORD"
            )
        return storage

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

    @model_validator(mode="after")
    def _promotion_has_an_aim(self) -> "SearchConfig":
        if self.screening.promotion is not None and "quality" not in self.objectives:
            raise ValueError("screening.promotion ranks trials by their quality, which must be one of the objectives")
        return self

    @field_validator("space")
    @classmethod
    def _distinct_choices(cls, space: Mapping[str, Axis]) -> Mapping[str, Axis]:
        for path, axis in space.items():
            if isinstance(axis, tuple) and (not axis or any(value in axis[:place] for place, value in enumerate(axis))):
                raise ValueError(f"{path} needs at least one choice, each different from the others")
        return space
