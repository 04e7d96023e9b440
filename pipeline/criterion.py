"""The loss of a training: the task's, with the parameters that exist in training only where it has such."""

import numpy as np
import torch
from torch import Tensor, nn

from phonefit.models.data.dataset import Side
from phonefit.models.tasks.task import Task
from phonefit.pipeline.context import Context

EVALUATION_BATCH = 64


class _Plain(nn.Module):
    """A task's loss, which has no parameters."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, outputs: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
        """The mean loss of a batch."""
        return self.task.loss(outputs, targets, class_weights)


def criterion(network: nn.Module, context: Context) -> nn.Module:
    """What maps outputs, targets and class weights to the mean loss of a batch of the training side.

    The network, which is on the context's device, is left in its mode.
    """
    targets = torch.from_numpy(np.ascontiguousarray(context.data.targets("train")))

    def before() -> Tensor:
        with context.progress.stage("outputs before training"):
            return outputs_of(network, context, "train")

    learned = context.task.learned_loss(before, targets)
    return (_Plain(context.task) if learned is None else learned).to(context.torch())


def outputs_of(network: nn.Module, context: Context, side: Side) -> Tensor:
    """Outputs over one side in eval mode: float32 [N, outputs] on the CPU. The network's mode is kept."""
    count, was_training = len(context.data.targets(side)), network.training
    network.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, count, EVALUATION_BATCH):
            inputs = context.data.inputs(side, start, min(start + EVALUATION_BATCH, count))
            batch = torch.from_numpy(inputs).to(device=context.torch(), memory_format=torch.channels_last)
            parts.append(network(batch).float().cpu())
    network.train(was_training)
    return torch.cat(parts)
