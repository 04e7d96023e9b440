"""Planned compression in a recipe: what is read, and what is refused when it is read."""

import pytest

from phonefit.pipeline.budget import Figures, describe, limits_of, violations
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import resolved_steps
from phonefit.pipeline.recipe_auto import AutoConfig, BudgetConfig
from phonefit.pipeline.recipe_file import apply_overrides, load_recipe

PLAIN = ("search.space={}", "search.after_run=false", "budget={}")


def read(plan, *overrides):
    return load_recipe("demo", [*PLAIN, f"compress={plan}", *overrides])


def test_a_plan_is_read_and_lists_no_steps():
    recipe = read("{auto: true, budget: {file_size: 400kB}, techniques: [quantise], tries: 2, recover: {epochs: 4}}")
    assert isinstance(recipe.compress, AutoConfig)
    assert recipe.compress.recover.epochs == 4
    assert recipe.steps == resolved_steps(recipe) == ()
    assert limits_of(recipe.limits) == {"file_size": 400_000}


def test_a_list_of_steps_is_no_plan():
    recipe = read("[{technique: prune, ratio: 0.2}]")
    assert [step.technique for step in recipe.steps] == ["prune"]
    assert recipe.limits == recipe.budget


def test_the_recipes_own_budget_is_the_default_and_the_lower_limit_counts():
    recipe = read("{auto: true}", "budget={file_size: 1MB, ram: 1GB}")
    assert recipe.limits == recipe.budget
    recipe = read("{auto: true, budget: {file_size: 2MB, quality_drop: 0.1, ram: 100MB}}", "budget={file_size: 1MB}")
    assert limits_of(recipe.limits) == {"file_size": 1e6, "quality_drop": 0.1, "ram": 1e7}
    first, second = BudgetConfig(ram="1GB", ram_share=0.01), BudgetConfig(ram="500MB", ram_share=0.1)
    assert first.tightened(second) == second.tightened(first) == first


def test_values_inside_a_plan_can_be_overridden_and_searched():
    recipe = read("{auto: true, budget: {file_size: 1MB}}", "compress.tries=5")
    assert isinstance(recipe.compress, AutoConfig)
    assert recipe.compress.tries == 5
    searched = read("{auto: true, budget: {file_size: 1MB}}", "search.space={compress.recover.epochs: [1, 3]}")
    changed = apply_overrides(searched, {"compress.recover.epochs": 3}).compress
    assert isinstance(changed, AutoConfig)
    assert changed.recover.epochs == 3


@pytest.mark.parametrize(
    ("plan", "overrides", "problem"),
    [
        ("{auto: true}", (), r"compress\.budget: there is nothing to plan for.*limits: ram, peak_memory, file_size"),
        ("{auto: true, budget: {ram_share: 0.2}}", (), r"compress\.budget: there is nothing to plan for"),
        ("{auto: false}", (), r"compress\.auto: False is not allowed"),
        ("{budget: {file_size: 1MB}}", (), r"compress\.auto: is missing"),
        (
            "{auto: true, budget: {instructions: 5}}",
            (),
            r"compress\.budget\.instructions: bench\.device host does not count.*emulator:counts",
        ),
        ("[]", ("budget={instructions: 5}",), r"  budget\.instructions: bench\.device host does not count"),
        ("{auto: true, budget: {energy_uj: 5}}", (), r"compress\.budget\.energy_uj: needs bench\.energy"),
        ("{auto: true, budget: {file_size: 1MB}, techniques: []}", (), r"compress\.techniques: none of these makes"),
        ("{auto: true, budget: {file_size: 1MB}, techniques: [distil]}", (), r"compress\.techniques: none of these"),
        ("{auto: true, budget: {file_size: 1MB}, techniques: [prune, prune]}", (), r"each wanted technique once"),
        (
            "{auto: true, budget: {file_size: 1MB}, techniques: [prun]}",
            (),
            r"compress\.techniques\.0: 'prun' is not allowed; did you mean 'prune'",
        ),
        (
            "{auto: true, budget: {file_size: 1MB}, schemes: [int8_weights]}",
            (),
            r"compress\.schemes: int8_weights: executorch cannot run it",
        ),
        (
            "{auto: true, budget: {file_size: 1MB}, schemes: [int4_weights]}",
            ("convert.runtimes=[executorch, onnx]",),
            r"compress\.schemes: int4_weights: executorch, onnx share no granularity",
        ),
        (
            "{auto: true, budget: {file_size: 1MB}, techniques: [prune], schemes: [fp16]}",
            (),
            r"compress\.schemes: quantise is not among the techniques",
        ),
        ("{auto: true, budget: {file_size: 1MB}, tris: 3}", (), r"compress\.tris: unknown key; did you mean 'tries'"),
        (
            "{auto: true, budget: {file_sise: 1MB}}",
            (),
            r"compress\.budget\.file_sise: unknown key; did you mean 'file_size'",
        ),
        (
            "{auto: true, budget: {file_size: 1MB}}",
            ("search.space={compress.tries: [0]}",),
            r"search\.space\.compress\.tries: 0 gives compress\.tries",
        ),
    ],
)
def test_what_cannot_work_is_refused(plan, overrides, problem):
    with pytest.raises(RecipeError, match=problem):
        read(plan, *overrides)


def test_instructions_are_a_limit_where_they_are_counted():
    read("{auto: true, budget: {instructions: 5000000}}", "bench.device=emulator:counts")
    budget = BudgetConfig(instructions=1_000_000)
    (missed,) = violations(Figures(1, 1, 1, 0, instructions=1_500_000), budget)
    assert describe(missed) == "instructions: 1,500,000, limit 1,000,000, missed by 50 %"
    assert violations(Figures(1, 1, 1, 0, instructions=900_000), budget) == ()
