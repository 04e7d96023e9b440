"""Planned compression: score combinations of techniques, build the one that should meet the budget, correct, repeat."""

import math
from collections.abc import Callable, Sequence

from pydantic import JsonValue

from phonefit.device_bench.device import Device
from phonefit.models.checkpoint import Checkpoint
from phonefit.pipeline.ask import ask_run_devices
from phonefit.pipeline.budget import describe, figures_of, figures_under, limits_of
from phonefit.pipeline.compress.cost import parameters
from phonefit.pipeline.compress.plan import (
    QUALITY,
    TRAINED,
    UNTRAINED,
    Choice,
    Knowledge,
    best_of_each,
    between,
    corrections,
    learned,
    ranked,
)
from phonefit.pipeline.compress.plan_score import distance
from phonefit.pipeline.compress.plan_structures import (
    Structure,
    built_steps,
    family,
    halfway,
    quantisations,
    structures,
)
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import ConversionError
from phonefit.pipeline.planner_candidates import (
    Planning,
    Setting,
    add_point,
    add_structure,
    ask_costs,
    costs_of,
    hopes,
)
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_auto import AutoConfig
from phonefit.pipeline.recipe_steps import StepConfig
from phonefit.pipeline.result import FileResult
from phonefit.pipeline.result_plan import PlanResult, PlanRow, PlanTry

ASKS = 8
"""At most so many candidates are asked for before one plan is built, besides the parent in each precision."""
REFINEMENTS = 2
"""At most so many structures are scored between two of the grid, for one plan."""
NEAR = 0.93
"""A plan whose costs are this share of the limits, or more, is not refined."""
LEAST_GAP = 0.04
"""Structures that differ by a smaller share are not refined."""
ROWS = 8
BYTES_OF_FLOAT = 4

Build = Callable[[tuple[StepConfig, ...]], tuple[Checkpoint, Sequence[FileResult]]]
"""Builds steps as a recipe that lists them: the compressed checkpoint, and its measured files."""


def plan_compression(
    recipe: Recipe, config: AutoConfig, tuned: Checkpoint, context: Context, devices: Sequence[Device], build: Build
) -> PlanResult:
    """Plan, build and correct until a file meets the recipe's limits, at most `config.tries` times.

    Candidates are the grid of `plan_structures` with each quantisation; they are scored untrained (`plan_score`), but
    for those that could not be better at best, and their costs are scaled from few that are asked of the device
    (`plan`). Before a plan is built, its own costs are asked: they do not depend on the training. Where the quality of
    what was built is too low, the next plan loses less, or recovers longer.

    Raises:
        PhonefitError: the parent cannot be scored, converted or measured, or a training failed.
    """
    runtimes = recipe.convert.runtimes
    setting = Setting(
        recipe,
        config,
        tuned,
        context,
        asks={runtime: ask_run_devices(recipe, devices, context, runtime) for runtime in runtimes},
        schemes=quantisations(config, runtimes),
        limits=limits_of(recipe.limits),
        parameter_bytes=BYTES_OF_FLOAT * parameters(tuned.load()),
    )
    plan = Planning(Knowledge(share_left=TRAINED if config.recover.epochs else UNTRAINED))
    plan.pending = {structure.name: structure for structure in structures(config)}
    _score(Structure(), plan, setting)
    first = _settled(plan, setting, config.margin)
    if first is None:
        raise ConversionError("compress: no candidate of the plan can be converted: " + "; ".join(plan.left_out))
    following: tuple[Choice, int] | None = (first, 0)
    while following is not None:
        _try(*following, plan, setting, build)
        done = plan.tries[-1].met or len(plan.tries) == config.tries
        following = None if done else _next(*following, plan, setting)
    return _result(plan, setting)


def _score(structure: Structure, plan: Planning, setting: Setting) -> None:
    left = f"at most {len(plan.pending)} more" if plan.pending else "between two others"
    with setting.context.progress.stage(f"plan: scoring {structure.name} without training, {left}"):
        add_structure(structure, plan, setting)


def _ranked(plan: Planning, setting: Setting, margin: float) -> list[Choice]:
    candidates = [*plan.candidates.values(), *hopes(plan)]
    return ranked(candidates, setting.limits, plan.knowledge, setting.runtimes, margin, plan.excluded)


def _settled(plan: Planning, setting: Setting, margin: float) -> Choice | None:
    """The best candidate, once its own costs are known; structures between two of the grid are looked at as well.

    None where no candidate is left.
    """
    refined = asks = 0
    while True:
        choices = _ranked(plan, setting, margin)
        if not choices:
            return None
        choice = choices[0]
        if choice.candidate.structure in plan.pending:
            _score(plan.pending[choice.candidate.structure], plan, setting)
            continue
        if set(setting.limits) != {QUALITY} and asks < ASKS:
            if not plan.knowledge.is_measured(choice.candidate, setting.runtimes):
                asks += _ask_for(choice, plan, setting)
                continue
            if refined < REFINEMENTS and (structure := _between(choice, choices, plan)) is not None:
                refined += 1
                _score(structure, plan, setting)
                continue
        return choice


