"""Structured pruning: whole channels are removed, so that the network stays an ordinary, smaller one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import JsonValue
from torch import nn

from phonefit.models.artifact import Lineage
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.spec import Architecture
from phonefit.pipeline.compress.cost import check_layers
from phonefit.pipeline.compress.finish import cost_note, train_and_save
from phonefit.pipeline.compress.prune_criteria import criterion
from phonefit.pipeline.compress.prune_graph import (
    NOT_THE_SAME,
    Group,
    is_sound,
    prunable_groups,
    without,
)
from phonefit.pipeline.compress.prune_schedule import (
    Block,
    blocks_in_order,
    epochs_of,
    kept_after,
    plan_of,
    ranked,
    within,
)
from phonefit.pipeline.compress.prune_target import (
    ASKS,
    Asked,
    Inquiry,
    fewest_blocks,
    search_by_asking,
    shown,
    unreachable,
)
from phonefit.pipeline.compress.prune_units import channels_of
from phonefit.pipeline.compress.prune_work import Shapes, Work, goal_of
from phonefit.pipeline.context import Context
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.errors import ModelError, RecipeError
from phonefit.pipeline.recipe_steps import PruneConfig, PruneGoal

STAGE = "prune_part"
CODE_VERSION = 1


@dataclass(frozen=True)
class Aim:
    """What the whole of the steps aims at, and where it starts from.

    Attributes:
        original: the network before the first step, and its cost.
        goal: None for a share of the channels.
        limit: largest value that meets the goal; without one, the share of the channels that goes.
        first: the original's figure on the device, where that is the goal.
    """

    original: nn.Module
    work: Work
    goal: PruneGoal | None
    limit: float
    first: Asked | None = None


def prune(
    checkpoint: Checkpoint,
    config: PruneConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    resume: Path | None = None,
) -> Checkpoint:
    """Remove channels, then recover with the parent as teacher; with `steps`, so many times.

    Channels that depend on each other are found in the dependency graph (Fang et al. 2023, arXiv 2301.12900) and are
    one group, whose channels count once. A channel's importance is the criterion's, summed over the group's layers,
    relative to the group's mean. Channels go in blocks that leave a multiple of `round_to`, the least important block
    of all groups first; no group loses more than `layer_limit`. The channels of the output, of `keep` and of layers
    that cannot be followed are not counted and stay.

    With `ratio`, what is removed is at most that share of the channels, mostly less than a block below. With a goal,
    it is the fewest blocks that meet it; goals that are a figure of the device are searched with few measurements. A
    goal that is met from the start leaves the network as it is.

    Raises:
        RecipeError: `keep` names a layer that does not exist, the goal cannot be met, or it needs a device and there
            is none.
        ModelError: the network cannot be traced.
        TrainingError: the recovery diverges.
        ConversionError, DeviceError, MeasurementError: a candidate cannot be converted or measured.
    """
    original, architecture = checkpoint.load(), checkpoint.info.architecture
    check_layers(original, config.keep, "prune: keep")
    work = Shapes(original, (), architecture).without({})
    goal = goal_of(config, work)
    if goal is None:
        assert config.ratio is not None  # the config has one or the other
        aim = Aim(original, work, None, config.ratio)
    else:
        aim, notes = _start(original, checkpoint, work, *goal, context)
        if notes:
            return _unchanged(checkpoint, config, destination, notes)
    current = checkpoint
    for step in range(1, config.steps):
        current = _part(current, step, checkpoint, config, context, parent, aim)
    return _finish(current, config.steps, checkpoint, config, context, destination, parent, aim, resume)


def _start(
    original: nn.Module, checkpoint: Checkpoint, work: Work, goal: PruneGoal, limit: float, context: Context
) -> tuple[Aim, list[str]]:
    """The aim, and notes where the network meets it already."""
    figure, lines, first = float(work.of(goal)), [], None
    if goal in ("latency_ms", "instructions"):
        inquiry = _inquiry(goal, checkpoint, context)
        figure, lines = inquiry.figure(original, work.multiply_adds), inquiry.lines
        first = Asked(-1, work.multiply_adds, figure)
    aim = Aim(original, work, goal, limit, first)
    if figure > limit:
        return aim, []
    met = f"the target is met already: {shown(figure, goal)} of at most {shown(limit, goal)}; nothing was changed"
    return aim, [met, *lines]


def _inquiry(goal: PruneGoal, checkpoint: Checkpoint, context: Context) -> Inquiry:
    if context.ask is None:
        raise RecipeError(f"prune: {goal} needs a device to measure on, and there is none; use multiply_adds")
    return Inquiry(context.ask, goal, checkpoint, context, [])


def _unchanged(checkpoint: Checkpoint, config: PruneConfig, destination: Path, notes: Sequence[str]) -> Checkpoint:
    lineage = Lineage(parent=checkpoint.digest, stage="prune", config={**config.as_json(), "notes": list(notes)})
    info = checkpoint.info.model_copy(update={"lineage": (*checkpoint.info.lineage, lineage)})
    return Checkpoint.save(destination, checkpoint.load(), info)


def _part(
    current: Checkpoint,
    step: int,
    checkpoint: Checkpoint,
    config: PruneConfig,
    context: Context,
    parent: Checkpoint,
    aim: Aim,
) -> Checkpoint:
    """One step before the last, as a stage of its own: a killed run goes on after the last finished step."""
    inputs = {"checkpoint": checkpoint.digest, "parent": parent.digest, "data": context.data.digest}
    inputs["current"] = current.digest
    settings: dict[str, JsonValue] = {
        "step": config.as_json(),
        "number": step,
        "limit": aim.limit,
        "first": aim.first.figure if aim.first else None,
    }
    settings |= {"seed": context.seed, "threads": context.threads, "torch_device": context.torch_device}
    tools = {name: version(name) for name in ("torch", "torch-pruning")}
    resume = context.store.resume_file(context.store.key(STAGE, inputs, settings, CODE_VERSION, tools))

    def build(folder: Path) -> None:
        _finish(current, step, checkpoint, config, context, folder, parent, aim, resume)

    return Checkpoint(context.store.compute(STAGE, inputs, settings, CODE_VERSION, build, tools).path)


def _finish(
    current: Checkpoint,
    step: int,
    checkpoint: Checkpoint,
    config: PruneConfig,
    context: Context,
    destination: Path,
    parent: Checkpoint,
    aim: Aim,
    resume: Path | None,
) -> Checkpoint:
    """Prune as far as this step goes, recover, save with the notes of the steps before."""
    network, notes = prune_channels(current.load(), step, checkpoint, config, context, aim)
    if step == config.steps:
        notes.insert(0, cost_note(aim.original, network, checkpoint.info.architecture))
    if config.steps > 1:
        earlier = current.info.lineage[-1].config["notes"] if step > 1 else []
        assert isinstance(earlier, list)
        notes = [*map(str, earlier), *(f"step {step} of {config.steps}: {note}" for note in notes)]
    training = config.recover.model_copy(update={"epochs": epochs_of(step, config)})
    title = "prune" if config.steps == 1 else f"prune {step} of {config.steps}"
    return train_and_save(
        network, checkpoint, config, training, context, destination, parent, notes, resume, title=title
    )


def prune_channels(
    network: nn.Module, step: int, checkpoint: Checkpoint, config: PruneConfig, context: Context, aim: Aim
) -> tuple[nn.Module, list[str]]:
    """A pruned copy of `network`, as it is before this step, and notes on what was removed and what was left alone."""
    architecture, keep = checkpoint.info.architecture, [*config.keep]
    no_score = f"criterion {config.criterion} has no score for its layers"
    with deterministic(context, "prune"):
        scores = criterion(config.criterion)(network, context)
        groups, left = prunable_groups(network, architecture, keep)
    notes: list[str]
    while True:
        order = ranked(groups, scores, left, no_score)
        sizes = channels_of(aim.original)
        blocks = blocks_in_order(order, config, sizes)
        choice = _Choice(network, groups, blocks, step, config, architecture, aim)
        if aim.goal is None:
            counted = sum(sizes[one.root, "out"] for one in order)
            allowed = int((1 - kept_after(step, config, 1 - aim.limit)) * counted)
            chosen, notes = within(blocks, allowed - (counted - sum(one.size for one in order))), []
        else:
            chosen, notes = choice.for_goal(aim.goal, checkpoint, context)
        plan = plan_of(chosen)
        if is_sound(network, groups, plan, architecture):
            break
        broken = [
            one.root
            for one in groups
            if one.root in plan and not is_sound(network, [one], {one.root: plan[one.root]}, architecture)
        ]
        if not broken:
            raise ModelError("prune: the pruned network computes something else; name layers to leave in `keep`")
        left |= dict.fromkeys(broken, NOT_THE_SAME)
        groups = [one for one in groups if one.root not in broken]
    pruned = without(network, plan, architecture)
    total, removed = sum(one.size for one in order), sum(map(len, plan.values()))
    notes.insert(0, f"removed {removed} of {total} channels in {len(plan)} of {len(order)} groups")
    if not plan:
        notes.append(f"nothing could go: no block that leaves a multiple of {config.round_to} is within the ratio")
    return pruned, [*notes, *(f"left alone: {root}: {reason}" for root, reason in left.items())]


@dataclass(frozen=True)
class _Choice:
    """How many of the blocks go, for a goal."""

    network: nn.Module
    groups: Sequence[Group]
    blocks: Sequence[Block]
    step: int
    config: PruneConfig
    architecture: Architecture
    aim: Aim

    def for_goal(self, goal: PruneGoal, checkpoint: Checkpoint, context: Context) -> tuple[list[Block], list[str]]:
        shapes = Shapes(self.network, self.groups, self.architecture)

        @cache
        def work(count: int) -> int:
            return shapes.without(plan_of(self.blocks[:count])).of(goal)

        first = self.aim.work.of(goal) if self.aim.first is None else self.aim.first.figure
        last = self.step == self.config.steps
        if self.aim.first is None or not last:  # on the way, multiply-adds stand for a figure of the device
            share = kept_after(self.step, self.config, self.aim.limit / first)
            limit = self.aim.limit if last else share * self.aim.work.of(goal)
            if self.aim.first is None and work(len(self.blocks)) > self.aim.limit:
                raise unreachable(goal, self.aim.limit, work(len(self.blocks)), self.config)
            return list(self.blocks[: fewest_blocks(work, len(self.blocks), limit)]), []
        inquiry = _inquiry(goal, checkpoint, context)

        def ask(count: int) -> float:
            candidate = without(self.network, plan_of(self.blocks[:count]), self.architecture)
            return inquiry.figure(candidate, work(count))

        asked = search_by_asking(ask, work, len(self.blocks), self.aim.limit, self.aim.first, ASKS - 1)
        met = [answer.blocks for answer in asked if answer.figure <= self.aim.limit]
        if not met:
            raise unreachable(goal, self.aim.limit, min(answer.figure for answer in asked), self.config)
        start = (
            f"before pruning: {shown(self.aim.first.figure, goal)} at {self.aim.first.multiply_adds:,.0f} multiply-adds"
        )
        return list(self.blocks[: min(met)]), [start, *inquiry.lines]
