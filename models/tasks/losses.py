"""Losses that several tasks share. Imports torch: tasks import this module inside their functions.

Softened by a temperature as in Hinton et al. 2015 (arXiv 1503.02531): logits are divided by it, and the loss is
multiplied by its square, so that its gradients keep their size.
"""

from torch import Tensor
from torch.nn import functional


def softmax_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened outputs, times T^2: logits float32 [N, classes], one of which is right."""
    log_student = functional.log_softmax(student / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def sigmoid_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The same for logits float32 [N, K] that are each a yes or no of its own, summed over them."""
    softened, target = student / temperature, teacher / temperature
    yes, no = target.sigmoid(), (-target).sigmoid()
    positive = yes * (functional.logsigmoid(target) - functional.logsigmoid(softened))
    negative = no * (functional.logsigmoid(-target) - functional.logsigmoid(-softened))
    return (positive + negative).sum(dim=1).mean() * temperature**2
