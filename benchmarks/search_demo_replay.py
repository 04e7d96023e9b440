"""Searches of benchmarks/search_demo.py over its lookup: the real loop, samplers and checks; only trials are read.

Trial-seconds are the processor seconds of the stages that a trial computes: what an earlier trial of the same search
left in the store is free, an ended fine-tuning leaves nothing and costs the epochs that it ran.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from pydantic import JsonValue
from search_demo_lookup import CACHE, EPOCHS, RECIPE, RUNS, Entry, Screened, load, network_of, recipe_of, screened

from phonefit.device_bench.report import Report
from phonefit.models.artifact import Artifact, load_artifact
from phonefit.models.checkpoint import Checkpoint
from phonefit.models.record import digest_of
from phonefit.pipeline.budget import best_file, missed_on
from phonefit.pipeline.checks import JudgedFile, TrialChecks
from phonefit.pipeline.convert.stage import MODEL_NAME
from phonefit.pipeline.errors import PhonefitError, TrialEndedError
from phonefit.pipeline.measure import REPORT_FILE
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.result import FileResult, Parity, TrialResult
from phonefit.pipeline.search import records
from phonefit.pipeline.search.claims import Job
from phonefit.pipeline.search.records import open_study, quiet_optuna
from phonefit.pipeline.search.result import SearchTrial
from phonefit.pipeline.search.screening_architecture import ExpectedFile, Untrained
from phonefit.pipeline.search.storage import FilePlace
from phonefit.pipeline.search.trials import work

REPLAYS = CACHE / "replays.jsonl"
OFF: dict[str, JsonValue] = {"architecture": "off", "before_device": False}
PROMOTION: dict[str, JsonValue] = {"factor": 3}
LATE: dict[str, JsonValue] = {"factor": 3, "least_epochs": EPOCHS // 3}
RULES: dict[str, dict[str, JsonValue]] = {
    "none": OFF,
    "architecture": {**OFF, "architecture": "declared"},
    "before device": {**OFF, "before_device": True},
    "promotion": {**OFF, "promotion": PROMOTION},
    "promotion after a third": {**OFF, "promotion": LATE},
    "all": {"architecture": "declared", "before_device": True, "promotion": PROMOTION},
    "all, promotion after a third": {"architecture": "declared", "before_device": True, "promotion": LATE},
}
TRIALS, MOST = 40, 90
MARGIN = 0.1  # of the range of an objective, from the worst point of the space to the reference of the hypervolume
PICTURES = 656  # of the validation side


@dataclass(frozen=True)
class Known:
    """One point with the records that its stages left in the store."""

    entry: Entry
    artifact: Artifact
    path: Path
    report: Report
    screened: Screened

    def seconds(self, *names: str) -> dict[str, float]:
        """Key of each of these stages -> seconds."""
        return {stage.key: stage.seconds for stage in self.entry.stages if stage.name in names}


@dataclass(frozen=True)
class Run:
    """One search: after each trial, the trial-seconds so far, and how it ended.

    Attributes:
        training: that part of `seconds` which fine-tuning took.
        shares: of the hypervolume of the whole space, after each trial.
        ended: what ended the trial early; "" for a whole one.
    """

    sampler: str
    rules: str
    instructions: int | None
    seed: int
    seconds: Sequence[float]
    training: Sequence[float]
    shares: Sequence[float]
    ended: Sequence[str]

    def longer_training(self, factor: float) -> "Run":
        """The same search where fine-tuning takes `factor` times as long. Nothing is decided by seconds."""
        longer = [one + (factor - 1) * part for one, part in zip(self.seconds, self.training, strict=True)]
        return replace(self, seconds=longer, training=[factor * part for part in self.training])


@dataclass(frozen=True)
class Lookup:
    """All points of the space, by what a trial's recipe says of them; see `point_of`."""

    points: Mapping[str, Known]

    def losses(self, instructions: int | None) -> NDArray[np.float64]:
        """-quality and the logarithm of the instructions, for every point that keeps the limit: float64 [n, 2]."""
        rows = [[-known.entry.quality, math.log(known.entry.instructions)] for known in self.points.values()]
        every = np.array(rows)
        return every if instructions is None else every[every[:, 1] <= math.log(instructions)]


