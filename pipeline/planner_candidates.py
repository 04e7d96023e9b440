"""Candidates of a plan: scored untrained, and their costs asked of the run's device."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from phonefit.device_bench.report import Report
from phonefit.models.artifact import Runtime
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.quantisation import Quantisation
from phonefit.pipeline.ask import AskSlowest
from phonefit.pipeline.budget import figures_of_report, figures_under, worst
from phonefit.pipeline.compress.plan import MIXED, QUALITY, SIZES, Candidate, Knowledge, Point
from phonefit.pipeline.compress.plan_score import score
from phonefit.pipeline.compress.plan_structures import (
    FLOAT,
    LEAST_LOSS,
    ROUNDINGS,
    Structure,
    hope,
    mixed_drop,
    quantise_step,
    structural_steps,
)
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import ConversionError, ModelError, RecipeError
from phonefit.pipeline.recipe import Recipe, resolved_steps
from phonefit.pipeline.recipe_auto import AutoConfig
from phonefit.pipeline.recipe_steps import RecoverConfig, StepConfig
from phonefit.pipeline.result_plan import PlanTry

OUT_OF_MEMORY = 2.0
"""A candidate that the memory limit ended counts as this many times the limit: how much it needs is not known."""


@dataclass(frozen=True)
class Setting:
    """What stays the same while planning.

    Attributes:
        asks: what asks the run's devices, for each runtime of the recipe.
        schemes: quantisations to try.
        limits: name -> limit, of the recipe and of the plan.
        parameter_bytes: of the parent, in float32.
    """

    recipe: Recipe
    config: AutoConfig
    tuned: Checkpoint
    context: Context
    asks: Mapping[Runtime, AskSlowest]
    schemes: Mapping[str, Quantisation]
    limits: Mapping[str, float]
    parameter_bytes: int

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """The recipe's."""
        return self.recipe.convert.runtimes

    @property
    def by_bytes(self) -> bool:
        """Whether what is to shrink is the bytes of the weights; else it is the multiply-adds."""
        return not set(self.limits) - {*SIZES, QUALITY}

    def applied(self, *steps: StepConfig) -> Checkpoint:
        """The parent after these steps, each through the store."""
        checkpoint = self.tuned
        for step in resolved_steps(self.recipe.model_copy(update={"compress": steps})):
            _, checkpoint = compress_step(checkpoint, step, self.context, self.tuned)
        return checkpoint


@dataclass
class Planning:
    """What is known so far; only the functions of the planner change it.

    Attributes:
        pending: structures that are not scored.
        structures: those that are.
        untrained: structure -> network before any recovery.
        quantised: name of a candidate -> its quantisation.
        estimates: name of a candidate -> costs as they were scaled from others, before its own were asked.
        excluded: names of candidates that are not to be built any more.
        built: names of candidates that were.
        excesses: of each try, by how much it misses the limits in sum.
        asked: number of files that were made only to know their cost.
    """

    knowledge: Knowledge
    pending: dict[str, Structure] = field(default_factory=dict)
    structures: dict[str, Structure] = field(default_factory=dict)
    untrained: dict[str, Checkpoint] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    quantised: dict[str, Quantisation | None] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    estimates: dict[str, Mapping[str, float]] = field(default_factory=dict)
    excluded: set[str] = field(default_factory=set)
    built: set[str] = field(default_factory=set)
    tries: list[PlanTry] = field(default_factory=list)
    excesses: list[float] = field(default_factory=list)
    asked: int = 0


