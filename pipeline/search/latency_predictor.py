"""The latency of a file from its layers, learned from the reports of the study itself.

    milliseconds = constant + sum over the kinds of layer: multiply-adds x a + elements moved x b

with coefficients of 0 or more (non-negative least squares, Lawson and Hanson 1974), which minimise the relative errors.
Files of one runtime, precision and number of threads on one device are one group with coefficients of its own. The
error is that of reports that were left out: each time all of one network, since files of the same network tell each
other's latency.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from phonefit.models.spec import Architecture

if TYPE_CHECKING:
    from torch import nn

LEAST_NETWORKS = 8
"""Different networks with a report, before a group is predicted at all."""
LARGEST_ERROR = 0.25
"""A group whose largest relative error on what was left out is higher is not used."""
MARGIN = 2
"""So many times the largest error is a prediction taken to be too high: of few reports the largest is not the worst."""

LayerSums = Mapping[str, float]
"""Name of a feature -> its sum over the layers of a network."""


@dataclass(frozen=True)
class Predictor:
    """What one group has taught.

    Attributes:
        coefficients: feature -> milliseconds of one.
        constant: milliseconds.
        errors: relative errors |predicted - measured| / measured of the reports when left out, in their order.
        networks: how many different ones there are.
    """

    coefficients: Mapping[str, float]
    constant: float
    errors: tuple[float, ...]
    networks: int

    @property
    def usable(self) -> bool:
        """Whether there are enough reports, and the largest error is small enough."""
        return self.networks >= LEAST_NETWORKS and max(self.errors) <= LARGEST_ERROR

    def milliseconds(self, sums: LayerSums) -> float:
        """The predicted latency; infinite for a network with a kind of layer that no report had."""
        if any(value and name not in self.coefficients for name, value in sums.items()):
            return np.inf
        return self.constant + sum(self.coefficients[name] * value for name, value in sums.items() if value)

    def least_milliseconds(self, sums: LayerSums) -> float:
        """What the latency will hardly be below: the prediction less a margin. 0 where it cannot be told."""
        predicted = self.milliseconds(sums)
        return predicted / (1 + MARGIN * max(self.errors)) if self.usable and np.isfinite(predicted) else 0.0

    def describe(self) -> str:
        """One line on its error."""
        typical, largest = float(np.median(self.errors)), max(self.errors)
        state = "used" if self.usable else "not used yet"
        return (
            f"{len(self.errors)} reports of {self.networks} networks, left-out error {typical:.1%} (median), "
            f"{largest:.1%} (largest); {state}"
        )


def layer_sums(network: "nn.Module", architecture: Architecture) -> dict[str, float]:
    """Multiply-adds and moved elements (weights, inputs, outputs) of a network, by kind of layer, in millions."""
    # Imported here: studies are also read and shared by processes that need no torch.
    from torch import nn

    from phonefit.pipeline.compress.cost import layer_costs

    layers = dict(network.named_modules())
    sums: dict[str, float] = {}
    for name, cost in layer_costs(network, architecture).items():
        layer = layers[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)  # layer_costs looks at no others
        inputs, outputs = (
            (layer.in_channels, layer.out_channels)
            if isinstance(layer, nn.Conv2d)
            else (layer.in_features, layer.out_features)
        )
        moved = layer.weight.numel() + cost.positions_in * inputs + cost.positions_out * outputs
        for what, count in (("multiply-adds", cost.multiply_adds), ("elements", moved)):
            feature = f"{_kind(layer)} {what}"
            sums[feature] = sums.get(feature, 0.0) + count / 1e6
    return sums


def _kind(layer: "nn.Conv2d | nn.Linear") -> str:
    """Layers of a kind run on the same kernels."""
    from torch import nn

    if isinstance(layer, nn.Linear):
        return "linear"
    if layer.groups > 1:
        return "depthwise" if layer.groups == layer.in_channels else "grouped"
    return "pointwise" if max(layer.kernel_size) == 1 else "convolution"


def fit(reports: Sequence[tuple[LayerSums, float]]) -> Predictor | None:
    """A predictor from the layer sums and the milliseconds of a group's reports; None for fewer than two networks."""
    names = sorted({name for sums, _ in reports for name in sums})
    features = np.array([[1.0, *(sums.get(name, 0.0) for name in names)] for sums, _ in reports])
    measured = np.array([milliseconds for _, milliseconds in reports])
    networks = np.unique(features, axis=0, return_inverse=True)[1].reshape(-1) if reports else np.array([])
    count = len(set(networks.tolist()))
    if count < 2:
        return None
    errors = np.empty(len(reports))
    for network in range(count):
        out = networks == network
        errors[out] = np.abs(features[out] @ _solved(features[~out], measured[~out]) / measured[out] - 1)
    constant, *coefficients = _solved(features, measured).tolist()
    return Predictor(dict(zip(names, coefficients, strict=True)), constant, tuple(errors.tolist()), count)


def _solved(features: NDArray[np.float64], measured: NDArray[np.float64]) -> NDArray[np.float64]:
    relative = features / measured[:, None]
    scale = np.maximum(np.abs(relative).max(axis=0), np.finfo(np.float64).tiny)
    solution: NDArray[np.float64] = nnls(relative / scale, np.ones(len(measured)))[0] / scale
    return solution
