"""What ending trials early has saved: an estimate from what the finished trials of the same study took."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from phonefit.models.record import Frozen
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.result import SearchTrial

FINETUNE = "finetune"


def stage_seconds(result: TrialResult) -> dict[str, float]:
    """Stage -> seconds that it took when it was computed, over all files; of fine-tuning those of an epoch."""
    seconds: dict[str, float] = {}
    for use in result.stages:
        seconds[use.stage] = seconds.get(use.stage, 0.0) + use.seconds
    epochs = Recipe.model_validate(result.recipe).finetune.epochs
    if FINETUNE in seconds:
        seconds[FINETUNE] /= max(1, epochs)
    return seconds


def stages_after_training(recipe: Recipe) -> list[str]:
    """The stages that follow fine-tuning. Steps that are planned are not known."""
    return [*dict.fromkeys(step.technique for step in recipe.steps), "convert", "evaluate", "measure"]


def with_savings(trials: Sequence[SearchTrial]) -> list[SearchTrial]:
    """The trials, the ended ones with an estimate of the seconds that were avoided."""
    taken: dict[str, list[float]] = {}
    for trial in trials:
        for stage, seconds in trial.stage_seconds.items():
            taken.setdefault(stage, []).append(seconds)
    usual = {stage: median(seconds) for stage, seconds in taken.items()}
    return [
        trial.model_copy(update={"seconds_avoided": _estimate(trial.avoided, usual)})
        if trial.state == "ended" and usual
        else trial
        for trial in trials
    ]


class CheckSum(Frozen):
    """One check over all trials: those that it ended, and the seconds that this avoided, as far as it is known."""

    check: str
    trials: tuple[int, ...]
    seconds_avoided: float


def check_sums(trials: Sequence[SearchTrial]) -> Iterator[CheckSum]:
    """The checks that ended trials, in the order of their first one."""
    ended = [trial for trial in trials if trial.ended_by is not None]
    for check in dict.fromkeys(trial.ended_by or "" for trial in ended):
        by_it = [trial for trial in ended if trial.ended_by == check]
        yield CheckSum(
            check=check,
            trials=tuple(trial.number for trial in by_it),
            seconds_avoided=sum(trial.seconds_avoided or 0.0 for trial in by_it),
        )


def _estimate(avoided: Mapping[str, float], usual: Mapping[str, float]) -> float:
    return sum(count * usual.get(stage, 0.0) for stage, count in avoided.items())
