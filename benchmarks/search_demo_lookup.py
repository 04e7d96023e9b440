"""The lookup of benchmarks/search_demo.py: every point of a finite space on the demo's photographs, run once.

A point is one run_trial. Stages are kept in .cache/benchmarks/search-demo/runs and finished points in lookup.jsonl
beside it, so a killed run goes on where it was. The time of a stage is its processor time, children included: this
machine may be busy with other work.
"""

import json
import resource
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pydantic import JsonValue

from phonefit.device_bench.devices import open_device
from phonefit.models.record import digest_of
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.finetune import QUALITIES_FILE, STAGE
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_check import apply_overrides
from phonefit.pipeline.run import open_context, run_trial
from phonefit.pipeline.search.outcome import outcome_of
from phonefit.pipeline.search.screening_architecture import (
    ExpectedFile,
    Untrained,
    expected_files,
    untrained_network,
)
from phonefit.pipeline.search.space import axes_in_order, point_key, points
from phonefit.pipeline.store import StageResult, Store

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "benchmarks" / "search-demo"
RUNS, LOOKUP, SECONDS = CACHE / "runs", CACHE / "lookup.jsonl", CACHE / "seconds"
EPOCHS = 18
INT8: dict[str, JsonValue] = {"technique": "quantise", "calibration": {"samples": 64}}
RECOVER: dict[str, JsonValue] = {"epochs": 1, "learning_rate": 1e-3}


def _prune(share: float) -> dict[str, JsonValue]:
    # narrow networks have few channels: in fours, and nearly all of a layer's may go
    return {"technique": "prune", "multiply_adds": share, "round_to": 4, "layer_limit": 0.9, "recover": RECOVER}


DECOMPOSE: dict[str, JsonValue] = {
    "technique": "decompose",
    "ranks": "budget",
    "target": {"multiply_adds": 0.6},
    "recover": RECOVER,
}
RECIPE = Recipe.model_validate(
    {
        "name": "search-demo",
        "model": {"family": "resnet18", "weights": "random"},
        "data": {"source": "demo", "split": {"validation": 0.25, "test": 0.15}},
        "finetune": {"epochs": EPOCHS, "freeze_epochs": 0, "flip": "both"},
        # how far a file is from its parent is not judged here: its quality is
        "convert": {"runtimes": ["tflite"], "original": False, "parity": {"cosine": -1, "snr_db": -99, "agreement": 0}},
        "bench": {"device": "emulator:counts"},
        "search": {
            "objectives": ["quality", "instructions"],
            "trials": 40,
            "space": {
                "data.input": [{"height": side, "width": side, "resize": "stretch"} for side in (48, 32)],
                "model.width": [0.125, 0.25, 0.5],
                "finetune.learning_rate": [3e-4, 2e-3, 1e-2],
                "compress": [[], [INT8], [_prune(0.6), INT8], [_prune(0.35), INT8], [DECOMPOSE, INT8]],
            },
        },
    }
)
SPACE = axes_in_order(RECIPE)


@dataclass(frozen=True)
class Stage:
    """One stage of a trial; of equal keys only the first is computed. `seconds` of the processor."""

    name: str
    key: str
    seconds: float


@dataclass(frozen=True)
class Entry:
    """One point with all that a replay needs.

    Attributes:
        quality: of the converted file, validation side.
        epochs: quality before fine-tuning and after each of its epochs, validation side.
    """

    point: Mapping[str, JsonValue]
    quality: float
    instructions: float
    bytes: float
    epochs: Sequence[float]
    stages: Sequence[Stage]


@dataclass(frozen=True)
class Screened:
    """What the check before training finds for one network, and the stages that it computes for that."""

    network: Untrained
    files: Sequence[ExpectedFile]
    shaping: Sequence[Stage]
    converting: Sequence[Stage]


def build() -> None:
    """Run every point that the lookup lacks, and the check before training on every network."""
    CACHE.mkdir(parents=True, exist_ok=True)
    known = {point_key(entry.point) for entry in load()}
    missing = [point for point in points(SPACE) if point_key(point) not in known]
    with _processor_seconds():
        for count, point in enumerate(missing, 1):
            entry = _run(point)
            with LOOKUP.open("a") as file:
                file.write(json.dumps(asdict(entry)) + "\n")
            spent = sum(stage.seconds for stage in entry.stages)
            print(f"{count} of {len(missing)}: quality {entry.quality:.4f}, {spent:.0f} s of stages", flush=True)
        for recipe in {network_of(recipe): recipe for recipe in map(recipe_of, points(SPACE))}.values():
            screened(recipe)


def load() -> list[Entry]:
    """The points that have been run."""
    lines = LOOKUP.read_text().splitlines() if LOOKUP.is_file() else []
    return [_entry(json.loads(line)) for line in lines]


def recipe_of(point: Mapping[str, JsonValue]) -> Recipe:
    """The recipe of one point."""
    return apply_overrides(RECIPE, point)


def network_of(recipe: Recipe) -> str:
    """What tells the networks of the space apart before training."""
    return digest_of([recipe.data.input.as_json(), recipe.model.width, [step.as_json() for step in recipe.steps]])


def screened(recipe: Recipe) -> Screened:
    """The check before training of one network, from the store where it has been made."""
    context = open_context(recipe, RUNS, SilentProgress())
    with _noted() as shaping:
        network = untrained_network(recipe, context, inexact=True)
    assert network is not None
    with _noted() as converting:
        files = expected_files(network, recipe, context, open_device(recipe.bench.devices[0]))
    return Screened(network, files, shaping, converting)


def _entry(found: dict[str, Any]) -> Entry:
    stages = tuple(Stage(**stage) for stage in found.pop("stages"))
    return Entry(**found, stages=stages)


def _run(point: Mapping[str, JsonValue]) -> Entry:
    recipe = recipe_of(point)
    trial = run_trial(recipe, RUNS)
    quality, instructions, size = outcome_of(trial, ("quality", "instructions", "bytes"), recipe.limits).values
    return Entry(
        point=point,
        quality=quality,
        instructions=instructions,
        bytes=size,
        epochs=json.loads((RUNS / "store" / STAGE / trial.stages[0].key / QUALITIES_FILE).read_text()),
        stages=tuple(Stage(use.stage, use.key, _seconds(use.key, use.seconds)) for use in trial.stages),
    )


def _seconds(key: str, otherwise: float) -> float:
    path = SECONDS / key
    return float(path.read_text()) if path.is_file() else otherwise


@contextmanager
def _noted() -> Iterator[list[Stage]]:
    """The stages of this block, computed or found, with what computing them took."""
    compute, stages = Store.compute, []

    def noting(self: Store, stage: str, *arguments: Any, **named: Any) -> StageResult:
        result = compute(self, stage, *arguments, **named)
        stages.append(Stage(stage, result.key, _seconds(result.key, result.seconds)))
        return result

    with patch.object(Store, "compute", noting):
        yield stages


@contextmanager
def _processor_seconds() -> Iterator[None]:
    """Note the processor time of each stage that is computed, by its key; the store notes the wall clock's."""
    compute = Store.compute
    SECONDS.mkdir(exist_ok=True)

    def timed(self: Store, *arguments: Any, **named: Any) -> StageResult:
        start = _processor()
        result = compute(self, *arguments, **named)
        if not result.reused:
            (SECONDS / result.key).write_text(str(_processor() - start))
        return result

    with patch.object(Store, "compute", timed):
        yield


def _processor() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
