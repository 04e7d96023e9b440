"""The content of a recipe file: setting values by dotted path, and validation that finds every problem at once."""

import copy
import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic_core import ErrorDetails

from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_auto import AutoConfig

# What stands in for a required part with a problem of its own, so that the checks of the other parts still run.
_STAND_INS: Mapping[str, JsonValue] = {
    "name": "unnamed",
    "model": {"factory": "module:function"},
    "data": {"source": "demo"},
}
_ROUNDS = 10
_OPEN = {("model", "arguments"), ("task", "arguments"), ("search", "space")}  # a person names the keys

Parts = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at `parts` of the recipe."""

    parts: Parts
    text: str

    def __str__(self) -> str:
        place = ".".join(str(part) for part in self.parts)
        return f"{place}: {self.text}" if place else self.text


def problems_error(origin: str, problems: Sequence[Problem]) -> RecipeError:
    """The error that lists all problems of a recipe."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return RecipeError("\n".join([f"{origin}: {count}", *(f"  {problem}" for problem in problems)]))


def split_path(path: str) -> tuple[str, ...]:
    """Parts of a dotted path. Keys of search.space are dotted paths themselves and stay whole."""
    parts = tuple(path.split("."))
    return (*parts[:2], ".".join(parts[2:])) if parts[:2] == ("search", "space") and len(parts) > 2 else parts


def set_value(
    content: dict[str, JsonValue], parts: Sequence[str], value: JsonValue, create: bool = False
) -> Problem | None:
    """Set one value inside nested mappings and lists, in place.

    Args:
        create: make missing sections and keys, for content that leaves out defaults; whether they exist at all
            is then for the recipe's own check to say.

    Returns:
        What is wrong, or None.
    """
    current: JsonValue = content
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        here = ".".join(parts[:depth])
        if isinstance(current, dict):
            is_open = create or tuple(parts[:depth]) in _OPEN
            if part not in current and not (is_open and (last or create)):
                return Problem(tuple(parts), f"no such path{suggest(part, current)}")
            if last:
                current[part] = copy.deepcopy(value)
                return None
            if create and current.get(part) is None:
                if parts[depth + 1].isdecimal():
                    return Problem(tuple(parts), f"{part} is not in the recipe, so it has no item; give the whole list")
                current[part] = {}
            current = current[part]
        elif isinstance(current, list):
            if not part.isdecimal() or int(part) >= len(current):
                return Problem(tuple(parts), f"{here} has {len(current)} items, numbered from 0")
            if last:
                current[int(part)] = copy.deepcopy(value)
                return None
            current = current[int(part)]
        else:
            options = "; a task with options is written {name: …, OPTION: …}" if here == "task" else ""
            return Problem(tuple(parts), f"{here} is a single value, it has nothing inside{options}")
    return Problem(tuple(parts), "an empty path")


def parse_content(content: Mapping[str, JsonValue]) -> tuple[Recipe | None, list[Problem]]:
    """Validate; after a problem, go on without the part that has it, so that the rest is checked too."""
    rest: dict[str, JsonValue] = copy.deepcopy(dict(content))
    problems: list[Problem] = []
    for _ in range(_ROUNDS):
        try:
            return Recipe.model_validate(rest), problems
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                parts = _place(detail, rest)
                if not any(_related(parts, problem.parts) for problem in problems):
                    problems.append(Problem(parts, _explain(detail)))
            for parts in [_place(detail, rest) for detail in error.errors(include_url=False)]:
                _leave_out(rest, parts)
    return None, problems


def _place(detail: ErrorDetails, content: Mapping[str, JsonValue]) -> Parts:
    """Where the problem is in the person's file: pydantic's location without the tags of unions."""
    parts: list[str | int] = []
    current: object = content
    location = detail["loc"]
    for depth, part in enumerate(location):
        if _holds(current, part):
            current = current[part]  # type: ignore[index]
        elif detail["type"] != "missing" or depth < len(location) - 1:
            continue
        parts.append(part)
    if detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        parts.append("technique")
    return tuple(parts)


def _holds(container: object, part: str | int) -> bool:
    if isinstance(container, dict):
        return part in container
    return isinstance(container, list) and isinstance(part, int) and part < len(container)


def _related(first: Parts, second: Parts) -> bool:
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]


def _leave_out(content: dict[str, JsonValue], parts: Parts) -> None:
    """Remove the innermost mapping entry that leads to `parts`; a required top-level part gets its stand-in."""
    entries: list[tuple[dict[str, JsonValue], str]] = []
    current: Any = content
    for part in parts:
        if not _holds(current, part):
            break
        if isinstance(part, str):
            entries.append((current, part))
        current = current[part]
    if entries:
        holder, key = entries[-1]
        del holder[key]
    elif parts and parts[0] in _STAND_INS:
        content[str(parts[0])] = copy.deepcopy(_STAND_INS[str(parts[0])])


def _explain(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key{suggest(str(detail['loc'][-1]), _known_keys(detail['loc'][:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        allowed = [word.strip("' ") for word in context["expected"].replace(" or ", ", ").split(",")]
        return f"{shown(detail['input'])} is not allowed{suggest(str(detail['input']), allowed, 'allowed')}"
    if kind == "union_tag_invalid":
        tags = [word.strip("' ") for word in context["expected_tags"].split(",")]
        return f"{context['tag']!r} is not allowed{suggest(context['tag'], tags, 'allowed')}"
    if kind == "union_tag_not_found":
        return f"is missing; allowed: {', '.join(_techniques())}"
    if kind == "value_error":
        return detail["msg"].removeprefix("Value error, ")
    return f"{shown(detail['input'])} is not allowed: {detail['msg'].replace('Input should', 'it should')}"


def shown(value: object) -> str:
    """A value as a person would write it, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def suggest(name: str, known: Iterable[str], title: str = "known") -> str:
    """The end of a message about an unknown name: the nearest known one, and all of them."""
    names = list(known)
    initials = [one for one in names if name == "".join(word[0] for word in one.split("_") if word)]
    close = initials or difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    return f"{meant} {title}: {', '.join(names) or 'nothing'}"


def _techniques() -> list[str]:
    models = _models_in(Recipe.model_fields["compress"].annotation)
    return [model.model_fields["technique"].default for model in models if "technique" in model.model_fields]


def _known_keys(location: Parts) -> list[str]:
    """Keys that a section takes."""
    models: list[type[BaseModel]] = [Recipe]
    for part in location:
        tagged = [model for model in models if _tag(model) == part]
        fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
        if tagged:
            models = tagged
        elif fields:
            models = [model for field in fields for model in _models_in(field.annotation)]
    return list(dict.fromkeys(key for model in models for key in model.model_fields))


def _tag(model: type[BaseModel]) -> object:
    if model is AutoConfig:
        return "planned"
    names = [model.model_fields[key].default for key in ("technique", "name") if key in model.model_fields]
    return next(iter(names), None)


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
