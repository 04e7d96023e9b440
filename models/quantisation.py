"""A neutral description of the quantisation that a checkpoint asks for; each converter realises it or refuses it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from phonefit.models.record import Frozen

Scheme = Literal["int8_static", "int8_dynamic", "int8_weights", "int4_weights", "fp16"]
Granularity = Literal["per_channel", "per_tensor", "per_block"]
CalibrationMethod = Literal["minmax", "percentile", "mse"]

PRECISIONS: Mapping[Scheme, str] = {
    "int8_static": "int8",
    "int8_dynamic": "int8-dynamic",
    "int8_weights": "int8-weights",
    "int4_weights": "int4-weights",
    "fp16": "fp16",
}
"""What files and tables call a scheme."""

BLOCK = 32
"""Weights that share a scale with granularity per_block, along the input side of a linear layer."""


class CalibrationSet(Frozen):
    """A seeded, class-balanced sample of the training side, and how ranges are read off what it gives.

    `minmax` takes the extremes; `percentile` cuts (100 - percentile) / 2 per cent of the values at each end; `mse`
    takes the range with the least squared error after rounding to 8 bits.
    """

    samples: int = Field(default=128, ge=1)
    seed: int = 0
    method: CalibrationMethod = "mse"
    percentile: float = Field(default=99.99, gt=50, le=100)


class Quantisation(Frozen):
    """What to quantise and how finely.

    - `int8_static`: int8 weights and activations, ranges from the calibration set.
    - `int8_dynamic`: int8 weights; the range of each activation is taken while running.
    - `int8_weights`: int8 in the file, arithmetic in float32.
    - `int4_weights`: linear layers in int4, convolutions in int8; arithmetic as the runtime has it.
    - `fp16`: float16 in the file; ExecuTorch computes in float16, the others in float32.

    `granularity` says what shares a scale: an output channel, a tensor, or `BLOCK` inputs of an output channel (int4
    only). `float_layers` are left in float.
    """

    scheme: Scheme = "int8_static"
    granularity: Granularity = "per_channel"
    float_layers: tuple[str, ...] = ()
    calibration: CalibrationSet = CalibrationSet()

    @property
    def calibrated(self) -> bool:
        """Whether its files depend on the pictures of the calibration set."""
        return self.scheme == "int8_static"


def precision_of(quantisation: Quantisation | None) -> str:
    """What files and tables call it: "fp32", "int8", "int8-dynamic", "int8-weights", "int4-weights" or "fp16"."""
    return "fp32" if quantisation is None else PRECISIONS[quantisation.scheme]
