"""How the range of an activation is read off the calibration samples: the same for all runtimes.

The observers are torchao's, https://docs.pytorch.org/ao/stable/pt2e_quantization/index.html: histograms of 2048 bins
that are widened and merged as samples come, so memory does not grow with their number.
"""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torchao.quantization.pt2e.observer import HistogramObserver, MinMaxObserver

from phonefit.models.quantisation import CalibrationSet

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_SCALE = 2**-12  # as in the quantisers of XNNPACK and LiteRT


class PercentileObserver(HistogramObserver):  # type: ignore[misc]
    """Cuts (100 - percentile) / 2 per cent of the observed values at each end of the range."""

    def __init__(self, percentile: float, **options: Any) -> None:
        super().__init__(**options)
        self._cut = (1 - percentile / 100) / 2

    def _non_linear_param_search(self) -> "tuple[Tensor, Tensor]":
        """Lowest and highest value that stay; torchao's hook for the choice of a range from the histogram."""
        share = torch.cumsum(self.histogram.double(), 0) / self.histogram.double().sum()
        below = int(torch.searchsorted(share, self._cut, right=True))  # the first bin that is not cut whole
        above = min(int(torch.searchsorted(share, 1 - self._cut)), self.bins - 1)
        width = (self.max_val - self.min_val) / self.bins
        return self.min_val + width * below, self.min_val + width * (above + 1)


def observer(calibration: CalibrationSet) -> Any:
    """What makes an observer of activations; takes torchao's options (dtype, quant_min, qscheme, …)."""
    if calibration.method == "percentile":
        return PercentileObserver.with_args(percentile=calibration.percentile, eps=_SMALLEST_SCALE)
    return {"minmax": MinMaxObserver, "mse": HistogramObserver}[calibration.method].with_args(eps=_SMALLEST_SCALE)


def calibrated(config: Any, calibration: CalibrationSet) -> Any:
    """A quantiser's QuantizationConfig with the observer that is asked for on its activations.

    Input and output keep one specification: neighbours share an observer only where theirs are equal.
    """
    activation = replace(config.input_activation, observer_or_fake_quant_ctr=observer(calibration))
    return replace(config, input_activation=activation, output_activation=activation)


class ActivationRange:
    """The range of one activation, for a quantiser that has no observers of torchao's."""

    def __init__(self, calibration: CalibrationSet) -> None:
        make = partial(observer(calibration), dtype=torch.uint8, qscheme=torch.per_tensor_affine)
        self._observer = make(quant_min=0, quant_max=255)

    def observe(self, values: "Tensor") -> None:
        """Take the values of one sample, float32 of any shape."""
        self._observer(values)

    def limits(self) -> tuple[float, float]:
        """Lowest and highest value of the range."""
        if isinstance(self._observer, HistogramObserver):
            low, high = self._observer._non_linear_param_search()
        else:
            low, high = self._observer.min_val, self._observer.max_val
        return float(low), float(high)
