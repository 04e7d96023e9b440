"""How much the network's outputs suffer from the replacement of single layers."""

import torch
from torch import Tensor, nn

from phonefit.models.tasks.task import Task

LEAST_ERROR = 1e-9  # squared


def replace_layer(network: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Put `layer` in the place of that dotted name; returns what was there."""
    parent, _, own = name.rpartition(".")
    before = network.get_submodule(name)
    setattr(network.get_submodule(parent), own, layer)
    return before


def sensitivity(
    network: nn.Module, name: str, probe: nn.Module, squared_error: float, pictures: Tensor, whole: Tensor, task: Task
) -> float:
    """Loss for each unit of squared relative error of a layer.

    The layer is replaced by `probe`, alone, which makes an error of that square. The task's distillation loss to
    `whole`, the outputs of the network as it is, float32 [N, outputs], on `pictures`, float32 [N, 3, height, width],
    grows with the square of a small error. `network` is as before at the end.
    """
    before = replace_layer(network, name, probe)
    try:
        with torch.no_grad():
            loss = float(task.distillation_loss(network.eval()(pictures), whole, 1.0))
    finally:
        replace_layer(network, name, before)
    return max(loss, 0.0) / max(squared_error, LEAST_ERROR)
