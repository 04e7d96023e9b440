"""Classification, against values worked out by hand; what all tasks share is in the contract suite."""

import math

import numpy as np
import pytest

from phonefit.models.tasks import task

CLASSIFICATION = task("classification")
LOGITS = np.array([[2, 1, 0], [0, 3, 1], [0, 1, 0], [0, 0, 5]], dtype=np.float32)


def tensor(values):
    import torch

    return torch.tensor(values)


def test_accuracy_counts_rows_and_balanced_accuracy_counts_classes():
    metrics = CLASSIFICATION.metrics(LOGITS, np.array([0, 0, 1, 2]))
    assert metrics["accuracy"] == pytest.approx(3 / 4)
    assert metrics["balanced_accuracy"] == pytest.approx((1 / 2 + 1 + 1) / 3)


def test_a_class_that_is_absent_does_not_count():
    assert CLASSIFICATION.metrics(LOGITS[:2], np.array([0, 0]))["balanced_accuracy"] == pytest.approx(1 / 2)


def test_decision_is_the_largest_logit():
    assert CLASSIFICATION.decisions(LOGITS).tolist() == [0, 1, 1, 2]


def test_loss_is_cross_entropy():
    loss = CLASSIFICATION.loss(tensor([[0.0, 0.0], [math.log(3.0), 0.0]]), tensor([0, 0]), None)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-5)


def test_class_weights_weigh_the_mean():
    outputs, targets = tensor([[0.0, 0.0], [math.log(3.0), 0.0]]), tensor([0, 1])
    loss = CLASSIFICATION.loss(outputs, targets, tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx((math.log(2) + 3 * math.log(4)) / 4, rel=1e-5)


def test_distillation_loss_is_the_divergence_times_the_squared_temperature():
    student, teacher = tensor([[0.0, 0.0]]), tensor([[2 * math.log(3.0), 0.0]])
    divergence = 3 / 4 * math.log(3 / 4 / 0.5) + 1 / 4 * math.log(1 / 4 / 0.5)  # at temperature 2: 3:1 against 1:1
    assert CLASSIFICATION.distillation_loss(student, teacher, 2.0).item() == pytest.approx(4 * divergence, rel=1e-5)
