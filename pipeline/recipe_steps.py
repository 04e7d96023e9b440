"""The compression steps of a recipe, and the settings of training.

The configuration of each technique is here, its function in the file of the same name (prune, decompose, …).
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import ByteSize, ConfigDict, Field, model_validator

from phonefit.models.quantisation import CalibrationSet, Granularity, Scheme
from phonefit.models.record import Frozen
from phonefit.models.spec import HeadOptions


class Config(Frozen):
    """A part of a recipe: infinities are refused, JSON cannot carry them."""

    model_config = ConfigDict(allow_inf_nan=False)


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

    `early_stop` epochs without gain end it (0: never). The best epoch on the validation side is kept. `layer_decay`:
    learning rate of the first layer as a share of the last one's, those between in even ratios (Howard and Ruder 2018,
    arXiv 1801.06146). `cached_features`: for a few pictures; only the head learns, in seconds, from features that are
    computed once; of the other settings only class_weights matters then.
    """

    freeze_epochs: int = Field(default=1, ge=0)
    early_stop: int = Field(default=0, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    cached_features: bool = False


class FeatureConfig(Config):
    """Learning from the teacher's inner activations, besides its outputs.

    `layers`: "auto" pairs the last layers of each spatial size that both networks have, or layer of the student ->
    layer of the teacher. `loss`: mse of the activations, through a 1x1 convolution where the numbers of channels differ
    (FitNets), or attention: where the activations are strong (attention transfer). `weight`: beside the rest's 1.
    """

    layers: Literal["auto"] | Mapping[str, str] = "auto"
    loss: Literal["mse", "attention"] = "mse"
    weight: float = Field(default=1.0, gt=0, le=1000)


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
    features: FeatureConfig | None = None

    def as_in(self, finetune: TrainConfig) -> Self:
        """With everything that is not given as it is in fine-tuning."""
        missing = [name for name, value in self if value is None and name in TrainConfig.model_fields]
        return self.model_copy(update={name: getattr(finetune, name) for name in missing})

    def settings(self) -> TrainConfig:
        """The settings of the training loop. What is still not given is as TrainConfig has it."""
        return TrainConfig(
            **{name: value for name, value in self if name in TrainConfig.model_fields and value is not None}
        )


class RecoverConfig(TaughtConfig):
    """Training after a step that changed the network. 0 epochs: none."""


PruneGoal = Literal["multiply_adds", "bytes", "latency_ms", "instructions"]


class PruneConfig(Config):
    """Structured pruning: remove channels, least important first, over all layers together.

    How many is said by exactly one of `ratio` (share of the channels that goes) and the goals of PruneGoal, which are
    met with as little pruning as possible.
    """

    technique: Literal["prune"] = "prune"
    ratio: float | None = Field(default=None, gt=0, lt=1)
    multiply_adds: float | None = Field(default=None, gt=0)  # below 1: share that is kept; from 1: their number
    bytes: ByteSize | None = Field(default=None, gt=0)  # of the weights in float32
    latency_ms: float | None = Field(default=None, gt=0)  # median of the first runtime's file on the run's device
    instructions: int | None = Field(default=None, gt=0)  # of an inference, where the device counts them
    criterion: Literal["magnitude", "bn_scale", "taylor", "activation"] = "activation"
    steps: int = Field(default=1, ge=1, le=32)  # prune and recover so often; the epochs are shared out
    growth: Literal["geometric", "linear"] = "geometric"
    round_to: int = Field(default=8, ge=1, le=64)
    layer_limit: float = Field(default=0.7, gt=0, lt=1)  # largest share that one layer may lose
    keep: tuple[str, ...] = ()  # layers that stay as they are
    recover: RecoverConfig = RecoverConfig()

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        aims = ("ratio", *get_args(PruneGoal))
        given = [name for name in aims if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"{' and '.join(given)} exclude each other" if given else "none is given"
            raise ValueError(f"prune takes exactly one of {', '.join(aims)}; {found}")
        return self

    @property
    def asks(self) -> bool:
        """Whether the step needs measurements of its candidates."""
        return self.latency_ms is not None or self.instructions is not None


FactorMethod = Literal["svd", "tucker", "cp", "tensor_train"]


class DecomposeTarget(Config):
    """What shall be left of the network, as a share of what it was before the step: one of the two."""

    multiply_adds: float | None = Field(default=None, gt=0, lt=1)
    bytes: float | None = Field(default=None, gt=0, lt=1)  # of the weights, at whatever precision

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.multiply_adds is None) == (self.bytes is None):
            raise ValueError("give either multiply_adds or bytes, for example target: {multiply_adds: 0.5}")
        return self


class DecomposeConfig(Config):
    """Low-rank factors in place of layers.

    `method` auto: SVD for linear layers and 1x1 convolutions; for others Tucker-2, and with a target whichever of SVD,
    Tucker-2 and tensor train loses least. `ranks`: energy keeps `energy` of each spectrum, vbmf what is more than
    noise, budget meets `target` with the least loss over all layers. `aware`: what counts is what the layers compute
    on the calibration pictures, not their weights. A layer is left alone where the factors would not be at least
    `least_saving` cheaper; with `on_device`, also where the run's device is not faster with them.
    """

    technique: Literal["decompose"] = "decompose"
    method: Literal["auto"] | FactorMethod = "auto"
    ranks: Literal["energy", "vbmf", "budget"] = "energy"
    energy: float = Field(default=0.9, gt=0, lt=1)
    target: DecomposeTarget | None = None
    aware: bool = True
    calibration: CalibrationSet = CalibrationSet()
    least_saving: float = Field(default=0.1, ge=0, lt=1)
    on_device: bool = False
    keep: tuple[str, ...] = ()
    recover: RecoverConfig = RecoverConfig()

    @model_validator(mode="after")
    def _target_and_budget(self) -> Self:
        if self.ranks == "budget" and self.target is None:
            raise ValueError("ranks: budget needs a target, for example target: {multiply_adds: 0.5}")
        if self.ranks != "budget" and self.target is not None:
            raise ValueError(f"target is met by ranks: budget; ranks is {self.ranks}")
        return self


class StudentConfig(Config):
    """Another network as student: a registered family, of the recipe's task and input size."""

    family: str
    weights: Literal["pretrained", "random"] = "random"
    depth: float = Field(default=1.0, gt=0, le=4)
    width: float = Field(default=1.0, gt=0, le=4)
    head: HeadOptions = HeadOptions()


class DistilConfig(TaughtConfig):
    """Learn from a teacher: the fine-tuned parent. The student is the current model, or a new one of another family."""

    technique: Literal["distil"] = "distil"
    epochs: int = Field(default=2, ge=1, le=10_000)
    teacher_weight: float = Field(default=0.7, ge=0, le=1)
    student: StudentConfig | None = None


class QatConfig(TaughtConfig):
    """Quantisation-aware training: the network learns to compute with rounded weights and activations."""

    epochs: int = Field(default=3, ge=1, le=10_000)
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    teacher_weight: float = Field(default=0.7, ge=0, le=1)

    @model_validator(mode="after")
    def _no_features(self) -> Self:
        if self.features is not None:
            raise ValueError("qat learns from the teacher's outputs; features belong to a distil step before it")
        return self


class MixedConfig(Config):
    """Which layers stay in float beside int8 ones: the fewest that keep `quality_drop`, or as many as fit into `bytes`.

    `quality_drop` is of the float network's quality on the validation side; `bytes` are those of all weights.
    """

    quality_drop: float | None = Field(default=None, ge=0, le=1)
    bytes: ByteSize | None = None

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.quality_drop is None) == (self.bytes is None):
            raise ValueError("give either quality_drop or bytes, for example mixed: {quality_drop: 0.005}")
        return self


