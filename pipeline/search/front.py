"""The test side, read once at the end of a search: for the trials of the Pareto front, and for no choice."""

from pathlib import Path

from phonefit.pipeline.context import Progress
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import apply_overrides
from phonefit.pipeline.recipe_search import is_database
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.run import with_test_quality
from phonefit.pipeline.search.outcome import best_of
from phonefit.pipeline.search.result import SearchResult


def with_front_tested(result: SearchResult, recipe: Recipe, runs: Path, progress: Progress) -> SearchResult:
    """`result` with the test quality of each trial on its Pareto front.

    Raises:
        FileFormatError: a trial's file was removed from the runs folder.
    """
    trials = list(result.trials)
    for index, trial in enumerate(trials):
        if trial.number not in result.pareto:
            continue
        path = runs / recipe.name / "trials" / f"{trial.number}.json"
        if is_database(recipe.search.storage) and not path.exists():  # it is on the machine that ran the trial
            continue
        measured = TrialResult.load(path)
        varied = apply_overrides(recipe, trial.parameters)
        (file,) = with_test_quality([best_of(measured)], varied, runs, progress)
        assert file.test_quality is not None  # with_test_quality fills it
        trials[index] = trial.model_copy(update={"test_quality": measured.merit(file.test_quality)})
    return result.model_copy(update={"trials": tuple(trials)})
