"""What every task promises to training, conversion and evaluation. A new task is one entry in RIGHT."""

import numpy as np
import pytest
import torch

from phonefit.models.errors import UnknownNameError
from phonefit.models.tasks import TASKS, task

LABELS = ("a", "b", "c", "d")
COUNT = 32


def classes():
    """Targets, and outputs that are right about them."""
    targets = np.arange(COUNT) % len(LABELS)
    return targets, 4 * np.eye(len(LABELS), dtype=np.float32)[targets]


RIGHT = {"classification": classes}


@pytest.fixture(params=sorted(TASKS))
def name(request):
    return request.param


def random_outputs(name, seed=0):
    return np.random.default_rng(seed).normal(size=(COUNT, task(name).outputs(LABELS))).astype(np.float32)


def test_it_is_registered_under_its_own_name(name):
    assert task(name).name == name


def test_quality_is_one_of_the_metrics(name):
    targets, outputs = RIGHT[name]()
    assert task(name).quality in task(name).metrics(outputs, targets)


def test_outputs_fit_the_labels(name):
    targets, outputs = RIGHT[name]()
    assert outputs.shape == (len(targets), task(name).outputs(LABELS))


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_finite_and_shares(name, seed):
    targets, _ = RIGHT[name]()
    metrics = task(name).metrics(random_outputs(name, seed), targets)
    assert all(0 <= value <= 1 for value in metrics.values())


def test_right_outputs_have_the_best_quality_and_others_less(name):
    targets, outputs = RIGHT[name]()
    key = task(name).quality
    assert task(name).metrics(outputs, targets)[key] == 1
    assert task(name).metrics(random_outputs(name), targets)[key] < 1


def test_decisions_are_one_number_for_each_row_and_survive_scaling(name):
    outputs = random_outputs(name)
    decisions = task(name).decisions(outputs)
    assert decisions.shape == (COUNT,)
    assert decisions.dtype == np.int64
    assert (decisions == task(name).decisions(outputs * 1.5)).all()


def test_loss_is_a_scalar_that_falls_towards_right_outputs_and_has_a_gradient(name):
    targets, right = RIGHT[name]()
    losses = []
    for share in (0.0, 0.5, 1.0):
        outputs = torch.tensor((1 - share) * random_outputs(name) + share * right, requires_grad=True)
        loss = task(name).loss(outputs, torch.tensor(targets), None)
        loss.backward()
        assert loss.shape == ()
        assert torch.isfinite(outputs.grad).all()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_gradient_descent_on_the_loss_reaches_the_best_quality(name):
    targets, _ = RIGHT[name]()
    outputs = torch.tensor(random_outputs(name), requires_grad=True)
    optimizer = torch.optim.Adam([outputs], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        task(name).loss(outputs, torch.tensor(targets), None).backward()
        optimizer.step()
    assert task(name).metrics(outputs.detach().numpy(), targets)[task(name).quality] == 1


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_distillation_loss_is_zero_for_the_teacher_itself_and_positive_for_others(name, temperature):
    teacher, other = torch.tensor(random_outputs(name)), torch.tensor(random_outputs(name, seed=1))
    assert task(name).distillation_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-6)
    assert task(name).distillation_loss(other, teacher, temperature).item() > 0.01


def test_every_task_is_tested():
    assert set(RIGHT) == set(TASKS)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown task 'origami'; known: .*classification"):
        task("origami")
