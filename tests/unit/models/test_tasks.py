"""Tasks against values worked out by hand; what all of them share is in the contract suite."""

import math

import numpy as np
import pytest

from phonefit.models.errors import DataError, ModelError
from phonefit.models.tasks import task, task_key
from phonefit.models.tasks.multi_label import average_precisions
from phonefit.models.tasks.options import MultiLabelOptions, OwnTaskOptions, RegressionOptions
from tests.tiny import PREPROCESS

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
    assert CLASSIFICATION.decode(LOGITS).tolist() == [0, 1, 1, 2]


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


def test_class_weights_give_each_class_the_same_say():
    weights = CLASSIFICATION.class_weights("abc", np.array([0] * 24 + [1] * 16 + [2] * 8))
    np.testing.assert_allclose(weights, [48 / 72, 48 / 48, 48 / 24], rtol=1e-6)


# --- regression -------------------------------------------------------------------------------------------------------

AGES = np.array([10, 20, 30, 60], dtype=np.float32)


def regression(**options):
    return task(RegressionOptions(**options)).fitted(["age"], AGES, PREPROCESS)


def test_outputs_are_on_the_scale_of_the_training_numbers():
    made = regression(loss="l1")
    assert (made.offset, made.scale) == (pytest.approx(30), pytest.approx(np.std(AGES)))
    assert made.decode(np.array([[0], [1]], dtype=np.float32)).tolist() == pytest.approx([30, 30 + np.std(AGES)])
    assert made.loss(tensor([[0.0], [0.0]]), tensor([30.0, 60.0]), None).item() == pytest.approx(15 / np.std(AGES))


def test_errors_are_in_the_unit_of_the_numbers():
    made = regression(loss="l1")
    outputs = ((np.array([12, 20, 26, 60]) - made.offset) / made.scale).astype(np.float32)[:, None]
    metrics = made.metrics(outputs, AGES)
    assert metrics["mean_absolute_error"] == pytest.approx(1.5, abs=1e-5)
    assert metrics["root_mean_squared_error"] == pytest.approx(math.sqrt(20 / 4), abs=1e-5)


def test_the_baseline_of_a_regression_is_the_median():
    words, metrics = regression().baseline(np.array([1, 2, 90], dtype=np.float32), AGES)
    assert words == "always the median"
    assert metrics["mean_absolute_error"] == pytest.approx((8 + 18 + 28 + 58) / 4)


def test_answers_stay_within_the_range():
    made = regression(minimum=0, maximum=100)
    assert made.decode(np.array([[-9], [9]], dtype=np.float32)).tolist() == [0, 100]


def test_expectation_is_the_mean_of_the_bins():
    made = regression(loss="expectation", minimum=0, maximum=100, bins=101)
    outputs = np.full((1, 101), -50, dtype=np.float32)
    outputs[0, [30, 40]] = 50, 50 + math.log(3)
    assert made.decode(outputs).tolist() == pytest.approx([37.5], abs=1e-4)
    # a whole year is one bin, as in the paper: the loss is the cross entropy of that bin
    loss = made.loss(tensor(outputs), tensor([40.0]), None)
    assert loss.item() == pytest.approx(math.log(4 / 3), abs=1e-5)


def test_ordinal_counts_the_steps():
    made = regression(loss="ordinal", minimum=0, maximum=10, bins=6)
    outputs = np.array([[50, 50, math.log(3), -50, -50]], dtype=np.float32)
    assert made.decode(outputs).tolist() == pytest.approx([5.5])  # two steps of 2, and three quarters of one
    perfect = made.loss(tensor([[50.0, 50.0, 50.0, -50.0, -50.0]]), tensor([6.0]), None)
    assert perfect.item() == pytest.approx(0, abs=1e-6)


def test_numbers_that_are_all_equal_are_refused():
    with pytest.raises(DataError, match="every picture of the training side has the number 7"):
        task("regression").fitted(["age"], np.full(5, 7, dtype=np.float32), PREPROCESS)


def test_answers_agree_up_to_a_quarter_of_the_deviation():
    made = regression(loss="l1")
    assert made.agree(np.array([[0.0], [0.0]]), np.array([[0.24], [0.26]])).tolist() == [True, False]


# --- multi-label ------------------------------------------------------------------------------------------------------

SCORES = np.array([[2, 0], [1, 0], [0, 0], [-1, 0], [-2, 0]], dtype=np.float32)
PRESENT = np.array([[1, 1], [0, 0], [1, 0], [0, 0], [1, 0]], dtype=np.float32)


def multi_label(recall=0.9):
    return task(MultiLabelOptions(recall=recall)).fitted(["first", "second"], PRESENT, PREPROCESS)


def test_average_precision_sums_precision_over_recall():
    # hits at places 1, 3 and 5: (1/1 + 2/3 + 3/5) / 3; of equal scores: the share that has the label
    assert average_precisions(SCORES, PRESENT) == {0: pytest.approx(34 / 45), 1: pytest.approx(1 / 5)}
    assert multi_label().metrics(SCORES, PRESENT)["mean_average_precision"] == pytest.approx((34 / 45 + 1 / 5) / 2)


@pytest.mark.parametrize(("recall", "logit", "precision"), [(1.0, -2, 3 / 5), (0.6, 0, 2 / 3), (0.3, 2, 1.0)])
def test_thresholds_are_the_highest_with_the_wanted_recall(recall, logit, precision):
    made = multi_label(recall).calibrated(SCORES, PRESENT)
    assert made.thresholds[0] == pytest.approx(1 / (1 + math.exp(-logit)))
    metrics = made.metrics(SCORES, PRESENT)
    assert metrics["recall/first"] >= recall
    assert metrics["precision/first"] == pytest.approx(precision)


def test_a_label_that_no_picture_has_counts_nowhere():
    absent = PRESENT * (1, 0)
    metrics = multi_label().metrics(SCORES, absent)
    assert metrics["mean_average_precision"] == pytest.approx(34 / 45)
    assert not [name for name in metrics if name.endswith("/second")]
    assert multi_label().calibrated(SCORES, absent).thresholds[1] == 0.5


def test_weights_of_labels_are_pictures_without_over_pictures_with():
    assert multi_label().class_weights("ab", PRESENT).tolist() == pytest.approx([2 / 3, 4])
    outputs, targets = tensor([[0.0, 0.0]]), tensor([[1.0, 1.0]])
    assert multi_label().loss(outputs, targets, tensor([2.0, 4.0])).item() == pytest.approx(6 * math.log(2))


# --- a person's own ---------------------------------------------------------------------------------------------------


def test_what_is_no_task_is_refused():
    with pytest.raises(ModelError, match=r"task 'tests.tiny:write_folder' failed with \{\}"):
        task(OwnTaskOptions(factory="tests.tiny:write_folder"))
    with pytest.raises(ModelError, match=r"returned a Sequential, expected a phonefit.models.tasks.task.Task"):
        task(OwnTaskOptions(factory="tests.tiny:build", arguments={"outputs": 2}))


def test_the_key_of_a_task_follows_its_options_and_its_code():
    own = OwnTaskOptions(factory="tests.tiny:build", arguments={"outputs": 2})
    assert task_key("classification") == "classification"
    assert task_key(RegressionOptions(loss="l1")) != task_key(RegressionOptions(loss="huber"))
    assert set(task_key(own)) == {"factory", "arguments", "code"}