@dataclass
class Replay:
    """One search while it runs.

    Attributes:
        done: keys of stages that are in its store.
        found: -quality and log instructions of the whole trials that keep the limit.
    """

    lookup: Lookup
    every: NDArray[np.float64]
    spent: float = 0.0
    trained: float = 0.0
    done: set[str] = field(default_factory=set)
    found: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    training: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def evaluate(self, recipe: Recipe, checks: TrialChecks) -> TrialResult:
        """One trial: `run_trial` with stages that are read, and paid for."""
        known = self.lookup.points[point_of(recipe)]
        with (
            patch("phonefit.pipeline.search.screening_architecture.untrained_network", self._untrained(known)),
            patch("phonefit.pipeline.search.screening_architecture.expected_files", self._expected(known)),
        ):
            checks.before_training(recipe, None, None)  # type: ignore[arg-type]  # read by what is replaced
        ((key, seconds),) = known.seconds("finetune").items()
        for epoch in range(1, EPOCHS + 1):
            if key not in self.done:
                self.spent += seconds / EPOCHS
                self.trained += seconds / EPOCHS
            checks.after_epoch(known.entry.epochs[: epoch + 1])
        self._pay({key: 0.0})
        self._pay(known.seconds("prune", "decompose", "quantise", "convert", "evaluate"))
        quality = {"accuracy": known.entry.quality}
        parity = Parity(samples=1, cosine=1, snr_db=None, agreement=1)
        judged = JudgedFile(
            "compressed", Checkpoint(known.path.parent), known.artifact, known.path, parity, quality, 0.0, None
        )
        checks.before_measuring(recipe, [judged])
        self._pay(known.seconds("measure"))
        file = FileResult(
            variant="compressed",
            artifact=known.artifact,
            path=known.path.as_posix(),
            checkpoint="",
            parity=parity,
            quality=quality,
            quality_drop=0.0,
            report=known.report,
        )
        file = file.model_copy(update={"violations": missed_on(recipe.bench.devices, file, recipe.budget)})
        if not file.violations:
            self.found.append([-known.entry.quality, math.log(known.entry.instructions)])
        return TrialResult(
            recipe=recipe.as_json(),
            recipe_digest=point_of(recipe),
            quality_name="accuracy",
            checkpoint_metrics={},
            files=(file,),
            best=best_file([file], "accuracy", PICTURES),
            stages=(),
        )

    def note(self, ended: str) -> None:
        """Write down how far the search is."""
        self.seconds.append(self.spent)
        self.training.append(self.trained)
        self.shares.append(hypervolume_share(np.array(self.found).reshape(-1, 2), self.every))
        self.ended.append(ended)

    def _untrained(self, known: Known) -> Callable[[Recipe, object, bool], Untrained | None]:
        """Stands for `untrained_network`: the network that it made, and its time, once a network."""

        def untrained(recipe: Recipe, context: object, inexact: bool) -> Untrained | None:
            if not inexact and not known.screened.network.exact:
                return None
            self._pay({stage.key: stage.seconds for stage in known.screened.shaping})
            return known.screened.network

        return untrained

    def _expected(self, known: Known) -> Callable[..., Sequence[ExpectedFile]]:
        """Stands for `expected_files` likewise."""

        def expected(*arguments: object) -> Sequence[ExpectedFile]:
            self._pay({stage.key: stage.seconds for stage in known.screened.converting})
            return known.screened.files

        return expected

    def _pay(self, stages: dict[str, float]) -> None:
        self.spent += sum(seconds for key, seconds in stages.items() if key not in self.done)
        self.done |= set(stages)


class ReachedError(Exception):
    """The search has what it was run for."""


