"""A neutral description of the quantisation that a checkpoint asks for; each converter realises it or refuses it."""

from typing import Literal

from pydantic import Field

from phonefit.models.record import Frozen


class CalibrationSet(Frozen):
    """A seeded, class-balanced sample of the training side."""

    samples: int = Field(default=128, ge=1)
    seed: int = 0


class Quantisation(Frozen):
    """What to quantise and how finely.

    `int8_static`: int8 weights and activations, ranges from the calibration set. `float_layers` are left in float.
    """

    scheme: Literal["int8_static"] = "int8_static"
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    float_layers: tuple[str, ...] = ()
    calibration: CalibrationSet = CalibrationSet()
