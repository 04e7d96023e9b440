"""The budget of a recipe, and `compress: {auto: true}`: compression that is planned to meet it."""

from typing import Literal

from pydantic import ByteSize, Field, field_validator

from phonefit.models.quantisation import CalibrationSet, Scheme
from phonefit.pipeline.recipe_steps import Config, RecoverConfig

PlannedTechnique = Literal["prune", "decompose", "quantise", "distil"]


class BudgetConfig(Config):
    """Limits that a file must meet; what is not given is not limited.

    ram x ram_share is a limit on peak memory, beside `peak_memory`. `energy_uj` is microjoules of one inference; it
    needs bench.energy, or a device that models the energy from counts. `instructions` of one inference need a device
    that counts them. `quality_drop` is a share that is lost, such as 0.02 from 84 to 82 %; of a quality that is an
    error, the growth of the error.
    """

    ram: ByteSize | None = None
    ram_share: float = Field(default=0.1, gt=0, le=1)
    peak_memory: ByteSize | None = None
    file_size: ByteSize | None = None
    latency_p90_ms: float | None = Field(default=None, gt=0)
    energy_uj: float | None = Field(default=None, gt=0)
    instructions: int | None = Field(default=None, gt=0)
    quality_drop: float | None = Field(default=None, ge=0, le=1)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the limits that are given."""
        return tuple(name for name, value in self if name != "ram_share" and value is not None)

    def tightened(self, other: "BudgetConfig") -> "BudgetConfig":
        """Of each limit the lower one of the two; a RAM with the share that leaves less."""
        limits: dict[str, object] = {}
        for name in (name for name in (*self.given, *other.given) if name != "ram"):
            limits[name] = min(value for value in (getattr(self, name), getattr(other, name)) if value is not None)
        rams = [(budget.ram * budget.ram_share, budget) for budget in (self, other) if budget.ram is not None]
        if rams:
            least = min(rams, key=lambda pair: pair[0])[1]
            limits |= {"ram": least.ram, "ram_share": least.ram_share}
        return BudgetConfig.model_validate(limits)


class AutoConfig(Config):
    """Compression that is planned: combinations of techniques are scored, and the one that should meet the budget with
    the least loss is built and measured; where the measurement disagrees, the plan is corrected.

    `budget`: limits beside those of the recipe's own budget, whichever is lower. `schemes`: of quantisation; none
    given: all that each runtime of the recipe runs. With `distil` one training at the end takes the place of one after
    each step; `recover` is how. `tries`: at most so many plans are built. `margin`: a prediction must be this share
    below a limit.
    """

    auto: Literal[True]
    budget: BudgetConfig | None = None
    techniques: tuple[PlannedTechnique, ...] = ("prune", "decompose", "quantise", "distil")
    schemes: tuple[Scheme, ...] = ()
    calibration: CalibrationSet = CalibrationSet()
    tries: int = Field(default=3, ge=1, le=10)
    margin: float = Field(default=0.02, ge=0, lt=0.5)
    recover: RecoverConfig = RecoverConfig()

    @field_validator("techniques")
    @classmethod
    def _make_smaller(cls, techniques: tuple[PlannedTechnique, ...]) -> tuple[PlannedTechnique, ...]:
        if len(set(techniques)) != len(techniques):
            raise ValueError("techniques must name each wanted technique once")
        if not set(techniques) - {"distil"}:
            raise ValueError("none of these makes a file smaller or faster; name prune, decompose or quantise")
        return techniques

    @field_validator("schemes")
    @classmethod
    def _each_once(cls, schemes: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
        if len(set(schemes)) != len(schemes):
            raise ValueError("schemes must name each wanted scheme once")
        return schemes
