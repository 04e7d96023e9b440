"""What a trial's files will cost, from its architecture alone: converted with random weights, before any training."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import nn

from phonefit.device_bench.device import Device
from phonefit.device_bench.report import Report
from phonefit.models.artifact import SUFFIXES, Artifact, Runtime, load_artifact
from phonefit.models.checkpoint import Checkpoint, CheckpointInfo
from phonefit.models.quantisation import CalibrationSet, precision_of
from phonefit.models.registry import build_network
from phonefit.models.spec import Architecture
from phonefit.pipeline.budget import Figures, figures_of_report, memory_limit
from phonefit.pipeline.compress.plan_score import stored_bytes
from phonefit.pipeline.compress.stage import compress_step
from phonefit.pipeline.compress.student import architecture_of_student
from phonefit.pipeline.context import Context
from phonefit.pipeline.convert.memory_plan import planned_memory
from phonefit.pipeline.convert.stage import MODEL_NAME, converted
from phonefit.pipeline.errors import PhonefitError, StoreError
from phonefit.pipeline.finetune import architecture_of, factory_digest
from phonefit.pipeline.measure import measure
from phonefit.pipeline.recipe import Recipe
from phonefit.pipeline.recipe_steps import DecomposeConfig, DistilConfig, PruneConfig, StepConfig
from phonefit.pipeline.search.latency_predictor import LayerSums, layer_sums
from phonefit.pipeline.search.outcome import counts_alone

STAGE = "architecture"
CODE_VERSION = 1
PICTURES = 8
"""So many set the ranges: which ones, and how many, changes no size and no count."""
EXACT_SLACK = 0.01
"""By this share a limit must be missed, as what a file says of its weights varies in length with them."""
DECLARED_SLACK = {"prune": 0.35, "decompose": 0.6, "quantise": 0.1}
"""Technique -> by which further share, where trained weights give the step another shape than random ones. In
benchmarks/search_demo.py a trained network took up to 1.33 times fewer instructions when pruned, and 1.54 when
decomposed, to the same target; of quantisation it is layers that `mixed` leaves in float."""
BYTES_OF_FLOAT = 4
FILE_OVERHEAD, TENSOR_OVERHEAD = 500_000, 100
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpectedFile:
    """A file of the network with random weights.

    Attributes:
        name: that which the trial's own file will have.
        slack: by this share of a limit its figures may be too high.
        planned_memory: of its activations, in bytes; None where the format has no plan.
        report: of a device that counts; None on others.
        sums: multiply-adds and moved elements by kind of layer.
        repeated: bytes of its biases. A file holds those that are alike, as of layers that never learned, once.
    """

    name: str
    artifact: Artifact
    slack: float
    planned_memory: int | None
    report: Report | None
    sums: Mapping[str, float]
    repeated: int = 0

    @property
    def exact(self) -> bool:
        """The weights do not decide its shape."""
        return _is_exact(self.slack)

    def figures(self) -> Figures:
        """Figures that the trained file will hardly be below; 0 for what only its measurement tells."""
        size = self.artifact.bytes - self.repeated
        if self.report is not None:
            return figures_of_report(self.report, size)
        return Figures(size, self.planned_memory or 0, 0, 0, energy=0, instructions=0)


@dataclass(frozen=True)
class Untrained:
    """The network of a trial with random weights, after those of its steps that decide its shape.

    Attributes:
        slack: by this share of a limit its figures may be too high.
        sums: multiply-adds and moved elements by kind of layer.
        stored_bytes: of weights, biases and scales: no file of it is smaller.
        biases: bytes of its biases. A file holds those that are alike, as of layers that never learned, once.
    """

    checkpoint: Checkpoint
    slack: float
    sums: LayerSums
    stored_bytes: int
    biases: int

    @property
    def exact(self) -> bool:
        """The weights do not decide its shape."""
        return _is_exact(self.slack)

    def format(self, runtime: Runtime) -> str:
        """Runtime and precision of a file."""
        return f"{runtime} {precision_of(self.checkpoint.info.quantisation)}"

    def name(self, runtime: Runtime, recipe: Recipe) -> str:
        """The name that the trial's own file will have, as `file_name` says it."""
        return f"{'compressed' if recipe.steps else 'original'} {self.format(runtime)}"

    def at_least(self) -> Figures:
        """What is known of every file of it before the slack, 0 for the rest."""
        return Figures(max(0, self.stored_bytes - self.biases), 0, 0, 0, energy=0, instructions=0)

    def at_most(self) -> Figures:
        """Twice what the weights and the activations of all layers together take; a file is mostly far below."""
        size = 2 * self.stored_bytes + FILE_OVERHEAD
        elements = sum(count for name, count in self.sums.items() if name.endswith("elements"))
        return Figures(size, 2 * BYTES_OF_FLOAT * 1e6 * elements, 0, 0, energy=0, instructions=0)


def untrained_network(recipe: Recipe, context: Context, inexact: bool) -> Untrained | None:
    """The network that the trial will train, with random weights; None where its shape cannot be told.

    Quantisation and distillation do not let weights decide the shape. Pruning to a ratio, multiply-adds or bytes, and
    decomposition to a target, do: they are applied to the random weights, with criteria that need no training.

    Args:
        inexact: whether it is wanted where weights decide the shape.

    Raises:
        StoreError: the runs folder cannot be written.
    """
    steps = shaping_steps(recipe.steps)
    if steps is None or not (inexact or _is_exact(steps.slack)):
        return None
    with _unknown_where_it_fails():
        start = _untrained(steps.architecture(recipe, context), context)
        checkpoint = start
        for step in steps.steps:
            _, checkpoint = compress_step(checkpoint, step, context, start)
        network = checkpoint.load()
        return Untrained(
            checkpoint=checkpoint,
            slack=steps.slack,
            sums=layer_sums(network, checkpoint.info.architecture),
            stored_bytes=stored_bytes(network, checkpoint.info.quantisation),
            biases=_bytes_of_biases(network),
        )
    return None