def _ask_for(choice: Choice, plan: Planning, setting: Setting) -> bool:
    """Ask for the candidate's costs; first for those of the parent in its precision, to scale from.

    Returns:
        Whether another than the parent was asked for.
    """
    candidate = choice.candidate
    base = plan.candidates.get(f"{Structure().name}, {candidate.precision}")
    if base is not None and base.name not in plan.excluded and base != candidate:
        if not plan.knowledge.is_measured(base, setting.runtimes):
            ask_costs(base, plan, setting)
            return False
        plan.estimates[candidate.name] = choice.figures
    ask_costs(candidate, plan, setting)
    return candidate != base


def _between(choice: Choice, choices: Sequence[Choice], plan: Planning) -> Structure | None:
    """A structure that is not scored yet, between the chosen one and the next milder one that does not fit."""
    own = plan.structures[choice.candidate.structure]
    if choice.ratio >= NEAR or own == Structure():
        return None
    known = {**plan.pending, **plan.structures}
    shares = {
        name: one.kept
        for name, one in known.items()
        if family(one) == family(own) or (one == Structure() and (own.prune is None or own.decompose is None))
    }
    pair = between(shares, choice, choices)
    if pair is None or shares[pair[1]] - shares[pair[0]] < LEAST_GAP:
        return None
    found = halfway(known[pair[1]], own)
    return None if found.name in known else found


def _try(choice: Choice, effort: int, plan: Planning, setting: Setting, build: Build) -> None:
    """Build a plan, and learn from what it turns out to be."""
    candidate = choice.candidate
    steps = built_steps(
        plan.structures[candidate.structure],
        candidate.precision,
        setting.config,
        setting.schemes,
        setting.parameter_bytes,
        setting.by_bytes,
        setting.limits.get(QUALITY),
        effort,
    )
    made = PlanTry(
        name=candidate.name + (f", {2**effort}x recovery" if effort else ""),
        runtime=choice.runtime,
        steps=tuple(_as_listed(step) for step in steps),
        loss=choice.loss,
        expected=choice.figures,
        estimated=plan.estimates.get(candidate.name, {}),
        asked=plan.knowledge.is_measured(candidate, setting.runtimes) and set(setting.limits) != {QUALITY},
    )
    plan.excluded.add(candidate.name)
    plan.built.add(candidate.name)
    try:
        checkpoint, files = build(steps)
    except ConversionError as error:
        plan.tries.append(made.model_copy(update={"missed": (str(error),)}))
        plan.excesses.append(math.inf)
        return
    best = min(files, key=lambda file: (sum(violation.excess for violation in file.violations), file.quality_drop))
    figures = figures_under(figures_of(best), setting.recipe.limits)
    measured = {name: figure for name, figure in figures.items() if math.isfinite(figure)}
    for file in files:
        add_point(candidate, file.artifact.runtime, costs_of(file.reports, setting), plan)
    loss = distance(checkpoint.load(), setting.tuned.load(), setting.context)
    plan.knowledge = learned(plan.knowledge, candidate, loss, best.quality_drop, setting.config.recover.epochs > 0)
    expected = made.estimated or made.expected
    plan.tries.append(
        made.model_copy(
            update={
                "runtime": best.artifact.runtime,
                "measured": measured,
                "corrections": corrections(expected, measured),
                "missed": tuple(describe(violation) for violation in best.violations),
            }
        )
    )
    plan.excesses.append(sum(violation.excess for violation in best.violations))


def _next(choice: Choice, effort: int, plan: Planning, setting: Setting) -> tuple[Choice, int] | None:
    """What to build after a plan that missed the budget; None where nothing promises to meet it."""
    last, candidate = plan.tries[-1], choice.candidate
    costs = {name: limit for name, limit in setting.limits.items() if name != QUALITY}
    only_quality = bool(last.measured) and all(last.measured.get(name, math.inf) <= costs[name] for name in costs)
    following = _settled(plan, setting, 0.0)
    if only_quality:
        if following is not None and following.fits and following.loss < plan.knowledge.loss(candidate):
            return following, 0
        trainable = candidate.structure != Structure().name or candidate.precision == "int8_static"
        if trainable and setting.config.recover.epochs > 0:
            return choice, effort + 1
    return (following, 0) if following is not None and following.fits else None


def _as_listed(step: StepConfig) -> dict[str, JsonValue]:
    """A step as a person would list it."""
    return {"technique": step.technique, **step.model_dump(mode="json", exclude_defaults=True)}


def _result(plan: Planning, setting: Setting) -> PlanResult:
    chosen = min(range(len(plan.tries)), key=lambda index: (not plan.tries[index].met, plan.excesses[index]))
    plan.excluded.clear()
    unscored, plan.pending = len(plan.pending), {}
    rows = [
        PlanRow(
            name=choice.candidate.name,
            runtime=choice.runtime,
            loss=choice.loss,
            multiply_adds=choice.candidate.multiply_adds,
            figures=choice.figures,
            fits=choice.fits,
        )
        for choice in best_of_each(_ranked(plan, setting, setting.config.margin), ROWS, plan.built)
    ]
    return PlanResult(
        limits=setting.limits,
        considered=len(plan.candidates),
        unscored=unscored,
        candidates=tuple(rows),
        left_out=tuple(plan.left_out),
        asked=plan.asked,
        tries=tuple(plan.tries),
        chosen=chosen,
        steps=plan.tries[chosen].steps,
    )
