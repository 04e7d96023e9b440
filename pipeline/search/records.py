"""Studies: opening one, and reading its trials as the rest of phonefit sees them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from phonefit.models.record import canonical_json
from phonefit.pipeline.errors import RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.search.definition import definition_of, differences, without_defaults
from phonefit.pipeline.search.result import DIRECTIONS, TAKEN, SearchTrial, State
from phonefit.pipeline.search.savings import with_savings
from phonefit.pipeline.search.space import decode, point_key
from phonefit.pipeline.search.storage import Place

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

LEARN_FROM_VALUES = ("gp", "nsga2", "tensor_train")
"""Samplers that a trial without values teaches nothing."""
ATTEMPTS = 10
"""So often a point is tried whose process died: often, because a kill mostly comes from outside; not for ever,
because the point itself may be what fills the memory."""


def open_study(recipe: Recipe, place: Place, surroundings: Mapping[str, JsonValue]) -> "Study":
    """Create or load the study of this recipe, and check that it is about the same thing."""
    import optuna

    with place.held():
        study = optuna.create_study(
            storage=place.storage(),
            study_name=place.study_name,
            directions=[DIRECTIONS[name] for name in recipe.search.objectives],
            load_if_exists=True,
        )
        definition = {**definition_of(recipe), **surroundings}
        known = study.user_attrs.get("definition")
        if known is None:
            if place.leftovers:
                raise RecipeError(
                    f"the search {recipe.name!r} was begun in {place.leftovers[0]}, not in {place.shown}: "
                    "leave search.storage as it was, or give this search another name"
                )
            study.set_user_attr("definition", definition)
        elif different := list(differences(known, definition, without_defaults(definition, recipe))):
            shown = [
                f"  {where}: the study has {_short(old)}, "
                f"{'now it is' if where in surroundings else 'the recipe'} {_short(new)}"
                for where, old, new in different
            ]
            raise RecipeError(
                f"{place.shown} is a study of something else, its trials cannot be compared:\n"
                + "\n".join(shown[:8])
                + f"\nGive this search another name (name={recipe.name}-2), or delete {place.shown} to begin anew; "
                "stages in the store are reused either way"
            )
    return study


def load_study(recipe: Recipe, place: Place) -> "Study":
    """The study of this recipe, to look at.

    Raises:
        RecipeError: there is none, or its space or objectives are not those of the recipe.
    """
    import optuna

    try:
        if place.missing():
            raise KeyError
        study = optuna.load_study(storage=place.storage(), study_name=place.study_name)
    except KeyError:
        raise RecipeError(
            f"there is no search of the name {recipe.name!r}: {place.shown} does not exist; "
            f"begin one with `phonefit search`, or say with --runs or search.storage where it is"
        ) from None
    known, given = study.user_attrs.get("definition", {}), definition_of(recipe)
    shaping = ("search.space", "search.objectives")
    if any(key in known and known[key] != given[key] for key in shaping):
        changed = [where for key in shaping for where, *_ in differences({key: known.get(key)}, {key: given[key]})]
        raise RecipeError(
            f"{place.shown} is a study of something else: it differs from the recipe in {', '.join(changed)}; "
            "give the recipe that it was made with"
        )
    return study


def _short(value: JsonValue) -> str:
    text = canonical_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def taken_trials(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """Trials that count towards the number that is wanted, those of other processes included."""
    return [trial for trial in trials if trial.state in (*TAKEN, "running")]


def known_points(trials: Sequence[SearchTrial]) -> dict[str, int]:
    """Point -> number of the first trial that tries or tried it, or that was refused for it."""
    known = [trial for trial in trials if trial.state in (*TAKEN, "running", "refused")]
    return {point_key(trial.parameters): trial.number for trial in reversed(known)}


def trials_of(study: "Study", recipe: Recipe) -> list[SearchTrial]:
    """Every trial that was begun, as the rest of phonefit sees it."""
    from optuna.trial import TrialState

    marks = study.user_attrs
    frozen = study.get_trials(deepcopy=False)
    return with_savings([_record(trial, marks, recipe) for trial in frozen if trial.state != TrialState.WAITING])


def _record(trial: "FrozenTrial", marks: Mapping[str, Any], recipe: Recipe) -> SearchTrial:
    from optuna.trial import TrialState

    attributes = trial.user_attrs
    state: State
    passed_on = ("reason", "duplicate_of", "seconds_checking")
    found: dict[str, Any] = {name: attributes[name] for name in passed_on if name in attributes}
    if trial.state == TrialState.RUNNING:
        state = "running"
    elif trial.state == TrialState.COMPLETE:
        state = "complete"
        found["values"] = dict(zip(recipe.search.objectives, trial.values, strict=True))
        found |= {"constraints": trial.constraints, **attributes["notes"]}
    elif trial.state == TrialState.PRUNED:
        state = "ended"
        found |= {"constraints": trial.constraints, **attributes["ended"]}
        found["learned"] = recipe.search.sampler not in LEARN_FROM_VALUES or bool(trial.intermediate_values)
    elif "untrusted" in attributes:
        state = "complete"
        figures = attributes["untrusted"]
        found["values"] = dict(zip(recipe.search.objectives, figures["values"], strict=True))
        found |= {"constraints": figures["constraints"], "learned": False, **attributes["notes"]}
    elif "duplicate_of" in attributes:
        state = "duplicate"
    elif "refused" in attributes:
        state = "refused"
        found["reason"] = attributes["refused"]
    elif trial.number in marks.get("given_up", []):
        state = "failed"
        found["reason"] = f"its process died {ATTEMPTS} times, perhaps out of memory"
    elif "reason" in attributes and trial.number not in marks.get("tried_again", []):
        state = "failed"
    else:
        state = "interrupted"
    return SearchTrial(number=trial.number, state=state, parameters=decode(trial.params, recipe.search.space), **found)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes on each trial off the terminal; its warnings stay."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
