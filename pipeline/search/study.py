"""The search: an Optuna study, in SQLite inside the run folder unless the recipe says otherwise.

    RUNS/NAME/study.db        the study; `storage` says where else it can be
    RUNS/NAME/trials/N.json   TrialResult of trial N
    RUNS/NAME/search.json     SearchResult, written anew after every trial
    RUNS/NAME/locks/          study: held while a trial is chosen; trial-N: held while it runs

Several processes can work on one study. A trial whose process died is marked as failed and its point is tried again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from phonefit.pipeline.context import Progress, SilentProgress
from phonefit.pipeline.errors import PhonefitError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_file import as_recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.claims import Job
from phonefit.pipeline.search.definition import surroundings_of
from phonefit.pipeline.search.records import open_study, quiet_optuna, taken_trials, trials_of
from phonefit.pipeline.search.result import SearchResult
from phonefit.pipeline.search.space import distributions
from phonefit.pipeline.search.storage import explain_storage_errors, place_of
from phonefit.pipeline.search.trials import SAME_FAILURES, SearchStoppedError, evaluation, summarise, work
from phonefit.pipeline.store import Store, explain_disk_errors, write_result

__all__ = ["SAME_FAILURES", "Executor", "SearchStoppedError", "search"]

Executor = Literal["local", "ray"]


def search(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] = (),
    *,
    trials: int | None = None,
    runs: Path = Path("runs"),
    progress: Progress | None = None,
    evaluate: Callable[[Recipe], TrialResult] | None = None,
    workers: int = 1,
    executor: Executor = "local",
    ray_address: str | None = None,
) -> SearchResult:
    """Search the recipe's space, or go on with a search of the same name.

    A trial counts when it is complete or has failed for a reason of its own; one that was killed, and a point that
    was tried before, do not. The search ends early when every point of a finite space has been tried.

    Args:
        recipe: a Recipe, the name of a shipped one, or a path; its `search` says what to vary, how, and what for.
        overrides: "dotted.path=value".
        trials: trials of the study in total, those of earlier calls included; default: the recipe's search.trials.
        runs: the runs folder.
        evaluate: one trial; default: `run_trial`, with its stages in the store of `runs`, ended by `search.screening`
            where it cannot matter.
        workers: with more than one, trials are run by so many processes of their own: `evaluate` must be picklable, and
            a script needs its `if __name__ == "__main__":`. What is tried next depends on what has ended, so only with
            one worker the same points are tried each time.
        executor: "ray" runs each trial as a task of a Ray cluster; `workers` is not looked at then.
        ray_address: of a running cluster; None starts one on this machine.

    Raises:
        RecipeError: the recipe has problems, or the study of this name is about something else.
        SearchStoppedError: three trials in a row failed with the same message, or three workers in a row died.
        StoreError: the run folder cannot be written or read.
    """
    recipe = as_recipe(recipe, overrides)
    progress = progress or SilentProgress()
    own_trials = evaluate is None
    folder = Store(runs).folder(recipe.name)
    job = Job(recipe, folder, trials or recipe.search.trials, place_of(recipe, folder))
    distributions(job.space)
    surroundings = surroundings_of(recipe, runs, progress) if own_trials else {}
    with quiet_optuna(), explain_storage_errors(job.place), explain_disk_errors(runs):
        (folder / "locks").mkdir(exist_ok=True)
        study = open_study(recipe, job.place, surroundings)
        with progress.stage(f"search: {recipe.search.sampler}", total=job.wanted) as advance:
            finished = sum(trial.state != "running" for trial in taken_trials(trials_of(study, recipe)))
            advance(min(job.wanted, finished))

            def ended(number: int, failure: PhonefitError | None) -> None:
                advance(1, f"trial {number}{' failed' if failure else ''}")

            count = min(workers, job.wanted - finished)
            if executor == "ray":
                from phonefit.pipeline.search.ray_cluster import run_on_ray

                run_on_ray(study, job, runs, evaluate, surroundings, ray_address, ended)
            elif count > 1:
                from phonefit.pipeline.search.local import run_workers

                run_workers(job, runs, evaluate, count, ended)
            else:
                work(study, job, evaluation(evaluate, runs, progress), begun=lambda number: None, ended=ended)
        result = summarise(study, job)
        if own_trials:
            from phonefit.pipeline.search.front import with_front_tested

            result = with_front_tested(result, recipe, runs, progress)
            write_result(folder / "search.json", result)
        return result
