"""The one training loop: fine-tuning, distillation, and recovery after a step that changed the network.

Deterministic: the same network, data, config, seed, title and number of threads give the same weights, also when the
loop was interrupted and went on from its resume file.
"""

import io
import logging
import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phonefit.models.decoding import Decoding
from phonefit.models.record import write_atomically
from phonefit.models.tasks.task import Floats, Metrics, merit_of
from phonefit.pipeline.augment import moved, normalised
from phonefit.pipeline.context import Advance, Context
from phonefit.pipeline.criterion import criterion, outputs_of
from phonefit.pipeline.determinism import deterministic, seed_of
from phonefit.pipeline.errors import TrainingError
from phonefit.pipeline.feature_matching import FeatureMatching, match_features, recorded
from phonefit.pipeline.optimizer import one_cycle, optimizer_of
from phonefit.pipeline.recipe_steps import FeatureConfig, TrainConfig
from phonefit.pipeline.statistics import quick_statistics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    """One line of the training history.

    Attributes:
        number: 0 is the network before training, then 1, 2, …
        loss: mean training loss; NaN for epoch 0.
        quality: the task's quality metric on the validation side.
        validation_loss: the task's loss on the validation side.
    """

    number: int
    loss: float
    quality: float
    validation_loss: float


@dataclass(frozen=True)
class TrainOutcome:
    """What training gave.

    Attributes:
        metrics: the task's metrics of the kept epoch on the validation side.
        best_epoch: number of the kept epoch.
        decoding: of the task with what was chosen on the validation side.
        history: epoch 0 first.
        stopped_early: fewer epochs than asked for were trained, as the quality no longer rose.
    """

    metrics: Metrics
    decoding: Decoding | None
    best_epoch: int
    history: tuple[Epoch, ...]
    stopped_early: bool

    def summary(self, quality: str) -> str:
        """One sentence for a person; `quality` is the name of the task's quality metric."""
        first, last, best = self.history[0], self.history[-1], self.history[self.best_epoch]
        early = ", ended early" if self.stopped_early else ""
        return (
            f"{quality} on the validation side: {first.quality:.4f} before training, {best.quality:.4f} after epoch "
            f"{best.number}, which is kept, of {last.number}{early}"
        )


def train(
    network: nn.Module,
    context: Context,
    config: TrainConfig,
    *,
    title: str,
    teacher: nn.Module | None = None,
    temperature: float = 1.0,
    teacher_weight: float = 0.0,
    features: FeatureConfig | None = None,
    freeze_epochs: int = 0,
    early_stop: int = 0,
    layer_decay: float = 1.0,
    resume: Path | None = None,
    after_epoch: Callable[[Sequence[float]], None] | None = None,
) -> TrainOutcome:
    """Train `network` in place on the training side and leave it with the weights of its best epoch, in eval mode.

    The best epoch is the one of best quality on the validation side, at equal quality the one of lowest loss. The
    network before training is a candidate: training never makes it worse there. The learning rate follows one cycle
    (Smith 2018, arXiv 1803.09820): up linearly, down along a cosine; the head-only epochs have a cycle of their own.
    The loss is (1 - teacher_weight) x the task's loss + teacher_weight x its distillation loss, + the weight of
    `features` x the distance of inner activations.

    Args:
        network: float32 [N, 3, height, width] -> float32 [N, outputs].
        title: shown as progress; with the context's seed, it seeds order, augmentation and dropout.
        teacher: gives the outputs to learn from, for the same augmented pictures; never changed.
        features: learn from the teacher's inner activations too.
        freeze_epochs: for so many epochs, only the layers of `head_layers` learn; the rest is in eval mode.
        early_stop: end after so many epochs without a better one; 0: never.
        layer_decay: see FinetuneConfig.
        resume: file that holds the state after each epoch. Training goes on from it; it is deleted at the end.
        after_epoch: gets the quality before training and after each epoch so far, so that more is better (see
            `merit_of`); it may raise, to end the training.
            Called for the epochs of `resume` as well.

    Raises:
        TrainingError: the loss is not finite, or a batch is too small for the network's BatchNorm.
        RecipeError: `features` does not fit the two networks.
    """
    with deterministic(context, title), quick_statistics(network):
        loop = _Loop(
            network,
            context,
            config,
            title,
            teacher,
            temperature,
            teacher_weight,
            features,
            freeze_epochs,
            layer_decay,
            resume,
        )
        return loop.run(early_stop, after_epoch)


def replay(qualities: Sequence[float], after_epoch: Callable[[Sequence[float]], None]) -> None:
    """Call `after_epoch` as it was called, or would have been, while these epochs were trained."""
    for count in range(2, len(qualities) + 1):
        after_epoch(qualities[:count])


def validation_outputs(network: nn.Module, context: Context) -> Floats:
    """Outputs of `network` over the validation side, float32 [N, outputs]. The network's mode is kept."""
    return outputs_of(network, context, "validation").numpy()