SIMULATED: frozenset[str] = frozenset({"int8_static"})
"""Schemes that qat, equalise, bias_correction and mixed know."""


class QuantiseConfig(Config):
    """Asks the converters for a quantised file. `float_layers` stay in float."""

    technique: Literal["quantise"] = "quantise"
    scheme: Scheme = "int8_static"
    granularity: Granularity = "per_channel"
    float_layers: tuple[str, ...] = ()
    calibration: CalibrationSet = CalibrationSet()
    equalise: bool = False  # scale channels so that the weights of neighbouring layers have like ranges
    qat: QatConfig | None = None  # train with rounding
    bias_correction: bool = False  # take out of the biases what rounding shifts the mean of each layer by
    mixed: MixedConfig | None = None  # choose layers that stay in float, beside float_layers

    @model_validator(mode="after")
    def _is_simulated(self) -> Self:
        given = [name for name in ("equalise", "qat", "bias_correction", "mixed") if getattr(self, name)]
        if given and self.scheme not in SIMULATED:
            raise ValueError(f"{', '.join(given)}: for {', '.join(sorted(SIMULATED))} only, not for {self.scheme}")
        return self

    @property
    def reads_pictures(self) -> bool:
        """Whether the step trains or calibrates; otherwise it only attaches what is asked for."""
        return self.equalise or self.bias_correction or self.qat is not None or self.mixed is not None


StepConfig = Annotated[PruneConfig | DecomposeConfig | DistilConfig | QuantiseConfig, Field(discriminator="technique")]
