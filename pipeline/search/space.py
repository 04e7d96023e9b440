"""The search space as data: dotted recipe path -> tuple of choices, or Range. And its translation for Optuna.

Optuna's categories are str, int, float, bool or None. Where an axis has another choice (a list, a mapping), all its
choices go to Optuna as canonical JSON text and come back as they were.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

from phonefit.models.record import canonical_json
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe_search import Range

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

Space = Mapping[str, Range | tuple[JsonValue, ...]]
Category = str | int | float | bool | None


def distributions(space: Space) -> dict[str, "BaseDistribution"]:
    """Optuna's distribution of each axis.

    Raises:
        RecipeError: the space is empty, or has an axis with nothing to choose from.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not space:
        raise RecipeError("search.space is empty, so there is nothing to search; add for example bench.threads: [1, 2]")
    result: dict[str, BaseDistribution] = {}
    for path, axis in space.items():
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
    """A value for every path, chosen by the study's sampler."""
    for path, axis in space.items():
        if not isinstance(axis, Range):
            trial.suggest_categorical(path, _categories(axis))
        elif axis.integer:
            trial.suggest_int(path, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
        else:
            trial.suggest_float(path, axis.low, axis.high, log=axis.log, step=axis.step)
    return decode(trial.params, space)


def decode(parameters: Mapping[str, Category], space: Space) -> dict[str, JsonValue]:
    """Optuna's parameters as values for the recipe; those that have no value yet are left out."""
    values: dict[str, JsonValue] = {}
    for path, axis in space.items():
        if path in parameters:
            encoded = parameters[path]
            values[path] = encoded if isinstance(axis, Range) else axis[_categories(axis).index(encoded)]
    return values


def encode(values: Mapping[str, JsonValue], space: Space) -> dict[str, Category]:
    """Values for the recipe as Optuna's parameters: the inverse of `decode`."""
    parameters: dict[str, Category] = {}
    for path, value in values.items():
        axis = space[path]
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


def size(space: Space) -> int | None:
    """Number of points, or None where a range is continuous."""
    counts = [_axis_size(axis) for axis in space.values()]
    return math.prod(count for count in counts if count is not None) if None not in counts else None


def points(space: Space) -> Iterator[dict[str, JsonValue]]:
    """Every point of a finite space."""
    axes = [_grid(axis) if isinstance(axis, Range) else axis for axis in space.values()]
    for values in itertools.product(*axes):
        yield dict(zip(space, values, strict=True))


def _categories(axis: tuple[JsonValue, ...]) -> list[Category]:
    plain = [value for value in axis if value is None or isinstance(value, str | int | float)]
    return plain if len(plain) == len(axis) else [canonical_json(value) for value in axis]


def _axis_size(axis: Range | tuple[JsonValue, ...]) -> int | None:
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
