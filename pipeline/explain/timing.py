"""What each layer takes on the run's device, alone."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phonefit.device_bench.report import Report
from phonefit.models.layers import in_layers
from phonefit.models.quantisation import Quantisation, precision_of
from phonefit.pipeline.ask import AskRunDevice
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.errors import ConversionError
from phonefit.pipeline.explain.alone import LayerShape, NoisePictures, checkpoint_alone, picture_size, shapes_of
from phonefit.pipeline.explain.costs import Called
from phonefit.pipeline.explain.result import Timing

TITLE = "explain: asking the device"


@dataclass(frozen=True)
class Times:
    """Nanoseconds by layer, how they were obtained, and why some layers have none."""

    nanoseconds: Mapping[str, float]
    timing: Timing
    notes: tuple[str, ...]


Question = tuple[LayerShape, bool]
"""A shape, and whether it is quantised."""


def times_alone(layers: Mapping[str, Called], ask: AskRunDevice, quantisation: Quantisation | None) -> Times:
    """Ask once for each distinct shape, and once for each distinct input without a layer, which is subtracted.

    A network of one layer is asked about like any candidate of a run: converted for its first runtime, quantised as
    its files are, except in the layers that stay in float. Answers are kept in the store, for all checkpoints.

    Raises:
        DeviceError, MeasurementError: a network cannot be measured.
    """
    questions: dict[str, list[Question]] = {}
    notes = []
    for name, called in layers.items():
        shapes = shapes_of(called)
        if shapes is None:
            notes.append(f"no time: {name} works on more than vectors")
            continue
        quantised = quantisation is not None and not in_layers(name, quantisation.float_layers)
        questions[name] = [(shape, quantised) for shape in shapes]
    distinct = dict.fromkeys(
        question
        for asked in questions.values()
        for shape, way in asked
        for question in ((shape.reference(), way), (shape, way))
    )
    reports: dict[Question, Report] = {}
    failed: dict[Question, str] = {}
    with ask.context.progress.stage(TITLE, len(distinct)) as advance:
        for shape, quantised in distinct:
            try:
                reports[shape, quantised] = _asked(shape, quantisation if quantised else None, ask)
            except ConversionError as error:
                failed[shape, quantised] = str(error)
            advance(1, f"{len(distinct)} shapes in {len(questions)} layers")
    for name, asked in questions.items():
        if problem := next((failed[one] for one in (*asked, *_references(asked)) if one in failed), ""):
            notes.append(f"no time: {name} alone cannot be converted: {problem}")
    found = {
        name: sum(difference(reports[one], reports[zero]) for one, zero in zip(asked, _references(asked), strict=True))
        for name, asked in questions.items()
        if not any(one in failed for one in (*asked, *_references(asked)))
    }
    doubtful = sum(not report.trusted for report in reports.values())
    source = next((report.figures["latency"].source for report in reports.values()), "unavailable")
    timing = Timing(
        device=ask.device.info().name,
        runtime=ask.runtime,
        precision=precision_of(quantisation),
        threads=ask.bench.threads,
        source=source,
        asked=len(reports),
        doubtful=doubtful,
    )
    return Times(found, timing, tuple(notes))


def difference(report: Report, reference: Report) -> float:
    """Nanoseconds by which a network with a layer takes longer than without; 0 where noise is more than the layer."""
    return max(0.0, (report.median_milliseconds() - reference.median_milliseconds()) * 1e6)


def _references(asked: Sequence[Question]) -> list[Question]:
    return [(shape.reference(), way) for shape, way in asked]


def _asked(shape: LayerShape, quantisation: Quantisation | None, ask: AskRunDevice) -> Report:
    context = replace(ask.context, data=NoisePictures(*picture_size(shape)), progress=SilentProgress())
    way = None if quantisation is None else quantisation.model_copy(update={"float_layers": ()})
    with tempfile.TemporaryDirectory(prefix="phonefit-layer-") as folder:
        candidate = checkpoint_alone(shape, way, Path(folder))
        return replace(ask, context=context, quantisation=None, memory_limit_bytes=None)(candidate)
