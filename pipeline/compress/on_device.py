"""Leaving out replacements that the run's device is not faster with."""

import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from phonefit.device_bench.report import Report
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.compress.decompose_plan import Plan, Replacement
from phonefit.pipeline.compress.sensitivity import replace_layer
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import RecipeError


def keep_faster(plan: Plan, checkpoint: Checkpoint, context: Context) -> Plan:
    """The plan without what the device runs no faster than the layers as they are.

    Layers of one shape with replacements of one shape are asked about together, in the whole network: one measurement
    a shape and one of the network as it is.

    Raises:
        RecipeError: there is no device to ask.
        ConversionError, DeviceError, MeasurementError: a candidate cannot be measured.
    """
    if context.ask is None:
        raise RecipeError("decompose: on_device is true, but this run has no device to ask; set it to false")
    groups: dict[tuple[object, ...], list[Replacement]] = {}
    for one in plan.replacements.values():
        groups.setdefault(_shape(one), []).append(one)
    if not groups:
        return plan
    slow: list[str] = []
    kept: dict[str, Replacement] = {}
    with context.progress.stage("decompose: asking the device", 1 + len(groups)) as advance:
        base = _milliseconds(context.ask(checkpoint))
        advance(1)
        for group in groups.values():
            with tempfile.TemporaryDirectory() as folder:
                candidate = _candidate(checkpoint, group, Path(folder))
                reached = _milliseconds(context.ask(candidate))
            if reached < base:
                kept |= {one.layer.name: one for one in group}
            else:
                names = ", ".join(one.layer.name for one in group)
                slow.append(f"{names} ({base:.3f} ms as it is, {reached:.3f} ms with factors)")
            advance(1)
    left: Mapping[str, Sequence[str]] = plan.left
    if slow:
        left = {**plan.left, f"{context.ask.identity.get('device', 'the device')} is not faster with factors": slow}
    return replace(plan, replacements={name: one for name, one in plan.replacements.items() if name in kept}, left=left)


def _shape(one: Replacement) -> tuple[object, ...]:
    """What decides how long a replacement takes."""
    module = one.layer.module
    stride = module.stride if isinstance(module, nn.Conv2d) else ()
    return (type(module).__name__, tuple(module.weight.shape), stride, one.layer.cost, one.method, one.ranks)


def _candidate(checkpoint: Checkpoint, group: Sequence[Replacement], folder: Path) -> Checkpoint:
    network = checkpoint.load()
    for one in group:
        replace_layer(network, one.layer.name, copy.deepcopy(one.layers))
    return Checkpoint.save(folder, network, checkpoint.info)


def _milliseconds(report: Report) -> float:
    return report.median_milliseconds()