def expected_files(untrained: Untrained, recipe: Recipe, context: Context, device: Device) -> tuple[ExpectedFile, ...]:
    """The files that speak for a trial, one for each runtime; none where they cannot be made.

    Raises:
        StoreError: the runs folder cannot be written.
    """
    counts = counts_alone(recipe)
    files = []
    with _unknown_where_it_fails():
        for runtime in recipe.convert.runtimes:
            folder = converted(untrained.checkpoint, runtime, context).path
            artifact, path = load_artifact(folder / f"{MODEL_NAME}{SUFFIXES[runtime]}")
            limit = memory_limit(recipe.budget)
            report = measure(artifact, path, device, recipe.bench, context, limit)[1] if counts else None
            files.append(
                ExpectedFile(
                    name=untrained.name(runtime, recipe),
                    artifact=artifact,
                    slack=untrained.slack,
                    planned_memory=planned_memory(path, runtime),
                    report=report,
                    sums=untrained.sums,
                    repeated=untrained.biases,
                )
            )
        return tuple(files)
    return ()


@contextmanager
def _unknown_where_it_fails() -> Iterator[None]:
    """Go on without knowing: the trial itself will say what is wrong, if it is wrong for trained weights too."""
    try:
        yield
    except StoreError:
        raise
    except PhonefitError as error:
        logger.info("nothing is known of this trial before training: %s", error)


def _is_exact(slack: float) -> bool:
    return slack < 2 * EXACT_SLACK  # between that of nothing but rounding and the least of a technique


def _bytes_of_biases(network: nn.Module) -> int:
    """Those of the layers that a file has, with normalisation folded into them, and of their names."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return sum(BYTES_OF_FLOAT * layer.weight.shape[0] + TENSOR_OVERHEAD for layer in layers)


@dataclass(frozen=True)
class ShapingSteps:
    """The steps of a recipe as far as they decide shapes.

    Attributes:
        student: the step that replaces the network, if there is one.
        slack: by this share what they give may cost more with random weights than with trained ones.
    """

    steps: tuple[StepConfig, ...]
    student: DistilConfig | None
    slack: float

    def architecture(self, recipe: Recipe, context: Context) -> Architecture:
        """What the steps start from."""
        architecture = architecture_of(recipe.model, context.task, context.data.labels, context.data.preprocess)
        if self.student is None or self.student.student is None:
            return architecture
        return architecture_of_student(self.student.student, architecture)


def shaping_steps(steps: Sequence[StepConfig]) -> ShapingSteps | None:
    """The steps without training and without what looks at trained weights; None where only they tell the shape."""
    kept: list[StepConfig] = []
    student, slack = None, 1 + EXACT_SLACK
    for step in steps:
        if isinstance(step, DistilConfig):
            student = step if step.student is not None else student
        elif isinstance(step, PruneConfig):
            if step.asks:
                return None
            recover = step.recover.model_copy(update={"epochs": 0})
            kept.append(step.model_copy(update={"criterion": "magnitude", "steps": 1, "recover": recover}))
            slack *= 1 + DECLARED_SLACK[step.technique]
        elif isinstance(step, DecomposeConfig):
            if step.target is None or step.on_device:
                return None
            recover = step.recover.model_copy(update={"epochs": 0})
            kept.append(step.model_copy(update={"aware": False, "recover": recover}))
            slack *= 1 + DECLARED_SLACK[step.technique]
        else:
            if step.mixed is not None:  # all of them in int8 are the fewest bytes
                slack *= 1 + DECLARED_SLACK[step.technique]
            trained = {"equalise": False, "qat": None, "bias_correction": False, "mixed": None}
            kept.append(step.model_copy(update={**trained, "calibration": CalibrationSet(samples=PICTURES)}))
    return ShapingSteps(tuple(kept), student, slack - 1)


def _untrained(architecture: Architecture, context: Context) -> Checkpoint:
    """The network with seeded random weights: the same architecture is the same checkpoint."""
    config: dict[str, JsonValue] = {
        "architecture": architecture.as_json(),
        "task": context.task.name,
        "labels": list(context.data.labels),
        "preprocess": context.data.preprocess.as_json(),
    }
    if architecture.factory is not None:
        config["factory_digest"] = factory_digest(architecture)

    def build(folder: Path) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = build_network(architecture)
            with torch.no_grad():
                # Fresh biases and statistics are all alike, and converters store what is alike once.
                for tensor in network.state_dict().values():
                    if tensor.is_floating_point() and tensor.ndim <= 1:
                        tensor.add_(torch.rand_like(tensor), alpha=0.1)
        info = CheckpointInfo(
            architecture=architecture,
            task=context.task.name,
            labels=context.data.labels,
            preprocess=context.data.preprocess,
        )
        Checkpoint.save(folder, network.eval(), info)

    tools = {"torch": version("torch")}
    return Checkpoint(context.store.compute(STAGE, {}, config, CODE_VERSION, build, tools).path)
