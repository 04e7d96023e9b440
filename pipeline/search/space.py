"""The search space as data: dotted recipe path -> tuple of choices, Range, or one of them that exists conditionally.
And its translation for Optuna.

Optuna's categories are str, int, float, bool or None. Where an axis has another choice (a list, a mapping), all its
choices go to Optuna as canonical JSON text and come back as they were.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeGuard

from pydantic import JsonValue

from phonefit.models.record import canonical_json
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_search import Range
from phonefit.pipeline.recipe_space import Conditional, Plain, axes_in_order

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

__all__ = [
    "Conditional",
    "Space",
    "axes_in_order",
    "decode",
    "distributions",
    "encode",
    "is_whole",
    "point_key",
    "points",
    "size",
    "suggest",
]

Space = Mapping[str, Plain | Conditional]
"""Each axis after the one that it depends on."""
Category = str | int | float | bool | None


def distributions(space: Space) -> dict[str, "BaseDistribution"]:
    """Optuna's distribution of each axis that every point has; conditional ones are for `suggest` alone.

    Raises:
        RecipeError: the space is empty, or has an axis with nothing to choose from.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not space:
        raise RecipeError("search.space is empty, so there is nothing to search; add for example bench.threads: [1, 2]")
    result: dict[str, BaseDistribution] = {}
    for path, axis in space.items():
        if isinstance(axis, Conditional):
            continue
        if not isinstance(axis, Range):
            if not axis:
                raise RecipeError(f"search.space.{path} has no choices")
            result[path] = CategoricalDistribution(_categories(axis))
        elif axis.integer:
            result[path] = IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
        else:
            result[path] = FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
    return result


def suggest(trial: "Trial", space: Space) -> dict[str, JsonValue]:
    """A value for every path that exists under the values before it, chosen by the study's sampler."""
    values: dict[str, JsonValue] = {}
    for path, conditional in space.items():
        axis = _plain(conditional)
        if isinstance(conditional, Conditional) and not conditional.holds(values):
            continue
        if not isinstance(axis, Range):
            values[path] = axis[_categories(axis).index(trial.suggest_categorical(path, _categories(axis)))]
        elif axis.integer:
            whole = trial.suggest_int(path, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
            values[path] = whole
        else:
            values[path] = trial.suggest_float(path, axis.low, axis.high, log=axis.log, step=axis.step)
    return values


def decode(parameters: Mapping[str, Category], space: Space) -> dict[str, JsonValue]:
    """Optuna's parameters as values for the recipe; those that have no value yet are left out."""
    values: dict[str, JsonValue] = {}
    for path, conditional in space.items():
        axis = _plain(conditional)
        if path in parameters:
            encoded = parameters[path]
            values[path] = encoded if isinstance(axis, Range) or _is_plain(axis) else json.loads(str(encoded))
    return values


def encode(values: Mapping[str, JsonValue], space: Space) -> dict[str, Category]:
    """Values for the recipe as Optuna's parameters: the inverse of `decode`."""
    parameters: dict[str, Category] = {}
    for path, value in values.items():
        axis = _plain(space[path])
        if isinstance(axis, Range):
            assert isinstance(value, int | float)
            parameters[path] = value
        else:
            parameters[path] = _categories(axis)[axis.index(value)]
    return parameters


def point_key(values: Mapping[str, JsonValue]) -> str:
    """The same text for the same point, whatever the order and the last digits of its values."""
    rounded = {path: float(f"{value:.12g}") if isinstance(value, float) else value for path, value in values.items()}
    return canonical_json(rounded)


def is_whole(values: Mapping[str, JsonValue], space: Space) -> bool:
    """Whether every axis that exists under these values has one."""
    return all(
        path in values or (isinstance(axis, Conditional) and not axis.holds(values)) for path, axis in space.items()
    )


def size(space: Space) -> int | None:
    """Number of points, or None where a range is continuous."""
    roots = [path for path, axis in space.items() if not isinstance(axis, Conditional)]
    counts = [_branches(path, space) for path in roots]
    return math.prod(count for count in counts if count is not None) if None not in counts else None


def points(space: Space) -> Iterator[dict[str, JsonValue]]:
    """Every point of a finite space."""
    yield from _extended({}, list(space.items()))


def _extended(
    values: dict[str, JsonValue], rest: Sequence[tuple[str, Plain | Conditional]]
) -> Iterator[dict[str, JsonValue]]:
    if not rest:
        yield values
        return
    (path, conditional), *others = rest
    if isinstance(conditional, Conditional) and not conditional.holds(values):
        yield from _extended(values, others)
        return
    axis = _plain(conditional)
    for value in _grid(axis) if isinstance(axis, Range) else axis:
        yield from _extended({**values, path: value}, others)


def _branches(path: str, space: Space) -> int | None:
    """Number of ways to choose this axis and those that depend on it."""
    axis = _plain(space[path])
    inside = {name: below for name, below in space.items() if isinstance(below, Conditional) and below.parent == path}
    if not inside or isinstance(axis, Range):
        return _axis_size(axis)
    total = 0
    for choice in axis:
        counts = [_branches(name, space) for name, below in inside.items() if choice in below.choices]
        if None in counts:
            return None
        total += math.prod(count for count in counts if count is not None)
    return total


def _plain(axis: Plain | Conditional) -> Plain:
    return axis.axis if isinstance(axis, Conditional) else axis


def _categories(axis: tuple[JsonValue, ...]) -> list[Category]:
    plain = [value for value in axis if _is_category(value)]
    return plain if len(plain) == len(axis) else [canonical_json(value) for value in axis]


def _is_plain(axis: tuple[JsonValue, ...]) -> bool:
    return all(_is_category(value) for value in axis)


def _is_category(value: JsonValue) -> TypeGuard[Category]:
    return value is None or isinstance(value, str | int | float)


def _axis_size(axis: Plain) -> int | None:
    if not isinstance(axis, Range):
        return len(axis)
    if axis.low == axis.high:
        return 1
    step = axis.step or (1 if axis.integer else None)
    return None if step is None else math.floor((axis.high - axis.low) / step + 1e-9) + 1


def _grid(axis: Range) -> list[JsonValue]:
    count = _axis_size(axis) or 0
    step = axis.step or 1
    return [int(axis.low + place * step) if axis.integer else axis.low + place * step for place in range(count)]
