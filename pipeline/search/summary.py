"""What a study found, how, and what it cost: read from its files, nothing is run."""

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from phonefit.models.record import Frozen
from phonefit.pipeline.errors import FileFormatError, RecipeError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.result import TrialResult
from phonefit.pipeline.search.outcome import best_of, devices_in_words
from phonefit.pipeline.search.records import load_study, quiet_optuna, trials_of
from phonefit.pipeline.search.result import DIRECTIONS, TAKEN, SearchResult, SearchTrial, pareto_front, reliable_trials
from phonefit.pipeline.search.savings import CheckSum, check_sums
from phonefit.pipeline.search.screening import predictors_of
from phonefit.pipeline.search.storage import explain_storage_errors, place_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

LEAST_TRIALS = 10
"""With fewer trials importances say more about chance than about parameters."""
FRONT = "front"
_BEST_TRIALS = 5  # so many trials at least stand for "good" ones, as the authors of PED-ANOVA advise
_MARGIN = 0.1  # of the range of an objective, from the worst trial to the reference point of the hypervolume


class StageSum(Frozen):
    """One stage over all trials: how often it was computed and reused, and the seconds of each."""

    stage: str
    computed: int = 0
    reused: int = 0
    seconds_spent: float = 0.0
    seconds_saved: float = 0.0


class Reason(Frozen):
    """Why trials did not count: they failed, were refused or ended early, missed a limit, or could not be trusted."""

    kind: Literal["failed", "refused", "ended", "over budget", "untrusted"]
    text: str
    trials: tuple[int, ...]


class Step(Frozen):
    """How far the search was after this trial."""

    trial: int
    value: float


class StudySummary(Frozen):
    """What `phonefit search --show` shows.

    Attributes:
        importances: objective, or "front" for reaching the Pareto front -> path -> share of the total, 0..1.
        importances_note: how they were found, or why there are none.
        converged: what `convergence` shows: an objective, or "hypervolume" for several.
        convergence: after each finished trial, the best value that fits the budget; of the hypervolume, the share of
            the final one. Trials before the first that fits are left out.
        stages: in the order of a trial.
        checks: what ended trials early.
        predictors: what is known of predicted latencies, a line for each kind of file.
    """

    result: SearchResult
    importances: Mapping[str, Mapping[str, float]]
    importances_note: str
    converged: str
    convergence: tuple[Step, ...]
    stages: tuple[StageSum, ...]
    checks: tuple[CheckSum, ...]
    predictors: tuple[str, ...]
    reasons: tuple[Reason, ...]


def read_result(recipe: Recipe, runs: Path) -> SearchResult:
    """The trials of a search as far as it is, with the test quality of its front where it has ended.

    Raises:
        RecipeError: there is no such search, it is about something else, or none of its trials has ended.
        StoreError: the study cannot be read.
    """
    return _read(recipe, runs)[0]


def summarise_study(recipe: Recipe, runs: Path) -> StudySummary:
    """Everything that `phonefit search --show` shows.

    Raises:
        RecipeError: there is no such search, it is about something else, or none of its trials has ended.
        StoreError: the study cannot be read.
    """
    result, study = _read(recipe, runs)
    files = dict(_trial_files(result.trials, runs / recipe.name / "trials"))
    importances, note = importances_of(study, result)
    return StudySummary(
        result=result,
        importances=importances,
        importances_note=note,
        converged=result.objectives[0] if len(result.objectives) == 1 else "hypervolume",
        convergence=tuple(convergence_of(result)),
        stages=tuple(_stage_sums(files.values())),
        checks=tuple(check_sums(result.trials)),
        predictors=tuple(_predictors(study, result.trials)),
        reasons=(*_grouped(result.trials), *_over_budget(result.trials), *_doubts(result.trials, files)),
    )


def _read(recipe: Recipe, runs: Path) -> tuple[SearchResult, "Study"]:
    folder = runs / recipe.name
    place = place_of(recipe, folder)
    with quiet_optuna(), explain_storage_errors(place):
        study = load_study(recipe, place)
        trials = trials_of(study, recipe)
    if not any(trial.state in TAKEN for trial in trials):
        states = [trial.state for trial in trials]
        begun = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)) or "none was begun"
        raise RecipeError(f"the search {recipe.name!r} has no finished trial yet ({begun}); look again when it has one")
    try:
        earlier = {trial.number: trial for trial in SearchResult.load(folder / "search.json").trials}
    except FileFormatError:  # a search that was killed before its first summary
        earlier = {}
    tested = [
        trial.model_copy(update={"test_quality": earlier[trial.number].test_quality})
        if trial.number in earlier
        else trial
        for trial in trials
    ]
    front = pareto_front(trials, recipe.search.objectives)
    return (
        SearchResult(
            name=recipe.name,
            sampler=recipe.search.sampler,
            objectives=recipe.search.objectives,
            trials=tuple(tested),
            pareto=front,
            devices=devices_in_words(recipe),
        ),
        study,
    )


