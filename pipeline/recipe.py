"""The recipe: everything a run needs, as frozen models. Reading one from YAML is in `recipe_file`.

The compression steps are in `recipe_steps`, the budget and planned compression in `recipe_auto`, the search is in
`recipe_search`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from phonefit.models.artifact import Runtime
from phonefit.models.spec import HeadOptions
from phonefit.models.targets import SplitBy
from phonefit.models.tasks.options import TaskChoice
from phonefit.pipeline.recipe_auto import AutoConfig, BudgetConfig
from phonefit.pipeline.recipe_search import SearchConfig
from phonefit.pipeline.recipe_steps import (
    Config,
    DecomposeConfig,
    DistilConfig,
    FinetuneConfig,
    PruneConfig,
    QuantiseConfig,
    StepConfig,
)


class ModelConfig(Config):
    """Which network, and what it starts from.

    `weights`: "pretrained" (packaged), "random", the path of a .safetensors or weights-only .pt file, or the folder of
    a fine-tuned checkpoint, whose head keeps the labels that the data has too.
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
    """Shares of the validation and the test side; the rest is for training.

    `by`: what is kept on one side: each picture, or all of a class, so that quality is judged on classes that were not
    trained on (an open set, such as strangers' faces). Where it is not given, embeddings are split by class, and
    everything else by picture.
    """

    validation: float = Field(default=0.15, gt=0, lt=0.9)
    test: float = Field(default=0.15, gt=0, lt=0.9)
    seed: int = 0
    by: SplitBy | None = None

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
    resize: Literal["stretch", "crop", "letterbox"] | None = None
    crop_share: float | None = Field(default=None, gt=0.1, le=1)
    padding: int | None = Field(default=None, ge=0, le=255)
    interpolation: Literal["bilinear", "bicubic"] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None


PATHLESS = ("demo", "drawn_faces", "drawn_signs")
"""Sources that phonefit brings."""


class DataConfig(Config):
    """Where the labelled pictures are. Relative paths start at the current directory.

    source: image_folder (path/CLASS/picture), csv (path: file with columns path,label for classes, path,value for
    numbers, path,labels for labels separated by "|", or `column` instead of the second), idx (path: images,
    labels_path: labels), demo (packaged photographs; no path; `column` cell: the classes are the types of cells),
    drawn_faces (generated; no path), coco (boxes; path: folder of pictures, labels_path: annotations in JSON),
    drawn_signs (generated, boxes; no path).
    """

    source: Literal["image_folder", "csv", "idx", "demo", "drawn_faces", "coco", "drawn_signs"]
    path: Path | None = None
    labels_path: Path | None = None
    column: str | None = None
    limit: int | None = Field(default=None, ge=2)
    shots: int | None = Field(default=None, ge=1)  # train on so many pictures of each class only
    unreadable: Literal["skip", "refuse"] = "skip"
    split: SplitConfig = SplitConfig()
    input: InputConfig = InputConfig()

    @model_validator(mode="after")
    def _paths_fit(self) -> "DataConfig":
        if self.source not in PATHLESS and self.path is None:
            raise ValueError(f"source {self.source} needs path, for example data.path=my_pictures")
        if self.source in PATHLESS and self.path is not None:
            raise ValueError(
                f"source {self.source} comes with phonefit and takes no path; for your own say source: image_folder"
            )
        if (self.source in ("idx", "coco")) != (self.labels_path is not None):
            raise ValueError("labels_path is needed for the sources idx and coco, and only there")
        if self.column is not None and self.source not in ("csv", "demo"):
            raise ValueError("column is of source csv, or cell of source demo")
        return self


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


def _plain_if_alone(device: object) -> object:
    return device[0] if isinstance(device, list | tuple) and len(device) == 1 else device


class BenchConfig(Config):
    """How to measure. A measurement of the same file on the same device is reused unless `reuse` is false.

    `device`: a name, or a list of them: each file is measured on each, and must meet the budget on each. `energy`:
    sample the device's power too, which takes a minute more for each file; see docs/energy.md.
    """

    device: Annotated[str | tuple[str, ...], BeforeValidator(_plain_if_alone)] = "host"
    threads: int = Field(default=1, ge=1, le=64)
    warmups: int = Field(default=5, ge=0)
    repeats: int = Field(default=50, ge=1)
    attempts: int = Field(default=2, ge=1, le=10)  # an untrusted measurement is repeated
    energy: bool = False
    reuse: bool = True

    @field_validator("device")
    @classmethod
    def _each_once(cls, device: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not isinstance(device, str) and (not device or len(set(device)) != len(device)):
            raise ValueError("name one device, or each of several once")
        return device

    @property
    def devices(self) -> tuple[str, ...]:
        """The names of the devices, in the order of each file's reports."""
        return (self.device,) if isinstance(self.device, str) else self.device

    def on(self, device: str) -> "BenchConfig":
        """The same on one of the devices."""
        return self.model_copy(update={"device": device})


def _kind_of_compression(value: object) -> str:
    return "planned" if isinstance(value, Mapping | AutoConfig) else "listed"


Compression = Annotated[
    Annotated[tuple[StepConfig, ...], Tag("listed")] | Annotated[AutoConfig, Tag("planned")],
    Discriminator(_kind_of_compression),
]
"""Steps, or a mapping that asks for a plan."""


class Recipe(Config):
    """One run, from data to measured files.

    `train_on`: what torch computes on; the weights differ a little from one to the other. `threads`: of the processor.
    """

    schema_number: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = 0
    threads: int = Field(default=1, ge=1, le=64)
    train_on: Literal["cpu", "cuda", "mps"] = "cpu"
    model: ModelConfig
    task: TaskChoice = "classification"
    data: DataConfig
    finetune: FinetuneConfig = FinetuneConfig()
    compress: Compression = ()
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
    def _one_quantisation(cls, compress: Compression) -> Compression:
        steps = () if isinstance(compress, AutoConfig) else compress
        places = [index for index, step in enumerate(steps) if step.technique == "quantise"]
        if len(places) > 1:
            raise ValueError(f"quantise at steps {places}; a checkpoint carries one quantisation")
        return compress

    @property
    def steps(self) -> tuple[StepConfig, ...]:
        """The compression steps that are listed; none where they are planned."""
        return () if isinstance(self.compress, AutoConfig) else self.compress

    @property
    def device_weights(self) -> tuple[float, ...] | None:
        """Share of each device of `bench` in the search's objectives; None: the worst of them counts."""
        weights = self.search.devices
        return None if weights == "worst" else tuple(weights.get(name, 0.0) for name in self.bench.devices)

    @property
    def limits(self) -> BudgetConfig:
        """The budget; where compression is planned, with the limits of the plan."""
        planned = self.compress.budget if isinstance(self.compress, AutoConfig) else None
        return self.budget if planned is None else self.budget.tightened(planned)


def resolved_steps(recipe: Recipe) -> tuple[StepConfig, ...]:
    """The compression steps as they are run: what their trainings leave open is as in fine-tuning."""
    steps: list[StepConfig] = []
    for step in recipe.steps:
        if isinstance(step, PruneConfig | DecomposeConfig):
            steps.append(step.model_copy(update={"recover": step.recover.as_in(recipe.finetune)}))
        elif isinstance(step, QuantiseConfig) and step.qat is not None:
            steps.append(step.model_copy(update={"qat": step.qat.as_in(recipe.finetune)}))
        else:
            steps.append(step.as_in(recipe.finetune) if isinstance(step, DistilConfig) else step)
    return tuple(steps)
