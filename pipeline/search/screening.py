"""Cheap before dear: a trial of the search is ended as soon as it cannot matter. `search.screening` says by what.

1. architecture, before training: what the files cost with random weights misses the budget, or is dominated.
   Converted for that are only networks whose cost does not follow from their weights, or from those of other trials.
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
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from phonefit.device_bench.device import Device
from phonefit.models.artifact import Artifact
from phonefit.models.tasks import task
from phonefit.models.tasks.task import merit_of
from phonefit.pipeline.budget import Figures, violations
from phonefit.pipeline.checks import JudgedFile
from phonefit.pipeline.context import Context
from phonefit.pipeline.errors import TrialEndedError
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_auto import AutoConfig
from phonefit.pipeline.recipe_search import Objective
from phonefit.pipeline.search import compared_costs
from phonefit.pipeline.search.compared_costs import Costs
from phonefit.pipeline.search.fidelity import goes_on, rungs
from phonefit.pipeline.search.latency_predictor import Predictor, fit
from phonefit.pipeline.search.outcome import counts_alone
from phonefit.pipeline.search.records import trials_of
from phonefit.pipeline.search.result import SearchTrial
from phonefit.pipeline.search.savings import FINETUNE, stages_after_training
from phonefit.pipeline.search.screening_bounds import Bounds, lowered, missed_by, reason_to_end

if TYPE_CHECKING:
    from optuna import Study, Trial

    from phonefit.pipeline.search.screening_architecture import ExpectedFile, Untrained

ARCHITECTURE, PROMOTION = "architecture", "promotion"
BEFORE_DEVICE, PREDICTOR = "before device", "latency predictor"
# Attributes of a trial in the study.
ENDED, RUNGS, LAYERS, COSTS, SECONDS = "ended", "rungs", "layers", "costs", "seconds_checking"
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
        config = recipe.search.screening
        limited = config.architecture != "off" and bool(self._checkable() & {*recipe.limits.given})
        if isinstance(recipe.compress, AutoConfig) or not (limited or config.predictor or self._compares()):
            return
        from phonefit.pipeline.search.screening_architecture import expected_files, untrained_network

        with self._timed():
            inexact = config.architecture == "declared" or config.promotion is not None
            network = untrained_network(recipe, context, inexact)
        if network is None:
            return
        judged = config.architecture != "off" and (network.exact or config.architecture == "declared")
        needless = self._told_by_others(network) if judged else not self._compares()
        if needless:
            return
        with self._timed():
            self.expected = expected_files(network, recipe, context, device)
        if counts_alone(recipe):
            self.trial.set_user_attr(COSTS, [asdict(costs) for costs in map(_costs, self.expected) if costs])
        if judged:
            bounds = [
                Bounds(one.name, lowered(replace(one.figures(), quality_drop=0), one.slack), math.inf)
                for one in self.expected
            ]
            self._filter(ARCHITECTURE, bounds, {one.name: (_format(one.artifact), one.sums) for one in self.expected})

    def _told_by_others(self, network: "Untrained") -> bool:
        """Whether nothing is left to find out by converting it.

        Raises:
            TrialEndedError: no file can fit the budget, by its weights alone, or by what networks cost that do no more.
        """
        counts, limits = counts_alone(self.recipe), self.recipe.limits
        known = [Costs(**costs) for _, attributes in self._others() for costs in attributes.get(COSTS, ())]
        least, most, sums = [], [], {}
        for runtime in self.recipe.convert.runtimes:
            file_format, name = network.format(runtime), network.name(runtime, self.recipe)
            low, high = network.at_least(), network.at_most()
            if counts:
                low = compared_costs.at_least(low, file_format, network.sums, known)
                high = compared_costs.at_most(high, file_format, network.sums, known)
            least.append(Bounds(name, lowered(low, network.slack), math.inf))
            most.append(high)
            sums[name] = (file_format, network.sums)
        self._filter(ARCHITECTURE, least, sums)
        return not self._compares() and not any(violations(figures, limits) for figures in most)

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
                    sums[file.name] = (_format(file.artifact), found)
            layers = {name: {"group": self._group(format), "sums": found} for name, (format, found) in sums.items()}
            self.trial.set_user_attr(LAYERS, layers)
        if config.before_device:
            asked = task(recipe.task)
            bounds = [
                Bounds(file.name, self._known(file), merit_of(asked.better, file.quality[asked.quality]))
                for file in speaking
            ]
            if recipe.search.objectives == ("quality",):
                self.trial.report(max(one.quality for one in bounds), recipe.finetune.epochs + 1)
            self._filter(BEFORE_DEVICE, bounds, sums)

    def _checkable(self) -> set[str]:
        """Limits that can be held against a network before it is trained."""
        return _SIZES | (_COUNTED if counts_alone(self.recipe) else set())

    def _compares(self) -> bool:
        """Whether other trials are compared with before training, by figures of the converted file."""
        config, objectives = self.recipe.search.screening, self.recipe.search.objectives
        dominated = config.architecture != "off" and "quality" not in objectives
        return dominated or (config.promotion is not None and len(objectives) > 1)

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
        sums: Mapping[str, tuple[str, Mapping[str, float]]],
    ) -> None:
        """End the trial where none of its files can matter.

        Args:
            sums: file -> its format and its layer sums.
        """
        after = check == BEFORE_DEVICE
        avoided = {"measure": 1} if after else self._avoided(self.recipe.finetune.epochs)
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

    def _group(self, file_format: str) -> str:
        return f"{file_format}, threads {self.recipe.bench.threads}"

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


def _format(artifact: Artifact) -> str:
    return f"{artifact.runtime} {artifact.precision}"


def _costs(file: "ExpectedFile") -> Costs | None:
    """What a file with random weights counted; None where it counted nothing, as when its memory did not do."""
    figures = file.figures()
    if not figures.instructions or figures.out_of_memory:
        return None
    return Costs(_format(file.artifact), file.sums, figures.instructions, figures.latency_p90, figures.energy)


def predictors_of(trials: Sequence[tuple[SearchTrial, Mapping[str, Any]]]) -> dict[str, Predictor]:
    """Group of files -> what the trusted reports of these trials, with their attributes in the study, have taught."""
    reports: dict[str, list[tuple[Mapping[str, float], float]]] = {}
    for trial, attributes in trials:
        for name, file in attributes.get(LAYERS, {}).items():
            if name in trial.latencies:
                reports.setdefault(file["group"], []).append((file["sums"], trial.latencies[name]))
    found = {group: fit(rows) for group, rows in reports.items()}
    return {group: predictor for group, predictor in found.items() if predictor is not None}
