"""The fit of a core's coefficients to a real device: measured latencies and exact counts of the same files."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from phonefit.device_bench.device import DeviceError
from phonefit.device_bench.emulator.latency_model import TERMS, Core
from phonefit.device_bench.report import Report
from phonefit.models.artifact import Runtime
from phonefit.models.record import Frozen

# With fewer reports than this no coefficient can be told from another, however strong the prior.
SMALLEST_FIT = 3


class FittedModel(Frozen):
    """One model of a fit.

    Attributes:
        measured_nanoseconds: median latency on the device.
        fitted_nanoseconds: estimate with the fitted coefficients.
        unseen_nanoseconds: estimate with coefficients fitted to the other models; None when those are too few.
    """

    name: str
    sha256: str
    runtime: Runtime
    measured_nanoseconds: float = Field(gt=0)
    fitted_nanoseconds: float
    unseen_nanoseconds: float | None = None

    @property
    def error(self) -> float:
        """Estimate / measured - 1."""
        return self.fitted_nanoseconds / self.measured_nanoseconds - 1

    @property
    def unseen_error(self) -> float | None:
        """The same of the estimate by the other models' fit."""
        return None if self.unseen_nanoseconds is None else self.unseen_nanoseconds / self.measured_nanoseconds - 1


class Calibration(Frozen):
    """Coefficients fitted to a real device.

    Attributes:
        cycles: for `Core.cycles`.
        models: what they were fitted to, sorted by digest.
        error: median of |estimate / measured - 1| over those models.
        largest_error: the largest of them.
        unseen_error: median of the same for each model by a fit to the others: what to expect for another model. None
            when the others are too few.
    """

    cycles: Mapping[str, float]
    models: tuple[FittedModel, ...]
    error: float
    largest_error: float
    unseen_error: float | None

    def summary(self, device: str) -> str:
        """What the coefficients were fitted to, and how well."""
        unseen = "unknown" if self.unseen_error is None else f"{self.unseen_error:.1%}"
        return (
            f"fitted to {len(self.models)} reports of {device}: median error {self.error:.1%}, "
            f"largest {self.largest_error:.1%}, median for an unseen model {unseen}"
        )

    def apply(self, core: Core, device: str) -> Core:
        """The core with these coefficients; `device` names what was measured, for the sources."""
        said = self.summary(device)
        return core.model_copy(
            update={"cycles": self.cycles, "sources": {**core.sources, **dict.fromkeys(TERMS, said)}, "fitted": said}
        )


def fit(measured: Sequence[Report], counted: Sequence[Report], core: Core, prior: float = 0.01) -> Calibration:
    """Fit a core's coefficients to a real device.

    Least squares of the relative error, with coefficients of 0 or more (Lawson and Hanson, Solving Least Squares
    Problems, 1974). Models use the classes in much the same proportions, so that a few of them cannot tell the
    coefficients apart: each is drawn to its present value, by a penalty of `prior` x (new / present - 1) squared
    against the mean squared relative error.

    Args:
        measured: reports of the device, one thread.
        counted: reports of the same files by the counting tier.
        core: gives the clock and the coefficients to start from.
        prior: how strongly coefficients are held near the present ones.

    Raises:
        DeviceError: fewer than three files are in both, a report is of the other kind, of several threads or of
            another device than the first.
    """
    pairs = _pairs(measured, counted)
    if len(pairs) < SMALLEST_FIT:
        raise DeviceError(
            f"a fit needs at least {SMALLEST_FIT} files that were both measured on the device and counted, "
            f"got {len(pairs)}; measure more models, unlike in size and kind"
        )
    counts = np.array([[row[name] for name in TERMS] for _, row, _ in pairs])
    nanoseconds = np.array([time for _, _, time in pairs])
    cycles = nanoseconds * core.frequency_hertz / 1e9
    start = np.array([core.cycles[name] for name in TERMS])
    fitted = _least_squares(counts, cycles, start, prior)
    estimates = counts @ fitted / core.frequency_hertz * 1e9
    errors = np.abs(estimates / nanoseconds - 1)
    unseen: list[float | None] = [None] * len(pairs)
    if len(pairs) > SMALLEST_FIT:
        for left_out in range(len(pairs)):
            others = np.arange(len(pairs)) != left_out
            model = _least_squares(counts[others], cycles[others], start, prior)
            unseen[left_out] = float(counts[left_out] @ model / core.frequency_hertz * 1e9)
    models = tuple(
        FittedModel(
            name=report.model_name,
            sha256=report.model_sha256,
            runtime=report.runtime,
            measured_nanoseconds=time,
            fitted_nanoseconds=float(estimate),
            unseen_nanoseconds=without,
        )
        for (report, _, time), estimate, without in zip(pairs, estimates, unseen, strict=True)
    )
    known = [abs(model.unseen_error) for model in models if model.unseen_error is not None]
    return Calibration(
        cycles=dict(zip(TERMS, map(float, fitted), strict=True)),
        models=models,
        error=float(np.median(errors)),
        largest_error=float(errors.max()),
        unseen_error=statistics.median(known) if known else None,
    )


def _least_squares(
    counts: NDArray[np.float64], cycles: NDArray[np.float64], start: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    from scipy.optimize import nnls

    # in units of the present coefficients, so that all are of one size; one that is 0 is freed with a small unit
    unit = np.where(start > 0, start, 1e-3)
    rows = counts * unit / cycles[:, None] / np.sqrt(len(cycles))
    held = np.sqrt(prior) * np.eye(len(unit)) / np.sqrt(len(unit))
    target = np.concatenate([np.full(len(cycles), 1 / np.sqrt(len(cycles))), held @ (start / unit)])
    solution: NDArray[np.float64] = nnls(np.vstack([rows, held]), target)[0]
    return solution * unit


def _pairs(measured: Sequence[Report], counted: Sequence[Report]) -> list[tuple[Report, dict[str, float], float]]:
    """Measured report, counts of one inference and measured nanoseconds, for each file that is in both."""
    for report in measured:
        _require(report, "measured")
        if not report.device.like(measured[0].device):
            raise DeviceError(
                f"{report.model_name} was measured on {report.device.name}, {measured[0].model_name} on "
                f"{measured[0].device.name}; a fit takes reports of one device"
            )
    by_file = {(report.model_sha256, report.runtime): report for report in measured}
    pairs = {}
    for report in counted:
        _require(report, "modelled")
        key = (report.model_sha256, report.runtime)
        if key in by_file:
            row = {name: statistics.median(report.figures[name].samples) for name in TERMS}
            pairs[key] = (by_file[key], row, statistics.median(by_file[key].figures["latency"].samples))
    return [pairs[key] for key in sorted(pairs)]


def _require(report: Report, source: str) -> None:
    found = report.figures["latency"].source
    if found != source:
        raise DeviceError(f"{report.model_name}: its latency is {found}, the fit takes it where it should be {source}")
    if report.settings.get("threads") != 1:
        raise DeviceError(
            f"{report.model_name} was run on {report.settings.get('threads')} threads; the model is of one"
        )
