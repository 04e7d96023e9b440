"""The best trial of a search as a plain recipe: every searched value fixed, nothing left to search."""

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import JsonValue

from phonefit.pipeline.errors import BudgetError, RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_check import validated
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.result import DIRECTIONS, TAKEN, SearchResult, SearchTrial
from phonefit.pipeline.search.table import cost, devices_note, figure_text, parameters_text

_WIDTH = 120


def chosen_trial(result: SearchResult, number: int | None = None) -> SearchTrial:
    """The trial of this number; without one, the best on the Pareto front.

    The best has the best first objective; of equals the one with the better second objective decides, and so on, and at
    last the earlier trial. Trials whose figures can be trusted come before the others.

    Raises:
        RecipeError: there is no such trial, or it has no figures.
        BudgetError: no trial fits the budget.
    """
    by_number = {trial.number: trial for trial in result.trials}
    complete = [trial.number for trial in result.trials if trial.state == "complete"]
    if number is not None:
        if number not in complete:
            why = f"is {by_number[number].state}" if number in by_number else "does not exist"
            raise RecipeError(f"trial {number} {why}; complete trials: {', '.join(map(str, complete)) or 'none'}")
        return by_number[number]
    if not result.pareto:
        raise BudgetError(
            f"no trial of {result.name} fits the budget; raise a limit, widen search.space, or take one all the same "
            f"with --trial: {', '.join(map(str, complete)) or 'there is no complete one'}"
        )
    front = [by_number[number] for number in result.pareto]
    return min(
        front, key=lambda trial: (not trial.learned, *(cost(trial, name) for name in result.objectives), trial.number)
    )


def exported_recipe(recipe: Recipe, trial: SearchTrial, runs: Path) -> Recipe:
    """The recipe that the trial ran, under a name of its own and with nothing to search.

    Raises:
        FileFormatError: the trial's file was removed from the runs folder.
    """
    content = TrialResult.load(runs / recipe.name / "trials" / f"{trial.number}.json").recipe
    changes: dict[str, JsonValue] = {
        "name": f"{recipe.name}-trial-{trial.number}",
        "description": f"trial {trial.number} of the search {recipe.name}",
    }
    origin = f"trial {trial.number} of {recipe.name}"
    return validated({**{key: value for key, value in content.items() if key != "search"}, **changes}, origin)


def recipe_yaml(exported: Recipe, trial: SearchTrial, result: SearchResult, runs: Path, chosen: bool) -> str:
    """The recipe as YAML, with comments that say where it comes from and which values the search found.

    Args:
        chosen: a person chose the trial, not the rule.
    """
    content = _without_nulls(exported.as_json())
    if Recipe.model_validate(content) != exported:  # a null that means something, in model.arguments
        content = exported.as_json()
    content.pop("search")  # only defaults
    sections = [*_comments(trial, result, runs, chosen)]
    for key, value in content.items():
        found = [path for path in trial.parameters if path.split(".")[0] == key]
        if found:
            sections.append(f"\n# found by the search: {', '.join(found)}")
        sections.append(yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=_WIDTH))
    return "\n".join(section.rstrip("\n") for section in sections) + "\n"


def _comments(trial: SearchTrial, result: SearchResult, runs: Path, chosen: bool) -> Iterator[str]:
    assert trial.values is not None  # only complete trials are exported
    finished = sum(each.state in TAKEN for each in result.trials)
    yield (
        f"# Trial {trial.number} of {finished} of the search {result.name} "
        f"(sampler {result.sampler}), {runs / result.name}"
    )
    if chosen:
        yield "# Chosen by its number" + ("." if trial.feasible else "; it misses a limit of the budget.")
    else:
        first = result.objectives[0]
        way = "highest" if DIRECTIONS[first] == "maximize" else "lowest"
        rest = f", of equals the best {' and '.join(result.objectives[1:])}" if len(result.objectives) > 1 else ""
        yield f"# Chosen because of those that fit the budget it has the {way} {first}{rest}."
    yield f"# Its best file: {trial.file}: " + ", ".join(
        f"{name} {figure_text(name, trial.values[name])}" for name in result.objectives
    )
    if note := devices_note(result):
        yield f"# {note}"
    if not trial.trusted:
        yield "# Its measurement was unstable: times and energy may be wrong."
    yield "# What the search found:"
    for path, value in trial.parameters.items():
        yield "#   " + parameters_text(trial.model_copy(update={"parameters": {path: value}}))
    yield "# convert.original=true converts the float network too, to compare with.\n"


def _without_nulls(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: _cleaned(inner) for key, inner in value.items() if inner is not None}


def _cleaned(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return _without_nulls(value)
    return [_cleaned(item) for item in value] if isinstance(value, list) else value