def validation_metrics(network: nn.Module, context: Context) -> Metrics:
    """The task's metrics of `network` on the validation side."""
    return judged(network, context)[0]


def judged(network: nn.Module, context: Context) -> tuple[Metrics, Decoding | None]:
    """Metrics of `network` on the validation side, and the decoding with what was chosen there."""
    outputs, targets = validation_outputs(network, context), context.data.targets("validation")
    task = context.task.calibrated(outputs, targets)
    return task.metrics(outputs, targets), task.decoding


def head_layers(network: nn.Module) -> tuple[str, ...]:
    """Names of the head's layers: the linear ones at the network's end, or else its last layer with weights.

    At the end means after the last layer with weights that is not linear, in the order in which the layers are defined.
    """
    layers = [(name, module) for name, module in network.named_modules() if list(module.parameters(recurse=False))]
    head: list[str] = []
    for name, module in reversed(layers):
        if not isinstance(module, nn.Linear):
            break
        head.insert(0, name)
    return tuple(head) if 0 < len(head) < len(layers) else tuple(name for name, _ in layers[-1:])


class _Loop:
    """State of one training: made, maybe restored, run once."""

    def __init__(
        self,
        network: nn.Module,
        context: Context,
        config: TrainConfig,
        title: str,
        teacher: nn.Module | None,
        temperature: float,
        teacher_weight: float,
        features: FeatureConfig | None,
        freeze_epochs: int,
        layer_decay: float,
        resume: Path | None,
    ) -> None:
        self.device = context.torch()
        self.network = network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.context, self.config, self.title = context, config, title
        needed = teacher is not None and (teacher_weight > 0 or features is not None)
        self.teacher = teacher.eval().to(self.device) if teacher is not None and needed else None
        self.matching = self._matching(features)
        self.temperature, self.teacher_weight = temperature, teacher_weight
        self.frozen_epochs = min(freeze_epochs, config.epochs)
        self.head = head_layers(network)
        self.learns = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        self.generator = torch.Generator().manual_seed(seed_of(context, title))
        self.criterion = criterion(self.network, context) if config.epochs > 0 else nn.Module()
        along = nn.ModuleList([self.matching, self.criterion])
        self.optimizer = optimizer_of(network, along, config, layer_decay)
        self.targets = context.data.targets("train")
        self.class_weights = self._class_weights() if config.class_weights == "balanced" else None
        self.batches = _batch_bounds(len(self.targets), config.batch_size)
        self.history: list[Epoch] = []
        self.best: dict[str, Tensor] = {}
        self.resume = resume

    def run(self, early_stop: int, after_epoch: Callable[[Sequence[float]], None] | None) -> TrainOutcome:
        """Train to the end, keep the best epoch."""
        if not self._restore():
            self._judge(0, math.nan)
        if after_epoch is not None:
            replay(self._qualities(), after_epoch)
        stopped = False
        with self.context.progress.stage(self.title, self.config.epochs * len(self.batches)) as advance:
            advance(self.history[-1].number * len(self.batches), self._note())
            for number in range(self.history[-1].number + 1, self.config.epochs + 1):
                stopped = 0 < early_stop <= number - 1 - self._best_epoch()
                if stopped:
                    break
                self._judge(number, self._epoch(number, advance))
                advance(0, self._note())
                self._save()
                if after_epoch is not None:
                    after_epoch(self._qualities())
        self.network.load_state_dict(self.best)
        self._set_learning(self.learns)
        self.network.to(memory_format=torch.contiguous_format).eval()
        metrics, decoding = judged(self.network, self.context)
        if self.resume is not None:
            self.resume.unlink(missing_ok=True)
        return TrainOutcome(metrics, decoding, self._best_epoch(), tuple(self.history), stopped)

    def _epoch(self, number: int, advance: Advance) -> float:
        """One pass over the training side; returns the mean loss."""
        head_only = number <= self.frozen_epochs
        self._set_mode(head_only)
        first, length = (1, self.frozen_epochs) if head_only else (
            self.frozen_epochs + 1, self.config.epochs - self.frozen_epochs
        )  # fmt: skip
        order = torch.randperm(len(self.targets), generator=self.generator).numpy()
        total = 0.0
        for index, (start, stop) in enumerate(self.batches):
            share = ((number - first) * len(self.batches) + index) / (length * len(self.batches))
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate * group.get("rate", 1.0) * one_cycle(share)
            rows = order[start:stop]
            loss = self._step(rows)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"{self.title}: the loss is {loss} in epoch {number}, step {index + 1}, at learning_rate "
                    f"{self.config.learning_rate}: training has diverged; lower learning_rate, to a tenth to begin with"
                )
            total += loss * len(rows)
            advance(1, f"epoch {number}/{self.config.epochs} loss {loss:.3f}")
        return total / max(1, len(self.targets))

    def _step(self, rows: NDArray[np.int64]) -> float:
        task, chosen = self.context.task, torch.from_numpy(np.ascontiguousarray(self.targets[rows]))
        pixels = torch.from_numpy(self.context.data.pixels("train")[rows])
        pixels, chosen = task.augmented(pixels, chosen, self.generator)
        pixels, flips, shifts = moved(pixels, self.config, self.generator)
        inputs = normalised(pixels, self.context.data.preprocess).to(self.device)
        targets = task.shown(task.moved(chosen, flips, shifts), pixels).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        try:
            with recorded(self.network, [pair.student for pair in self.matching.pairs]) as ours:
                outputs = self.network(inputs)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                f"{self.title}: a batch of {len(rows)} is too small for the network's BatchNorm ({error}); "
                f"batch_size is {self.config.batch_size}, use at least 2"
            ) from error
        loss: Tensor = self.criterion(outputs, targets, self.class_weights)
        if self.teacher is not None:
            with torch.no_grad(), recorded(self.teacher, [pair.teacher for pair in self.matching.pairs]) as theirs:
                lesson = self.teacher(inputs)
            distance = self.context.task.distillation_loss(outputs, lesson, self.temperature)
            loss = (1 - self.teacher_weight) * loss + self.teacher_weight * distance
            if self.matching.pairs:
                loss = loss + self.matching.config.weight * self.matching(ours, theirs)
        value = float(loss.detach())
        if math.isfinite(value):
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return value

    def _matching(self, features: FeatureConfig | None) -> FeatureMatching:
        """Pairs of layers to learn from; none without `features`."""
        if features is None or self.teacher is None:
            return FeatureMatching((), FeatureConfig())
        picture = torch.from_numpy(self.context.data.inputs("train", 0, 1)).to(self.device)
        return match_features(self.network, self.teacher, features, picture).to(self.device)

    def _set_mode(self, head_only: bool) -> None:
        self.network.train(not head_only)
        learns = self.learns
        if head_only:  # statistics of the frozen layers stay, and no gradient is computed for them
            for name in self.head:
                self.network.get_submodule(name).train()
            learns = {name for name in self.learns if name.rpartition(".")[0] in self.head}
        self._set_learning(learns)

    def _set_learning(self, learns: set[str]) -> None:
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in learns)

    def _class_weights(self) -> Tensor | None:
        weights = self.context.task.class_weights(self.context.data.labels, self.targets)
        return None if weights is None else torch.from_numpy(weights).to(self.device)

    def _judge(self, number: int, loss: float) -> None:
        """Evaluate after an epoch, and keep the weights if it is the best so far."""
        task, targets = self.context.task, self.context.data.targets("validation")
        self.network.eval()
        outputs = outputs_of(self.network, self.context, "validation")
        quality = task.metrics(outputs.numpy(), targets)[task.quality]
        validation_loss = float(task.loss(outputs, torch.from_numpy(np.ascontiguousarray(targets)), None))
        self.history.append(Epoch(number, loss, quality, validation_loss))
        if self._best_epoch() == number:
            self.best = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def _qualities(self) -> list[float]:
        return [merit_of(self.context.task.better, epoch.quality) for epoch in self.history]

    def _best_epoch(self) -> int:
        finite = [epoch for epoch in self.history if math.isfinite(epoch.validation_loss)] or self.history[:1]
        better = self.context.task.better
        merits = {epoch.number: merit_of(better, epoch.quality) for epoch in finite}
        return max(finite, key=lambda epoch: (merits[epoch.number], -epoch.validation_loss, -epoch.number)).number

    def _note(self) -> str:
        last = self.history[-1]
        return f"epoch {last.number}/{self.config.epochs} {self.context.task.quality} {last.quality:.3f}"

    def _save(self) -> None:
        if self.resume is None:
            return
        state = {
            "network": self.network.state_dict(),
            "matching": self.matching.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "history": [[epoch.number, epoch.loss, epoch.quality, epoch.validation_loss] for epoch in self.history],
        }
        stream = io.BytesIO()
        torch.save(state, stream)
        write_atomically(self.resume, stream.getvalue())

    def _restore(self) -> bool:
        """Go on from the resume file, if there is a good one."""
        if self.resume is None or not self.resume.is_file():
            return False
        try:
            state: dict[str, Any] = torch.load(self.resume, map_location="cpu", weights_only=True)
            history = [Epoch(int(line[0]), *line[1:]) for line in state["history"]]
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read (%s); training starts anew", self.resume, error)
            return False
        self.network.load_state_dict(state["network"])
        self.matching.load_state_dict(state["matching"])
        self.criterion.load_state_dict(state.get("criterion", {}))  # files from before there were losses that learn
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.history = state["best"], history
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        return True


def _batch_bounds(count: int, size: int) -> list[tuple[int, int]]:
    """Bounds of the batches; a remainder of one joins the batch before: BatchNorm cannot learn from one sample."""
    bounds = [(start, min(start + size, count)) for start in range(0, count, size)]
    if len(bounds) > 1 and size > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds
