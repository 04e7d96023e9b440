"""Adaptation to a few pictures in seconds: only the head learns, from features that are computed once.

What a linear probe does, with the strength of the regularisation chosen by cross-validation on the training side. A
frozen network and a linear head are hard to beat with few pictures (Chen et al. 2019, "A Closer Look at Few-shot
Classification", arXiv 1904.04232).

Where one class of several is told, the rows of features are brought to one length before the head learns from them, as
in their Baseline++ and in SimpleShot (Wang et al. 2019, arXiv 1911.04623): a class whose features are long and spread
otherwise pulls the threshold away from itself, as few pictures do not show its spread. The head still reads features as
they are: rows are scaled with the constant that the bias belongs to, which leaves the order of the logits alone.
"""

import copy
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phonefit.models.targets import rows_by_class
from phonefit.models.tasks.task import merit_of
from phonefit.models.weights import HEAD, last_layer
from phonefit.pipeline.context import Context
from phonefit.pipeline.criterion import EVALUATION_BATCH
from phonefit.pipeline.determinism import deterministic
from phonefit.pipeline.errors import ModelError, TrainingError
from phonefit.pipeline.recipe_steps import FinetuneConfig
from phonefit.pipeline.train import Epoch, TrainOutcome, judged, validation_outputs

STRENGTHS = tuple(10.0**power for power in range(-5, 2))
"""Of the squared weights, beside the mean loss; for features with a mean variance of 1."""
FOLDS = 4
STEPS = 200  # of L-BFGS


def train_head(network: nn.Module, context: Context, config: FinetuneConfig, title: str) -> TrainOutcome:
    """Train the head of `network` in place, on the training side as it is, without augmentation; ends in eval mode.

    The head is the module `head` of a registered family, else the last layer, which must be linear. Epoch 0 of the
    outcome is the network before, epoch 1 the trained one; the better one on the validation side is kept.

    Raises:
        ModelError: the network does not end with a linear layer.
        TrainingError: the loss is not finite.
    """
    with deterministic(context, title):
        network.eval().to(context.torch())
        place = HEAD if isinstance(getattr(network, HEAD, None), nn.Module) else last_layer(network)
        head = network.get_submodule(place)
        history = [_epoch(network, context, 0)]
        before = copy.deepcopy(head.state_dict())
        features = _features(network, head, context, title)
        targets = torch.from_numpy(np.ascontiguousarray(context.data.targets("train")))
        probe = _probe(head.cpu(), features, targets, context, config)
        with context.progress.stage(f"{title}: head", len(STRENGTHS) + 1) as advance:
            losses = []
            for strength in STRENGTHS:
                losses.append(probe.validated(strength))
                advance(1, f"regularisation {strength:g}")
            chosen = STRENGTHS[int(np.argmin(losses))]
            head.load_state_dict(probe.fitted(np.arange(len(targets)), chosen).state_dict())
            advance(1)
        network.to(context.torch())
        history.append(_epoch(network, context, 1))
        better = context.task.better
        best = max(history, key=lambda epoch: (merit_of(better, epoch.quality), -epoch.validation_loss)).number
        if best == 0:
            head.load_state_dict(before)
        metrics, decoding = judged(network, context)
        return TrainOutcome(metrics, decoding, best, tuple(history), stopped_early=False)


class _Probe:
    """Fits copies of a head to features with a mean variance of 1, in double precision."""

    def __init__(
        self, head: nn.Module, features: Tensor, targets: Tensor, context: Context, config: FinetuneConfig
    ) -> None:
        self.head, self.targets, self.context = head, targets, context
        self.mean = features.mean(0)
        # one scale for all features: a feature that hardly varies here must not be blown up where it does
        self.deviation = _deviation(features)
        self.features = (features - self.mean) / self.deviation
        weights = context.task.class_weights(context.data.labels, targets.numpy())
        self.class_weights = (
            None if weights is None or config.class_weights == "none" else torch.from_numpy(weights).double()
        )

    def validated(self, strength: float) -> float:
        """Mean loss on pictures that the head was not fitted to."""
        total = 0.0
        for held in self._folds():
            rest = np.setdiff1d(np.arange(len(self.targets)), held)
            head = self._fit(rest, strength)
            with torch.no_grad():
                total += float(self._loss(head, held, None)) * len(held)
        return total / len(self.targets)

    def fitted(self, rows: NDArray[np.intp], strength: float) -> nn.Module:
        """A head for features as they are, float32."""
        head = self._fit(rows, strength)
        first = next(module for module in head.modules() if isinstance(module, nn.Linear))
        with torch.no_grad():
            first.weight.div_(self.deviation)
            first.bias.sub_(first.weight @ self.mean)
        return head.float()

    def _fit(self, rows: NDArray[np.intp], strength: float) -> nn.Module:
        head = copy.deepcopy(self._start()).double().eval().requires_grad_(True)
        weights = [parameter for parameter in head.parameters() if parameter.ndim > 1]
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = self._loss(head, rows, self.class_weights)
            loss = loss + strength * torch.stack([weight.square().sum() for weight in weights]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        with torch.enable_grad():
            loss = float(optimizer.step(step).detach())  # type: ignore[no-untyped-call]
        if not math.isfinite(loss):
            raise TrainingError(f"the loss of the head is {loss}; the features or targets are not finite")
        return head.requires_grad_(False)

    def _start(self) -> nn.Module:
        """What a fit begins with, for rows of `features`."""
        return self.head

    def _loss(self, head: nn.Module, rows: NDArray[np.intp], class_weights: Tensor | None) -> Tensor:
        chosen = torch.from_numpy(rows)
        return self.context.task.loss(head(self.features[chosen]), self.targets[chosen], class_weights)

    def _folds(self) -> Iterator[NDArray[np.intp]]:
        """Parts of the training side, with the classes spread evenly over them."""
        random = np.random.default_rng(self.context.seed)
        rows = [random.permutation(own) for own in rows_by_class(self.targets.numpy(), len(self.context.data.labels))]
        spread = np.concatenate(rows)
        for fold in range(min(FOLDS, len(spread))):
            yield np.sort(spread[fold::FOLDS])


class _DirectionProbe(_Probe):
    """The same for rows of one length, [features, constant] / length of the features: for a linear head and one class
    of several. The constant is as long as the features usually are, and its weight, the bias, is held small like any.
    """

    def __init__(
        self, head: nn.Module, features: Tensor, targets: Tensor, context: Context, config: FinetuneConfig
    ) -> None:
        super().__init__(head, features, targets, context, config)
        lengths = features.norm(dim=1, keepdim=True).clamp(min=1e-6)
        self.length = lengths.mean()
        rows = torch.cat([features, self.length.expand(len(features), 1)], dim=1) / lengths
        self.deviation = _deviation(rows)
        self.features = rows / self.deviation
        self.linear = nn.Linear(rows.shape[1], _linear_layers(head)[0].out_features, bias=False)
        nn.init.zeros_(self.linear.weight)

    def fitted(self, rows: NDArray[np.intp], strength: float) -> nn.Module:
        """A head for features as they are, float32; its logits are the fit's where features have the usual length."""
        weights = next(self._fit(rows, strength).parameters()) / self.deviation
        head = copy.deepcopy(self.head)
        layer = _linear_layers(head)[0]
        with torch.no_grad():
            layer.weight.copy_(weights[:, :-1] / self.length)
            layer.bias.copy_(weights[:, -1])
        return head.float()

    def _start(self) -> nn.Module:
        return self.linear


def _probe(head: nn.Module, features: Tensor, targets: Tensor, context: Context, config: FinetuneConfig) -> _Probe:
    """By directions where a row's length cannot change the answer: argmax of a linear layer's logits."""
    layers = [module for module in head.modules() if not isinstance(module, nn.Sequential | nn.Dropout | nn.Identity)]
    linear = _linear_layers(head)
    alone = len(layers) == len(linear) == 1
    told = context.task.target == "class" and context.task.decoding is None
    return (_DirectionProbe if alone and told else _Probe)(head, features, targets, context, config)


def _linear_layers(head: nn.Module) -> list[nn.Linear]:
    return [module for module in head.modules() if isinstance(module, nn.Linear)]


def _deviation(rows: Tensor) -> Tensor:
    return (rows - rows.mean(0)).square().mean().sqrt().clamp(min=1e-6)


def _features(network: nn.Module, head: nn.Module, context: Context, title: str) -> Tensor:
    """What the head gets of each training picture: float64 [N, features]."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    count = len(context.data.targets("train"))
    try:
        with context.progress.stage(f"{title}: features", count) as advance, torch.no_grad():
            for start in range(0, count, EVALUATION_BATCH):
                inputs = context.data.inputs("train", start, min(start + EVALUATION_BATCH, count))
                outputs = network(torch.from_numpy(inputs).to(context.torch()))
                advance(len(inputs))
    finally:
        handle.remove()
    first = next((module for module in head.modules() if isinstance(module, nn.Linear)), None)
    if first is None or first.bias is None or not seen or seen[-1].ndim != 2 or not _ends_with(head, seen, outputs):
        raise ModelError(
            "cached_features needs a network that ends with a linear layer with a bias, on one row of features for "
            "each picture; set finetune.cached_features to false"
        )
    return torch.cat(seen).double().cpu()


def _ends_with(head: nn.Module, seen: list[Tensor], outputs: Tensor) -> bool:
    with torch.no_grad():
        return torch.allclose(head(seen[-1]), outputs, atol=1e-5)


def _epoch(network: nn.Module, context: Context, number: int) -> Epoch:
    task, targets = context.task, context.data.targets("validation")
    outputs = validation_outputs(network, context)
    loss = float(task.loss(torch.from_numpy(outputs), torch.from_numpy(np.ascontiguousarray(targets)), None))
    return Epoch(number, math.nan, task.metrics(outputs, targets)[task.quality], loss)