def replay(
    lookup: Lookup, sampler: str, rules: str, seed: int, instructions: int | None = None, target: float = 0.0
) -> Run:
    """One search of TRIALS trials, and of more, up to MOST, until its share of the hypervolume is `target`.

    Args:
        instructions: limit of the budget; None: none.
    """
    budget = {} if instructions is None else {"instructions": instructions}
    search = {**RECIPE.search.as_json(), "sampler": sampler, "screening": RULES[rules]}
    recipe = Recipe.model_validate({**RECIPE.as_json(), "seed": seed, "budget": budget, "search": search})
    state = Replay(lookup, lookup.losses(instructions))
    with tempfile.TemporaryDirectory() as folder, quiet_optuna(), _in_memory():
        place = FilePlace(Path(folder), "study.db")
        (place.folder / "locks").mkdir()
        study = open_study(recipe, place, {})
        ended_by: dict[int, str] = {}

        def evaluate(varied: Recipe, checks: TrialChecks) -> TrialResult:
            try:
                return state.evaluate(varied, checks)
            except TrialEndedError as error:
                ended_by[len(state.ended)] = error.check
                raise

        def ended(number: int, failure: PhonefitError | None) -> None:
            state.note(str(failure) if failure else ended_by.get(len(state.ended), ""))
            if len(state.ended) >= TRIALS and state.shares[-1] >= target:
                raise ReachedError

        with suppress(ReachedError):
            job = Job(recipe, place.folder, MOST, place)
            work(study, job, evaluate, begun=lambda number: None, ended=ended)
    return Run(sampler, rules, instructions, seed, state.seconds, state.training, state.shares, state.ended)


def kept() -> list[Run]:
    """The runs that there are."""
    return [Run(**json.loads(line)) for line in REPLAYS.read_text().splitlines()] if REPLAYS.is_file() else []


def keep(run: Run) -> Run:
    """Append one run to the log."""
    with REPLAYS.open("a") as file:
        file.write(json.dumps(asdict(run)) + "\n")
    return run


def hypervolume_share(found: NDArray[np.float64], every: NDArray[np.float64]) -> float:
    """Hypervolume of the points found, as a share of that of the whole space; the reference is beyond its worst point.

    Args:
        found: losses, float64 [n, 2], rows of `every`.
        every: losses of all points that count, float64 [m, 2].
    """
    low, spread = every.min(axis=0), np.ptp(every, axis=0)
    reference = np.full(2, 1.0 + MARGIN)
    if not len(found):
        return 0.0
    volumes = [compute_hypervolume((rows - low) / spread, reference) for rows in (found, every)]
    return float(volumes[0] / volumes[1])


def read_lookup() -> Lookup:
    """The points that have been run."""
    recipes = [(entry, recipe_of(entry.point)) for entry in load()]
    checks = {network: screened(recipe) for network, recipe in {network_of(of): of for _, of in recipes}.items()}
    return Lookup({point_of(recipe): _known(entry, checks[network_of(recipe)]) for entry, recipe in recipes})


def point_of(recipe: Recipe) -> str:
    """What tells the points of the space apart."""
    return digest_of([network_of(recipe), recipe.finetune.learning_rate])


def _known(entry: Entry, check: Screened) -> Known:
    folder = {stage.name: RUNS / "store" / stage.name / stage.key for stage in entry.stages}
    artifact, path = load_artifact(folder["convert"] / f"{MODEL_NAME}.tflite")
    return Known(entry, artifact, path, Report.load(folder["measure"] / REPORT_FILE), check)


@contextmanager
def _in_memory() -> Iterator[None]:
    """Studies of this block are kept nowhere, and no records are written: many trials in the time of one write."""
    storage = optuna.storages.InMemoryStorage()
    read, known = records._record, {}

    def record(trial: optuna.trial.FrozenTrial, marks: Mapping[str, Any], recipe: Recipe) -> SearchTrial:
        """Finished trials are read once: nothing here changes them any more."""
        if trial.state.is_finished() and trial.number not in known:
            known[trial.number] = read(trial, marks, recipe)
        return known[trial.number] if trial.state.is_finished() else read(trial, marks, recipe)

    with (
        patch.object(records, "_record", record),
        patch.object(FilePlace, "storage", lambda self: storage),
        patch("phonefit.pipeline.search.trials.write_result", lambda path, record: None),
        patch("phonefit.pipeline.search.trials.summarise", lambda study, job: None),
    ):
        yield
