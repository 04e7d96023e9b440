"""The compression steps of a recipe, and the settings of training.

The configuration of each technique is here, its function in the file of the same name (prune, decompose, …).
"""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field

from phonefit.models.quantisation import CalibrationSet
from phonefit.models.record import Frozen


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
