"""What a recipe says about its task: its name, its name with options, or a task of a person's own."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from phonefit.models.record import Frozen

RegressionLoss = Literal["l1", "huber", "expectation", "ordinal"]


class RegressionOptions(Frozen):
    """A number for each picture, in `unit`. Answers stay within `minimum` and `maximum` where they are given.

    `loss`: l1 and huber are of one output, on the scale of the training numbers' standard deviation. expectation: a
    probability for each of `bins` evenly spaced numbers, whose mean is the answer (DEX: Rothe et al. 2015; for ages
    minimum 0, maximum 100, bins 101). ordinal: a yes or no for each step between them, whose sum is the answer (Niu et
    al. 2016, CVPR). Both span the training numbers where minimum and maximum are not given.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    name: Literal["regression"] = "regression"
    unit: str = ""
    loss: RegressionLoss = "huber"
    minimum: float | None = None
    maximum: float | None = None
    bins: int = Field(default=41, ge=3, le=1001)

    @model_validator(mode="after")
    def _range_is_ordered(self) -> "RegressionOptions":
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is not below maximum {self.maximum:g}")
        return self


class MultiLabelOptions(Frozen):
    """Any number of labels for each picture. Each label's threshold is the highest one that finds the share `recall`
    of its pictures on the validation side.
    """

    name: Literal["multi_label"] = "multi_label"
    recall: float = Field(default=0.9, gt=0, le=1)


class OwnTaskOptions(Frozen):
    """A task of a person's own: `factory` is "package.module:function", which is called with `arguments`."""

    factory: str
    arguments: Mapping[str, JsonValue] = {}

    @field_validator("factory")
    @classmethod
    def _names_a_function(cls, factory: str) -> str:
        if not all(factory.partition(":")):
            raise ValueError(f"factory {factory!r} is not of the form package.module:function")
        return factory


def _kind_of_task(value: object) -> str | None:
    if isinstance(value, str):
        return "name"
    if isinstance(value, Mapping):
        return "factory" if "factory" in value else str(value.get("name"))
    return getattr(value, "name", "factory")


TaskOptions = RegressionOptions | MultiLabelOptions | OwnTaskOptions
TaskChoice = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[RegressionOptions, Tag("regression")]
    | Annotated[MultiLabelOptions, Tag("multi_label")]
    | Annotated[OwnTaskOptions, Tag("factory")],
    Discriminator(
        _kind_of_task,
        custom_error_type="task",
        custom_error_message="should be a task's name, {name: regression, …} or {name: multi_label, …} with options, "
        "or {factory: package.module:function}",
    ),
]
