"""Cheap before dear: a trial of the search is ended as soon as it cannot matter. `search.screening` says by what.

1. architecture, before training: what the files cost with random weights misses the budget, or is dominated.
2. promotion, at the rungs of fine-tuning: the trial is not among the best of those that came as far; see `fidelity`.
3. before device: what the converted files weigh and how well they decide is known, and it misses a limit, or is
   dominated by a finished trial even with the best values of the rest.
4. latency predictor: as 1 and 3, with a latency that is not below what the study's own reports let expect.

All that a check knows of other trials is in the study, so that several processes, and a search that goes on after a
kill, decide alike. What a trial that was not ended gives is the same, whatever is switched on.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from phonefit.device_bench.device import Device
from phonefit.models.artifact import Artifact
from phonefit.models.tasks import task
from phonefit.models.tasks.task import merit_of
from phonefit.pipeline.budget import Figures
from phonefit.pipeline.checks import JudgedFile
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import TrialEndedError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_auto import AutoConfig
from phonefit.pipeline.recipe_search import Objective
from phonefit.pipeline.search.fidelity import goes_on, rungs
from phonefit.pipeline.search.latency_predictor import Predictor, fit
from phonefit.pipeline.search.outcome import counts_alone
from phonefit.pipeline.search.records import trials_of
from phonefit.pipeline.search.result import SearchTrial
from phonefit.pipeline.search.savings import FINETUNE, stages_after_training
from phonefit.pipeline.search.screening_bounds import Bounds, lowered, missed_by, reason_to_end

if TYPE_CHECKING:
    from optuna import Study, Trial

    from phonefit.pipeline.search.screening_architecture import ExpectedFile

ARCHITECTURE, PROMOTION = "architecture", "promotion"
BEFORE_DEVICE, PREDICTOR = "before device", "latency predictor"
# Attributes of a trial in the study.
ENDED, RUNGS, LAYERS, SECONDS = "ended", "rungs", "layers", "seconds_checking"
_SIZES = {"file_size", "ram", "peak_memory"}  # limits on what a file tells without being run
_COUNTED = {"latency_p90_ms", "energy_uj", "instructions"}  # and on what a device that counts tells exactly


@dataclass
class Screening:
    """The checks of one trial, as `run_trial` calls them.

    Attributes:
        recipe: that of the trial.
        expected: its files with random weights, once they are known.
        seconds: what the checks have taken.
    """

    study: "Study"
    trial: "Trial"
    recipe: Recipe
    expected: "tuple[ExpectedFile, ...]" = ()
    seconds: float = 0.0

    def before_training(self, recipe: Recipe, context: Context, device: Device) -> None:
        """Checks 1 and 4.

        Raises:
            TrialEndedError: no file can fit the budget, or reach the front.
            StoreError: the runs folder cannot be written.
        """
        if isinstance(recipe.compress, AutoConfig) or not self._expects():
            return
        from phonefit.pipeline.search.screening_architecture import expected_files

        config = recipe.search.screening
        with self._timed():
            inexact = config.architecture == "declared" or config.promotion is not None
            self.expected = expected_files(recipe, context, device, inexact, self._only_limits())
        if config.architecture == "off" or not all(
            one.exact or config.architecture == "declared" for one in self.expected
        ):
            return
        bounds = [
            Bounds(one.name, lowered(replace(one.figures(), quality_drop=0), one.slack), math.inf)
            for one in self.expected
        ]
        sums = {one.name: (one.artifact, one.sums) for one in self.expected}
        self._filter(ARCHITECTURE, bounds, sums, self._avoided(recipe.finetune.epochs))

    def after_epoch(self, qualities: Sequence[float]) -> None:
        """Check 2.

        Raises:
            TrialEndedError: the trial is not among the best of its rung.
        """
        config, epoch = self.recipe.search.screening.promotion, len(qualities) - 1
        if config is None:
            return
        epochs = self.recipe.finetune.epochs
        rung = rungs(epochs, config.factor, config.least_epochs).get(epoch)
        if rung is None:
            return
        objectives = self.recipe.search.objectives
        costs = [self._cost_at_rung(name, max(qualities)) for name in objectives]
        known = [None if math.isnan(cost) else cost for cost in costs]
        self.trial.set_user_attr(RUNGS, {**self.trial.user_attrs.get(RUNGS, {}), str(rung): known})
        if objectives == ("quality",):
            self.trial.report(max(qualities), epoch)
        rivals = [
            attributes[RUNGS][str(rung)] for _, attributes in self._others() if str(rung) in attributes.get(RUNGS, {})
        ]
        if not goes_on(
            costs, [[math.nan if cost is None else cost for cost in rival] for rival in rivals], config.factor
        ):
            reason = (
                f"after epoch {epoch} of {epochs}, quality {max(qualities):.4f}, it is not among the best "
                f"1/{config.factor} of {len(rivals) + 1} trials"
            )
            self._end(PROMOTION, reason, self._avoided(epochs - epoch))

    def before_measuring(self, recipe: Recipe, files: Sequence[JudgedFile]) -> None:
        """Checks 3 and 4.

        Raises:
            TrialEndedError: no file fits the budget, or can reach the front.
        """
        config = recipe.search.screening
        speaking = [file for file in files if file.variant == "compressed"] or list(files)
        sums = {}
        if config.predictor:
            from phonefit.pipeline.search.latency_predictor import layer_sums

            with self._timed():
                for file in speaking:
                    found = layer_sums(file.source.load(), file.source.info.architecture)
                    sums[file.name] = (file.artifact, found)
            layers = {name: {"group": self._group(artifact), "sums": found} for name, (artifact, found) in sums.items()}
            self.trial.set_user_attr(LAYERS, layers)
        if config.before_device:
            asked = task(recipe.task)
            bounds = [
                Bounds(file.name, self._known(file), merit_of(asked.better, file.quality[asked.quality]))
                for file in speaking
            ]
            if recipe.search.objectives == ("quality",):
                self.trial.report(max(one.quality for one in bounds), recipe.finetune.epochs + 1)
            self._filter(BEFORE_DEVICE, bounds, sums, {"measure": 1})

    def _expects(self) -> bool:
        """Whether anything that is known before training can matter."""
        checkable = _SIZES | (_COUNTED if counts_alone(self.recipe) else set())
        limited = self.recipe.search.screening.architecture != "off" and checkable & {*self.recipe.limits.given}
        return bool(limited) or self._compares()

    def _only_limits(self) -> bool:
        """Whether all that matters before training is limits on sizes, which many networks are far from."""
        counted = counts_alone(self.recipe) and _COUNTED & {*self.recipe.limits.given}
        return not counted and not self._compares()

    def _compares(self) -> bool:
        """Whether other trials matter before training."""
        config, objectives = self.recipe.search.screening, self.recipe.search.objectives
        dominated = config.architecture != "off" and "quality" not in objectives
        return dominated or config.predictor or (config.promotion is not None and len(objectives) > 1)

    def _known(self, file: JudgedFile) -> Figures:
        """Figures of a file that is not measured; what it counts with random weights, it counts with others too."""
        figures = Figures(0, file.planned_memory or 0, 0, 0, energy=0, instructions=0)
        for one in self.expected:
            if one.exact and one.artifact.runtime == file.artifact.runtime and one.report is not None:
                figures = lowered(one.figures(), one.slack)
        growth = task(self.recipe.task).better == "lower"
        return replace(figures, bytes=file.artifact.bytes, quality_drop=file.quality_drop, drop_is_growth=growth)

    def _filter(
        self,
        check: str,
        bounds: Sequence[Bounds],
        sums: Mapping[str, tuple[Artifact, Mapping[str, float]]],
        avoided: Mapping[str, float],
    ) -> None:
        """End the trial where none of its files can matter."""
        objectives, limits = self.recipe.search.objectives, self.recipe.limits
        others = self._others()
        rivals = [trial for trial, _ in others]
        if reason := reason_to_end(bounds, objectives, limits, rivals):
            self._end(check, reason, avoided, missed_by(bounds, limits))
        if not self.recipe.search.screening.predictor:
            return
        predictors = predictors_of(others)
        slow = []
        for one in bounds:
            predictor = predictors.get(self._group(sums[one.name][0]))
            slow.append(one if predictor is None else one.at_least(predictor.least_milliseconds(sums[one.name][1])))
        if reason := reason_to_end(slow, objectives, limits, rivals):
            self._end(PREDICTOR, f"by predicted latencies, {reason}", avoided, missed_by(slow, limits))

    def _cost_at_rung(self, objective: Objective, quality: float) -> float:
        """An objective as far as it is known at a rung; multiply-adds stand for what only a measurement tells."""
        if objective == "quality":
            return -quality
        if not self.expected:
            return math.nan
        if objective == "bytes":
            return min(one.artifact.bytes for one in self.expected)
        if all(one.report is not None for one in self.expected):
            return min(Bounds("", one.figures(), quality).values()[objective] for one in self.expected)
        if objective == "peak_memory":
            return min(math.nan if one.planned_memory is None else one.planned_memory for one in self.expected)
        return min(sum(value for name, value in one.sums.items() if "multiply" in name) for one in self.expected)

    def _avoided(self, epochs: int) -> dict[str, float]:
        return {FINETUNE: epochs, **dict.fromkeys(stages_after_training(self.recipe), 1)}

    def _others(self) -> list[tuple[SearchTrial, Mapping[str, Any]]]:
        """The other trials that count, with their attributes in the study; those that were interrupted do not."""
        frozen = {trial.number: trial.user_attrs for trial in self.study.get_trials(deepcopy=False)}
        return [
            (trial, frozen[trial.number])
            for trial in trials_of(self.study, self.recipe)
            if trial.state in ("complete", "ended", "failed", "running") and trial.number != self.trial.number
        ]

    def _group(self, artifact: Artifact) -> str:
        return f"{artifact.runtime} {artifact.precision}, threads {self.recipe.bench.threads}"

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start
            self.trial.set_user_attr(SECONDS, self.seconds)

    def _end(
        self, check: str, reason: str, avoided: Mapping[str, float], missed: Mapping[str, float] | None = None
    ) -> NoReturn:
        for name, excess in (missed or {}).items():
            self.trial.set_constraint(name, excess)
        self.trial.set_user_attr(ENDED, {"ended_by": check, "reason": reason, "avoided": dict(avoided)})
        raise TrialEndedError(check, reason)


def predictors_of(trials: Sequence[tuple[SearchTrial, Mapping[str, Any]]]) -> dict[str, Predictor]:
    """Group of files -> what the trusted reports of these trials, with their attributes in the study, have taught."""
    reports: dict[str, list[tuple[Mapping[str, float], float]]] = {}
    for trial, attributes in trials:
        for name, file in attributes.get(LAYERS, {}).items():
            if name in trial.latencies:
                reports.setdefault(file["group"], []).append((file["sums"], trial.latencies[name]))
    found = {group: fit(rows) for group, rows in reports.items()}
    return {group: predictor for group, predictor in found.items() if predictor is not None}
