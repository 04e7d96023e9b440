"""The recipe: everything a run needs, as frozen models. Reading one from YAML is in `recipe_file`.

The configuration of each technique is here, its function in the file of the same name (prune, decompose, …).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    ByteSize,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    field_validator,
    model_validator,
)

from phonefit.models.artifact import Runtime
from phonefit.models.quantisation import CalibrationSet
from phonefit.models.record import Frozen
from phonefit.models.spec import HeadOptions


class Config(Frozen):
    """A part of a recipe: infinities are refused, JSON cannot carry them."""

    model_config = ConfigDict(allow_inf_nan=False)


class ModelConfig(Config):
    """Which network, and what it starts from.

    `weights`: "pretrained" (packaged), "random", or the path of a .safetensors or weights-only .pt file.
    """

    family: str | None = None
    factory: str | None = None
    arguments: Mapping[str, JsonValue] = {}
    weights: str = "random"
    depth: float = Field(default=1.0, gt=0, le=4)
    width: float = Field(default=1.0, gt=0, le=4)
    head: HeadOptions = HeadOptions()

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelConfig":
        if (self.family is None) == (self.factory is None):
            raise ValueError("give either family (a name from `phonefit models`) or factory (package.module:function)")
        if self.factory is not None and (self.weights == "pretrained" or self.depth != 1 or self.width != 1):
            raise ValueError(
                "a factory takes weights from a file and its own arguments; pretrained, depth and width are of families"
            )
        if self.factory is not None and not all(self.factory.partition(":")):
            raise ValueError(f"factory {self.factory!r} is not of the form package.module:function")
        if self.factory is not None and self.head != HeadOptions():
            raise ValueError("a factory builds its own head; head is of families, hand yours over in arguments")
        if self.family is not None and self.arguments:
            given = ", ".join(self.arguments)
            raise ValueError(f"arguments ({given}) are handed to a factory; a family takes depth, width and head")
        return self


class SplitConfig(Config):
    """Shares of the validation and the test side; the rest is for training."""

    validation: float = Field(default=0.15, gt=0, lt=0.9)
    test: float = Field(default=0.15, gt=0, lt=0.9)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_training(self) -> "SplitConfig":
        if self.validation + self.test > 0.9:
            raise ValueError(
                f"validation + test is {self.validation + self.test:.2f}, at most 0.9 leaves enough to train on"
            )
        return self


class InputConfig(Config):
    """Overrides of the model's usual preprocessing; what is not given stays as the model has it."""

    height: int | None = Field(default=None, ge=8, le=4096)
    width: int | None = Field(default=None, ge=8, le=4096)
    resize: Literal["stretch", "crop"] | None = None
    crop_share: float | None = Field(default=None, gt=0.1, le=1)
    interpolation: Literal["bilinear", "bicubic"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


class DataConfig(Config):
    """Where the labelled pictures are. Relative paths start at the current directory.

    source: image_folder (path/CLASS/picture), csv (path: file with columns path,label), idx (path: images,
    labels_path: labels), demo (packaged photographs; no path).
    """

    source: Literal["image_folder", "csv", "idx", "demo"]
    path: Path | None = None
    labels_path: Path | None = None
    limit: int | None = Field(default=None, ge=2)
    unreadable: Literal["skip", "refuse"] = "skip"
    split: SplitConfig = SplitConfig()
    input: InputConfig = InputConfig()

    @model_validator(mode="after")
    def _paths_fit(self) -> "DataConfig":
        if self.source != "demo" and self.path is None:
            raise ValueError(f"source {self.source} needs path, for example data.path=my_pictures")
        if self.source == "demo" and self.path is not None:
            raise ValueError("source demo is packaged and takes no path; for your own say source: image_folder")
        if (self.source == "idx") != (self.labels_path is not None):
            raise ValueError("labels_path is needed for source idx, and only there")
        return self


Flip = Literal["none", "horizontal", "both"]
ClassWeights = Literal["none", "balanced"]


class TrainConfig(Config):
    """Settings of the one training loop."""

    epochs: int = Field(default=5, ge=0, le=10_000)
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    batch_size: int = Field(default=32, ge=1, le=4096)
    weight_decay: float = Field(default=0.01, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    flip: Flip = "horizontal"
    shift: float = Field(default=0.05, ge=0, le=0.5)  # largest random shift, as a share of the side
    class_weights: ClassWeights = "none"


class FinetuneConfig(TrainConfig):
    """Fine-tuning: for the first `freeze_epochs` only the head learns.

    `early_stop` epochs without gain end it (0: never). The best epoch on the validation side is kept.
    """

    freeze_epochs: int = Field(default=1, ge=0)
    early_stop: int = Field(default=0, ge=0)


class TaughtConfig(Config):
    """Training after fine-tuning, with the parent as teacher.

    What says something about the pictures (batch_size, flip, shift, class_weights) is as in fine-tuning where it is not
    given: pictures that must not be mirrored there must not be mirrored here. Optimiser, learning rate and weight decay
    belong together and are this training's own.
    """

    epochs: int = Field(default=1, ge=0, le=10_000)
    learning_rate: float = Field(default=3e-4, gt=0, le=10)
    batch_size: int | None = Field(default=None, ge=1, le=4096)
    weight_decay: float = Field(default=0.01, ge=0)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    flip: Flip | None = None
    shift: float | None = Field(default=None, ge=0, le=0.5)
    class_weights: ClassWeights | None = None
    temperature: float = Field(default=2.0, gt=0)
    teacher_weight: float = Field(default=0.5, ge=0, le=1)

    def as_in(self, finetune: TrainConfig) -> Self:
        """With everything that is not given as it is in fine-tuning."""
        missing = [name for name, value in self if value is None]
        return self.model_copy(update={name: getattr(finetune, name) for name in missing})

    def settings(self) -> TrainConfig:
        """The settings of the training loop. What is still not given is as TrainConfig has it."""
        return TrainConfig(
            **{name: value for name, value in self if name in TrainConfig.model_fields and value is not None}
        )


class RecoverConfig(TaughtConfig):
    """Training after a step that changed the network. 0 epochs: none."""


class PruneConfig(Config):
    """Structured pruning: remove `ratio` of the channels, least important first, over all layers together."""

    technique: Literal["prune"] = "prune"
    ratio: float = Field(gt=0, lt=1)
    round_to: int = Field(default=8, ge=1, le=64)
    layer_limit: float = Field(default=0.7, gt=0, lt=1)  # largest share that one layer may lose
    keep: tuple[str, ...] = ()  # layers that stay as they are
    recover: RecoverConfig = RecoverConfig()


class DecomposeConfig(Config):
    """Low-rank factors: SVD for linear layers, Tucker-2 for convolutions; the rank keeps `energy` of the spectrum.

    A layer is left alone where the factors would not be at least `least_saving` cheaper.
    """

    technique: Literal["decompose"] = "decompose"
    energy: float = Field(default=0.9, gt=0, lt=1)
    least_saving: float = Field(default=0.1, ge=0, lt=1)
    keep: tuple[str, ...] = ()
    recover: RecoverConfig = RecoverConfig()


class DistilConfig(TaughtConfig):
    """Learn from a teacher's logits. The student is the current model; the teacher is the fine-tuned parent."""

    technique: Literal["distil"] = "distil"
    epochs: int = Field(default=2, ge=1, le=10_000)
    teacher_weight: float = Field(default=0.7, ge=0, le=1)


class QuantiseConfig(Config):
    """Asks the converters for a quantised file. `float_layers` stay in float."""

    technique: Literal["quantise"] = "quantise"
    scheme: Literal["int8_static"] = "int8_static"
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    float_layers: tuple[str, ...] = ()
    calibration: CalibrationSet = CalibrationSet()


StepConfig = Annotated[PruneConfig | DecomposeConfig | DistilConfig | QuantiseConfig, Field(discriminator="technique")]


class ParityConfig(Config):
    """How close a converted file must be to its parent, on samples of the validation side."""

    samples: int = Field(default=32, ge=1)
    cosine: float = Field(default=0.98, ge=-1, le=1)
    snr_db: float = Field(default=10.0)
    agreement: float = Field(default=0.9, ge=0, le=1)


class ConvertConfig(Config):
    """Which files to make. `original` also converts the fine-tuned float parent, to compare with."""

    runtimes: tuple[Runtime, ...] = ("executorch", "tflite", "onnx")
    original: bool = True
    parity: ParityConfig = ParityConfig()
    least_delegated: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _some(self) -> "ConvertConfig":
        if not self.runtimes or len(set(self.runtimes)) != len(self.runtimes):
            raise ValueError("runtimes must name each wanted runtime once")
        return self


class BenchConfig(Config):
    """How to measure. A measurement of the same file on the same device is reused unless `reuse` is false."""

    device: str = "host"
    threads: int = Field(default=1, ge=1, le=64)
    warmups: int = Field(default=5, ge=0)
    repeats: int = Field(default=50, ge=1)
    attempts: int = Field(default=2, ge=1, le=10)  # an untrusted measurement is repeated
    reuse: bool = True


class BudgetConfig(Config):
    """Limits that a file must meet; what is not given is not limited.

    ram x ram_share is a limit on peak memory, beside `peak_memory`.
    """

    ram: ByteSize | None = None
    ram_share: float = Field(default=0.1, gt=0, le=1)
    peak_memory: ByteSize | None = None
    file_size: ByteSize | None = None
    latency_p90_ms: float | None = Field(default=None, gt=0)
    quality_drop: float | None = Field(default=None, ge=0, le=1)


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


Objective = Literal["quality", "latency_p90_ms", "bytes", "peak_memory"]
SamplerName = Literal["random", "tpe"]
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
    the search.
    """

    sampler: SamplerName = "tpe"
    trials: int = Field(default=20, ge=1)
    objectives: tuple[Objective, ...] = ("quality", "latency_p90_ms", "bytes")
    space: Mapping[str, Axis] = {}
    after_run: bool = False

    @field_validator("objectives")
    @classmethod
    def _each_once(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if not objectives or len(set(objectives)) != len(objectives):
            raise ValueError("name each wanted objective once, and at least one")
        return objectives

    @field_validator("space")
    @classmethod
    def _distinct_choices(cls, space: Mapping[str, Axis]) -> Mapping[str, Axis]:
        for path, axis in space.items():
            if isinstance(axis, tuple) and (not axis or any(value in axis[:place] for place, value in enumerate(axis))):
                raise ValueError(f"{path} needs at least one choice, each different from the others")
        return space


class Recipe(Config):
    """One run, from data to measured files."""

    schema_number: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = 0
    threads: int = Field(default=1, ge=1, le=64)
    model: ModelConfig
    task: str = "classification"
    data: DataConfig
    finetune: FinetuneConfig = FinetuneConfig()
    compress: tuple[StepConfig, ...] = ()
    convert: ConvertConfig = ConvertConfig()
    bench: BenchConfig = BenchConfig()
    budget: BudgetConfig = BudgetConfig()
    search: SearchConfig = SearchConfig()

    @field_validator("name")
    @classmethod
    def _not_the_store(cls, name: str) -> str:
        if name.lower() == "store":  # some file systems do not tell upper from lower case
            raise ValueError(f"{name!r} is the folder of the stage results inside the runs folder; use another name")
        return name

    @field_validator("compress")
    @classmethod
    def _one_quantisation(cls, compress: tuple[StepConfig, ...]) -> tuple[StepConfig, ...]:
        places = [index for index, step in enumerate(compress) if step.technique == "quantise"]
        if len(places) > 1:
            raise ValueError(f"quantise at steps {places}; a checkpoint carries one quantisation")
        return compress


def resolved_steps(recipe: Recipe) -> tuple[StepConfig, ...]:
    """The compression steps as they are run: what their trainings leave open is as in fine-tuning."""
    steps: list[StepConfig] = []
    for step in recipe.compress:
        if isinstance(step, PruneConfig | DecomposeConfig):
            steps.append(step.model_copy(update={"recover": step.recover.as_in(recipe.finetune)}))
        else:
            steps.append(step.as_in(recipe.finetune) if isinstance(step, DistilConfig) else step)
    return tuple(steps)