def importances_of(study: "Study", result: SearchResult) -> tuple[dict[str, dict[str, float]], str]:
    """Shares of each parameter in what makes good trials good, and how they were found.

    PED-ANOVA (Watanabe et al., IJCAI 2023, arXiv 2304.10255), which also knows conditional parameters (arXiv
    2601.20800). For each objective, and for several also for reaching the Pareto front.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    learned = sum(trial.learned and trial.state == "complete" for trial in result.trials)
    if learned < LEAST_TRIALS:
        return (
            {},
            f"importances of parameters need {LEAST_TRIALS} trials with figures to learn from; there are {learned}",
        )
    share = min(0.5, max(0.1, _BEST_TRIALS / learned))
    found: dict[str, dict[str, float]] = {}
    with warnings.catch_warnings():  # that it minimises, which the sign below sees to
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
        for place, name in enumerate(result.objectives):
            sign = -1.0 if DIRECTIONS[name] == "maximize" else 1.0

            def target(trial: "FrozenTrial", place: int = place, sign: float = sign) -> float:
                return sign * float(trial.values[place])

            shares = get_param_importances(study, evaluator=evaluator, target=target, normalize=False)
            found[name] = _normalised(shares)
        if len(result.objectives) > 1:
            found[FRONT] = _normalised(get_param_importances(study, evaluator=evaluator, normalize=False))
    return found, f"PED-ANOVA: what tells the best {share:.0%} of {learned} trials from the rest"


def _normalised(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {path: value / total if total > 0 else 0.0 for path, value in shares.items()}


def convergence_of(result: SearchResult) -> Iterator[Step]:
    """Best value, or share of the final hypervolume, after each finished trial, from the first one that fits on.

    The reference point of the hypervolume is a tenth of each objective's range beyond the worst trial that fits.
    """
    counted = reliable_trials(result.trials)
    if not counted:
        return
    signs = np.array([-1.0 if DIRECTIONS[name] == "maximize" else 1.0 for name in result.objectives])
    losses = {
        trial.number: signs * [trial.values[name] for name in result.objectives] for trial in counted if trial.values
    }
    measures = _best_so_far(losses, signs) if len(signs) == 1 else _hypervolumes(losses)
    value = math.nan
    for trial in result.trials:
        value = measures.get(trial.number, value)
        if trial.state in TAKEN and not math.isnan(value):
            yield Step(trial=trial.number, value=value)


def _best_so_far(losses: Mapping[int, NDArray[np.float64]], signs: NDArray[np.float64]) -> dict[int, float]:
    lowest = np.minimum.accumulate([loss[0] for loss in losses.values()])
    return {number: float(signs[0] * loss) for number, loss in zip(losses, lowest, strict=True)}


def _hypervolumes(losses: Mapping[int, NDArray[np.float64]]) -> dict[int, float]:
    from optuna._hypervolume import compute_hypervolume

    every = np.array(list(losses.values()))
    spread = np.ptp(every, axis=0)
    scaled = (every - every.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    reference = np.full(every.shape[1], 1.0 + _MARGIN)
    volumes = [compute_hypervolume(scaled[: count + 1], reference) for count in range(len(scaled))]
    return {number: float(volume / volumes[-1]) for number, volume in zip(losses, volumes, strict=True)}


def _trial_files(trials: Sequence[SearchTrial], folder: Path) -> Iterator[tuple[int, TrialResult]]:
    """The TrialResult of each complete trial whose file is still there."""
    for trial in trials:
        path = folder / f"{trial.number}.json"
        if trial.state == "complete" and path.is_file():
            yield trial.number, TrialResult.load(path)


def _stage_sums(files: Iterable[TrialResult]) -> Iterator[StageSum]:
    uses = [stage for file in files for stage in file.stages]
    for name in dict.fromkeys(stage.stage for stage in uses):
        reused = [stage.seconds for stage in uses if stage.stage == name and stage.reused]
        computed = [stage.seconds for stage in uses if stage.stage == name and not stage.reused]
        yield StageSum(
            stage=name,
            computed=len(computed),
            reused=len(reused),
            seconds_spent=sum(computed),
            seconds_saved=sum(reused),
        )


def _predictors(study: "Study", trials: Sequence[SearchTrial]) -> Iterator[str]:
    attributes = {trial.number: trial.user_attrs for trial in study.get_trials(deepcopy=False)}
    predictors = predictors_of([(trial, attributes[trial.number]) for trial in trials])
    for group, predictor in predictors.items():
        yield f"{group}: {predictor.describe()}"


def _grouped(trials: Sequence[SearchTrial]) -> Iterator[Reason]:
    """Failed, refused and ended trials; reasons that differ in numbers only are one."""
    for kind in ("failed", "refused", "ended"):
        alike: dict[str, list[SearchTrial]] = {}
        for trial in trials:
            if trial.state == kind:
                alike.setdefault(_without_numbers(trial.reason or ""), []).append(trial)
        for group in sorted(alike.values(), key=len, reverse=True):
            yield Reason(kind=kind, text=group[0].reason or "", trials=tuple(trial.number for trial in group))


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)


def _over_budget(trials: Sequence[SearchTrial]) -> Iterator[Reason]:
    limits = dict.fromkeys(name for trial in trials for name in trial.constraints)
    for name in limits:
        missed = {trial.number: trial.constraints[name] for trial in trials if trial.constraints.get(name, 0) > 0}
        if missed:
            least, most = min(missed.values()), max(missed.values())
            by = f"{least:.0%}" if len(missed) == 1 else f"{least:.0%} to {most:.0%}"
            yield Reason(kind="over budget", text=f"{name} is missed by {by}", trials=tuple(missed))


def _doubts(trials: Sequence[SearchTrial], files: Mapping[int, TrialResult]) -> Iterator[Reason]:
    """Reasons not to trust the measurement of a trial's file."""
    alike: dict[str, list[tuple[int, str]]] = {}
    for trial in trials:
        if trial.trusted or trial.number not in files:
            continue
        reports = best_of(files[trial.number]).reports
        for report in reports:
            where = f"{report.device.name}: " if len(reports) > 1 else ""
            for doubt in report.untrusted:
                alike.setdefault(where + _without_numbers(doubt.reason), []).append(
                    (trial.number, where + doubt.reason)
                )
    for group in sorted(alike.values(), key=len, reverse=True):
        yield Reason(kind="untrusted", text=group[0][1], trials=tuple(number for number, _ in group))