def add_structure(structure: Structure, plan: Planning, setting: Setting) -> None:
    """Score the structure with each precision, and make candidates of them; or note why it is left out."""
    plan.pending.pop(structure.name, None)
    steps = structural_steps(structure, setting.parameter_bytes, setting.by_bytes, RecoverConfig(epochs=0))
    try:
        checkpoint = setting.applied(*steps)
    except (RecipeError, ModelError) as error:
        plan.left_out.append(f"{structure.name}: {error}")
        return
    schemes = dict(setting.schemes)
    if structure == Structure() and "int8_static" in schemes:
        schemes |= _mixed(plan, setting)
    found = score(checkpoint, setting.tuned, schemes, setting.context)
    plan.structures[structure.name] = structure
    plan.untrained[structure.name] = checkpoint
    plan.left_out += [f"{structure.name}, {name}: {reason}" for name, reason in found.left_out.items()]
    for precision in (FLOAT, *found.rounded):
        rounded = found.rounded.get(precision)
        candidate = Candidate(
            structure=structure.name,
            precision=precision,
            changed_loss=found.loss,
            rounded_loss=rounded.loss if rounded else 0.0,
            changed_share=found.changed,
            rounded_share=rounded.changed if rounded else 0.0,
            multiply_adds=found.multiply_adds,
            bytes=rounded.bytes if rounded else found.bytes,
            layers=found.layers,
        )
        plan.candidates[candidate.name] = candidate
        plan.quantised[candidate.name] = schemes.get(precision)


def hopes(plan: Planning) -> list[Candidate]:
    """Candidates of the structures that are not scored, as they may be at best."""
    found: list[Candidate] = []
    parents = [one for one in plan.candidates.values() if one.structure == Structure().name and one.precision != MIXED]
    rounding = [one.rounded_loss for one in parents if one.precision != FLOAT]
    least = max(LEAST_LOSS, ROUNDINGS * median(rounding)) if rounding else LEAST_LOSS
    for candidate in parents:
        precision = candidate.precision
        scored = {
            structure: plan.candidates[f"{name}, {precision}"]
            for name, structure in plan.structures.items()
            if f"{name}, {precision}" in plan.candidates
        }
        found += [hope(structure, scored, candidate, least) for structure in plan.pending.values()]
    return found


def _mixed(plan: Planning, setting: Setting) -> dict[str, Quantisation]:
    """The parent in mixed precision; nothing where every layer may be int8."""
    step = quantise_step(setting.schemes["int8_static"], mixed_drop(setting.limits.get(QUALITY)))
    try:
        asked = setting.applied(step).info.quantisation
    except ModelError as error:
        plan.left_out.append(f"{MIXED}: {error}")
        return {}
    return {MIXED: asked} if asked is not None and asked.float_layers else {}


def ask_costs(candidate: Candidate, plan: Planning, setting: Setting) -> None:
    """Convert the untrained candidate for each runtime and measure it; or exclude it where that fails.

    What it costs does not depend on what its weights are.
    """
    checkpoint = plan.untrained[candidate.structure]
    plain: dict[str, object] = {"metrics": {}, "lineage": (), "quantisation": plan.quantised[candidate.name]}
    for runtime, ask in setting.asks.items():
        with tempfile.TemporaryDirectory(prefix="phonefit-candidate-") as folder:
            info = checkpoint.info.model_copy(update=plain)
            try:
                reports = ask.reports(Checkpoint.save(Path(folder), checkpoint.load(), info))
            except ConversionError as error:
                plan.left_out.append(f"{candidate.name}: {error}")
                plan.excluded.add(candidate.name)
                return
        plan.asked += 1
        add_point(candidate, runtime, costs_of(reports, setting), plan)


def costs_of(reports: Sequence[Report], setting: Setting) -> dict[str, float]:
    """Limit -> figure, the worst of all devices, of the limits that are about costs; unknown ones are left out."""
    figures = worst([figures_of_report(report) for report in reports])
    limits = setting.recipe.limits.model_copy(update={"quality_drop": None})
    if figures.out_of_memory:
        memory = {name: limit for name, limit in setting.limits.items() if name in ("ram", "peak_memory")}
        return {"file_size": figures.bytes} | {name: OUT_OF_MEMORY * limit for name, limit in memory.items()}
    if figures.energy is None:  # asking measures no energy; the built file does
        limits = limits.model_copy(update={"energy_uj": None})
    return figures_under(figures, limits)


def add_point(candidate: Candidate, runtime: Runtime, costs: Mapping[str, float], plan: Planning) -> None:
    """Correct the predictions by what a file of the candidate costs."""
    point = Point(
        runtime,
        candidate.structure,
        candidate.precision,
        candidate.multiply_adds,
        candidate.bytes,
        candidate.layers,
        costs,
    )
    plan.knowledge = replace(plan.knowledge, points=(*plan.knowledge.points, point))
