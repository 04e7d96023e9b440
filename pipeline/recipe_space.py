"""The search space of a recipe: which of its paths exist when, and whether each of its values gives a valid recipe.

An axis may set a whole part, such as `compress`, and another axis something inside it, such as `compress.0.ratio`.
Whole parts are set first; what is inside one is an axis only under those of its choices that have such a place.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pydantic import JsonValue

from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_content import Parts, Problem, parse_content, set_value, shown, split_path
from phonefit.pipeline.recipe_search import Range

Plain = Range | tuple[JsonValue, ...]


@dataclass(frozen=True)
class Conditional:
    """An axis that exists only where another one, which sets a part around it, has one of these choices."""

    axis: Plain
    parent: str
    choices: tuple[JsonValue, ...]

    def holds(self, values: Mapping[str, JsonValue]) -> bool:
        """Whether the axis exists under these values of the axes before it."""
        return self.parent in values and values[self.parent] in self.choices


NOT_SEARCHED: Mapping[str, str] = {
    "name": "one study belongs to one name",
    "schema_number": "it belongs to the file format",
    "description": "it changes nothing",
    "task": "qualities of different tasks cannot be compared; what is inside, such as task.loss, can be searched",
    "task.name": "qualities of different tasks cannot be compared",
    "task.factory": "qualities of different tasks cannot be compared",
    "task.unit": "it changes nothing",
    **dict.fromkeys(
        ("task.picture", "task.features", "task.content_weight", "task.style_weight"), "the quality is measured with it"
    ),
    "data": "trials on different pictures cannot be compared; only data.input can be searched",
    "budget": "trials under different limits cannot be compared",
    "search": "a search cannot change itself",
    "bench.device": "figures of different devices cannot be compared",
    "bench.reuse": "it changes nothing",
    "bench.energy": "it changes no file",
}
"""Paths that a search may not vary, with the reason. Inside data, data.input may be searched; inside task, what is not
named here."""


def axes_in_order(recipe: Recipe) -> dict[str, Plain | Conditional]:
    """The axes of search.space, each after the one that it depends on."""
    space = recipe.search.space
    found: dict[str, Plain | Conditional] = {}
    for path in sorted(space, key=lambda path: len(split_path(path))):
        axis, parent = space[path], parent_of(path, space)
        if parent is None:
            found[path] = axis
            continue
        choices = tuple(value for value, content in _contents_around(recipe, parent) if _has(content, path))
        everywhere = choices == space[parent] and not isinstance(found[parent], Conditional)
        found[path] = axis if everywhere else Conditional(axis, parent, choices)
    first = [path for path in space if not isinstance(found[path], Conditional)]
    return {path: found[path] for path in (*first, *(path for path in found if path not in first))}


def parent_of(path: str, space: Mapping[str, Plain]) -> str | None:
    """The axis that sets the smallest part around a path, if there is one."""
    around = [other for other in space if path.startswith(f"{other}.")]
    return max(around, key=len, default=None)


def space_problems(
    recipe: Recipe, broken: frozenset[str | int], references: Callable[[Recipe], Iterator[Problem]]
) -> Iterator[Problem]:
    """Every choice and bound of the search space must give a valid recipe, alone or with one value of another axis.

    What is inside a part that is searched too is tried under each choice of that part that has it.

    Args:
        broken: top-level parts that have problems of their own; paths into them are not judged.
        references: the problems of what a recipe refers to.
    """
    if recipe.search.after_run and not recipe.search.space and "search" not in broken:
        text = "there is nothing to search: search.space is empty; say what to vary, or set after_run to false"
        yield Problem(("search", "after_run"), text)
    for path, axis in recipe.search.space.items():
        place: Parts = ("search", "space", path)
        if path.split(".")[0] in broken:
            continue
        if reason := _not_searched(path):
            yield Problem(place, f"cannot be searched: {reason}")
            continue
        parent = parent_of(path, recipe.search.space)
        around = [(None, recipe.as_json())] if parent is None else list(_contents_around(recipe, parent))
        existing = [(value, content) for value, content in around if parent is None or _has(content, path)]
        if around and not existing:
            text = _why_missing(around[-1][1], path)
            yield Problem(place, f"exists under none of the {len(around)} choices of {parent}: {text}")
        for outer, content in existing:
            under = "" if parent is None else f" under {parent} = {shown(outer)}"
            usual = {str(problem) for problem in references(Recipe.model_validate(content))}
            for value in _tried(axis):
                changed = copy.deepcopy(content)
                if missing := set_value(changed, split_path(path), value):
                    yield Problem(place, missing.text)
                    break
                problems = _problems(changed, references, usual)
                if problems and not _can_run(changed, path, recipe, references, usual):
                    yield Problem(place, f"{shown(value)}{under} gives {'; '.join(str(one) for one in problems)}")


def _problems(
    content: Mapping[str, JsonValue], references: Callable[[Recipe], Iterator[Problem]], usual: AbstractSet[str]
) -> list[Problem]:
    parsed, problems = parse_content(content)
    if parsed is None or problems:
        return problems
    return [problem for problem in references(parsed) if str(problem) not in usual]


def _can_run(
    content: dict[str, JsonValue],
    path: str,
    recipe: Recipe,
    references: Callable[[Recipe], Iterator[Problem]],
    usual: AbstractSet[str],
) -> bool:
    """Whether one value of one other axis takes the problems away, such as another runtime for a scheme."""
    for other, axis in recipe.search.space.items():
        if other == path or path.startswith(f"{other}.") or other.startswith(f"{path}."):
            continue
        for value in _tried(axis):
            changed = copy.deepcopy(content)
            if set_value(changed, split_path(other), value) is None and not _problems(changed, references, usual):
                return True
    return False


def _contents_around(recipe: Recipe, path: str) -> Iterator[tuple[JsonValue, dict[str, JsonValue]]]:
    """Choice of an axis -> content of the recipe with it, filled out. Choices that are not valid are left out.

    The axes around it have the first choice under which it exists.
    """
    space = recipe.search.space
    axis, parent = space[path], parent_of(path, space)
    if isinstance(axis, Range):  # a number has nothing inside
        return
    outer: dict[str, JsonValue] | None = recipe.as_json()
    if parent is not None:
        outer = next((content for _, content in _contents_around(recipe, parent) if _has(content, path)), None)
    for value in axis if outer is not None else ():
        content = Recipe.model_validate(outer).as_json()
        if set_value(content, split_path(path), value) is None:
            parsed, problems = parse_content(content)
            if parsed is not None and not problems:
                yield value, parsed.as_json()


def _has(content: Mapping[str, JsonValue], path: str) -> bool:
    """Whether the filled-out content has this place."""
    current: JsonValue = dict(content)
    for part in split_path(path):
        if isinstance(current, dict) and part in current:
            current = current[part]
        elif isinstance(current, list) and part.isdecimal() and int(part) < len(current):
            current = current[int(part)]
        else:
            return False
    return True


def _why_missing(content: dict[str, JsonValue], path: str) -> str:
    missing = set_value(content, split_path(path), None)
    return missing.text if missing is not None else "none of them has this key"


def _not_searched(path: str) -> str | None:
    if path == "data.input" or path.startswith("data.input."):
        return None
    around = [start for start in NOT_SEARCHED if path == start or path.startswith(f"{start}.")]
    if not around or (around == ["task"] and path != "task"):  # options of a task that have no reason of their own
        return None
    return NOT_SEARCHED[around[-1]]


def _tried(axis: Plain) -> Iterator[JsonValue]:
    """All choices; of a range the bounds, and an odd value between them where fractions can come up."""
    if not isinstance(axis, Range):
        yield from axis
        return
    if axis.integer:
        yield from (int(axis.low), int(axis.high))
        return
    yield from (axis.low, axis.high)
    if axis.step is None and axis.low < axis.high:
        yield axis.low + (axis.high - axis.low) * 0.381966
