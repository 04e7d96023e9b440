"""Reads a recipe: a shipped one by name or a YAML file, with "dotted.path=value" overrides.

YAML is read by the core schema of YAML 1.2: 1e-3 is a number, and only true and false are booleans.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import JsonValue

from phonefit.pipeline.errors import RecipeError, UnknownNameError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_check import apply_overrides, check_recipe, validated
from phonefit.pipeline.recipe_content import Problem, set_value, split_path

__all__ = [
    "apply_overrides",
    "check_recipe",
    "load_recipe",
    "recipe_descriptions",
    "recipe_text",
    "shipped_recipes",
]

_RECIPES = Path(__file__).parent / "recipes"


def shipped_recipes() -> Mapping[str, Path]:
    """The recipes that come with phonefit: name -> YAML file."""
    return {path.relative_to(_RECIPES).with_suffix("").as_posix(): path for path in sorted(_RECIPES.rglob("*.yaml"))}


def recipe_text(name: str) -> str:
    """A shipped recipe with its comments.

    Raises:
        UnknownNameError: with the names that exist.
    """
    shipped = shipped_recipes()
    if name not in shipped:
        raise UnknownNameError("recipe", name, shipped)
    return shipped[name].read_text(encoding="utf-8")


def recipe_descriptions() -> dict[str, str]:
    """Name -> description of each shipped recipe."""
    return {name: str(_read(recipe_text(name), name).get("description", "")) for name in shipped_recipes()}


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe. Paths inside it are relative to the current directory.

    Args:
        name_or_path: name of a shipped recipe, or path of a YAML file ("./demo" where both exist).
        overrides: "dotted.path=value", with the value in YAML: "finetune.epochs=2", "compress.0.ratio=0.5",
            "compress=[]", "convert.runtimes=[tflite]".

    Raises:
        RecipeError: with every problem: its path, the wrong value, and what is allowed.
        UnknownNameError: neither a shipped recipe nor a file, with the names that exist.
    """
    text, origin = _find(name_or_path)
    content = _read(text, origin)
    problems = [problem for override in overrides if (problem := _override(content, override))]
    return validated(content, origin, problems)


def as_recipe(recipe: Recipe | str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe from what a caller gives: a Recipe, the name of a shipped one, or a path.

    Raises:
        RecipeError: with every problem, as `load_recipe`.
        UnknownNameError: neither a shipped recipe nor a file, with the names that exist.
    """
    if not isinstance(recipe, Recipe):
        return load_recipe(recipe, overrides)
    content = recipe.as_json()
    problems = [problem for override in overrides if (problem := _override(content, override))]
    return validated(content, f"recipe {recipe.name}", problems)


def _find(name_or_path: str | Path) -> tuple[str, str]:
    """Text and name of a recipe."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in shipped_recipes():
        return recipe_text(name), f"recipe {name}"
    path = Path(name_or_path)
    looks_like_path = path.suffix in (".yaml", ".yml") or isinstance(name_or_path, Path) or len(path.parts) > 1
    if not looks_like_path and not path.is_file():
        raise UnknownNameError("recipe", name, shipped_recipes())
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: no such file in {Path.cwd()}; give a YAML file or one of: {', '.join(shipped_recipes())}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a recipe ({error})") from None


def _read(text: str, origin: str) -> dict[str, JsonValue]:
    """The mapping in a YAML text; a section with nothing in it counts as left out."""
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{origin}: not YAML: {_explain_yaml(error)}") from None
    if not isinstance(content, dict):
        raise RecipeError(
            f"{origin}: not a recipe: it needs sections such as name, model and data; see `phonefit recipes`"
        )
    sections = {str(key): value for key, value in content.items()}
    return {key: value for key, value in sections.items() if value is not None or key not in Recipe.model_fields}


def _override(content: dict[str, JsonValue], override: str) -> Problem | None:
    """Apply "dotted.path=value" in place; returns what is wrong with it."""
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        return Problem((), f"{override!r} is not of the form dotted.path=value")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        return Problem(split_path(path.strip()), f"{text!r} is not YAML: {_explain_yaml(error)}")
    return set_value(content, split_path(path.strip()), value, create=True)


def _explain_yaml(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2, which refuses a key that is given twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
