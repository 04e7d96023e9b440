"""What a study is about. Trials of one study can only be compared when nothing but the searched values differs."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_content import set_value, split_path

# Parts of a recipe that change no figure of a trial.
_WITHOUT_EFFECT = ("schema_number", "name", "description", "threads", "search", "bench.reuse")


def definition_of(recipe: Recipe) -> dict[str, JsonValue]:
    """Space, objectives, and the rest of the recipe with the searched values blanked out."""
    rest = recipe.as_json()
    for path in recipe.search.space:
        set_value(rest, split_path(path), None)
    for path in _WITHOUT_EFFECT:
        *parents, key = path.split(".")
        holder = rest
        for parent in parents:
            holder = holder[parent]
        holder.pop(key, None)
    search = recipe.search.as_json()
    return {"search.space": search["space"], "search.objectives": search["objectives"], **rest}


def differences(
    study: Mapping[str, JsonValue], recipe: Mapping[str, JsonValue], place: str = ""
) -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Dotted path, the study's value, the recipe's value, for everything that differs."""
    for key in dict.fromkeys([*study, *recipe]):
        path = f"{place}.{key}" if place else key
        old, new = study.get(key), recipe.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, path)
        elif old != new:
            yield path, old, new
