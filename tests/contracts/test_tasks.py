"""What every task promises to training, conversion and evaluation. A new task is one entry in RIGHT."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from phonefit.models.boxes import points_of
from phonefit.models.decode import detections, number, picture, present_labels, unit_vector
from phonefit.models.decoding import (
    DetectionDecoding,
    EmbeddingDecoding,
    MultiLabelDecoding,
    RegressionDecoding,
    StyleDecoding,
)
from phonefit.models.errors import UnknownNameError
from phonefit.models.families.vgg import VGG16_WEIGHTS
from phonefit.models.targets import targets_array
from phonefit.models.tasks import TASKS, style, task
from phonefit.models.tasks.options import EmbeddingOptions, RegressionOptions, StyleOptions
from phonefit.models.tasks.style_picture import style_picture
from phonefit.models.tasks.task import drop_of, holds, least_quality, metrics_with_interval
from tests.style_case import tiny_vgg
from tests.tiny import PREPROCESS

LABELS = ("a", "b", "c", "d")
COUNT = 32


def classes(_):
    """Targets, and outputs that are right about them."""
    targets = np.arange(COUNT) % len(LABELS)
    return targets, 4 * np.eye(len(LABELS), dtype=np.float32)[targets]


def numbers(_):
    targets = np.linspace(20, 60, COUNT, dtype=np.float32)
    return targets, ((targets - targets.mean()) / targets.std())[:, None]


def binned(made):
    """Outputs whose decoding is right, for the two losses that spread a number over many outputs."""
    targets = np.linspace(20, 60, COUNT, dtype=np.float32)
    places = np.linspace(0, made.options.bins - 1, COUNT)[:, None]
    if made.options.loss == "ordinal":
        shares = np.clip(places - np.arange(made.options.bins - 1), 1e-9, 1 - 1e-9)
        return targets, np.log(shares / (1 - shares)).astype(np.float32)
    shares = np.clip(1 - np.abs(places - np.arange(made.options.bins)), 1e-9, 1)
    return targets, np.log(shares).astype(np.float32)


def sets(_):
    targets = (np.arange(COUNT)[:, None] >> np.arange(len(LABELS)) & 1).astype(np.float32)
    return targets, (8 * targets - 4).astype(np.float32)


def identities(made):
    targets = np.arange(COUNT) % len(LABELS)
    return targets, 4 * np.eye(len(LABELS), made.options.size, dtype=np.float32)[targets]


def redrawn(_):
    """Pictures of noise, and the style itself, which is right where content does not count."""
    targets = np.random.default_rng(2).integers(0, 256, (COUNT, 3, PREPROCESS.height, PREPROCESS.width), np.uint8)
    levels = style_picture(None, PREPROCESS.height, PREPROCESS.width).transpose(2, 0, 1) / np.float32(255)
    return targets, np.tile(levels.reshape(1, -1), (COUNT, 1))


def boxes(made):
    """One or two boxes in each picture, told by the points in their middle."""
    random = np.random.default_rng(4)
    targets = np.full((COUNT, 2, 5), -1, dtype=np.float32)
    points = points_of(PREPROCESS.height, PREPROCESS.width, made.options.strides)
    told = np.concatenate([points[:, :2], np.tile(points[:, 2:], (1, 2))], axis=1)[None].repeat(COUNT, axis=0)
    scores = np.full((COUNT, len(points), len(LABELS)), 1e-3, dtype=np.float32)
    for row in range(COUNT):
        for place, left in enumerate((0, 17)[: 1 + row % 2]):
            corner, size = random.uniform(left, left + 4, 2), random.uniform(6, 12, 2)
            targets[row, place] = ((row + place) % len(LABELS), *corner, *(corner + size))
            middle = corner + size / 2
            near = (np.abs(points[:, :2] - middle) < np.minimum(1.5 * points[:, 2:], size / 2)).all(axis=1)
            told[row, near] = (*middle, *size)
            scores[row, near, (row + place) % len(LABELS)] = 0.999
    return targets, np.concatenate([told.reshape(COUNT, -1), scores.reshape(COUNT, -1)], axis=1).astype(np.float32)


RIGHT = {
    "classification": classes,
    "regression": numbers,
    "multi_label": sets,
    "embedding": identities,
    "style": redrawn,
    "detection": boxes,
}
VARIANTS = {
    **{name: (task(name), right) for name, right in RIGHT.items()},
    "regression l1": (task(RegressionOptions(loss="l1", unit="years")), numbers),
    "regression expectation": (task(RegressionOptions(loss="expectation", bins=9)), binned),
    "regression ordinal": (task(RegressionOptions(loss="ordinal", bins=9)), binned),
    "style": (task(StyleOptions(content_weight=0)), redrawn),
    "embedding cosine": (task(EmbeddingOptions(loss="cosine", size=8)), identities),
}


class Case:
    """A task, targets, and outputs that are right about them."""

    def __init__(self, name):
        made, right = VARIANTS[name]
        self.targets, self.outputs = right(made)
        self.task = made.fitted(LABELS, self.targets, PREPROCESS)

    def quality(self, outputs):
        return self.task.metrics(outputs, self.targets)[self.task.quality]

    def random_outputs(self, seed=0):
        shape = (COUNT, self.task.outputs(LABELS, PREPROCESS))
        values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        return self.as_boxes(values) if self.task.target == "boxes" else values

    def as_boxes(self, values):
        """Numbers as a detector could give them: boxes around its points, and scores."""
        boxes, scores = self.task.parts(values)
        points = self.task.points()
        boxes = np.concatenate([points[:, :2] + boxes[..., :2], points[:, 2:] * np.exp(boxes[..., 2:] / 4)], axis=2)
        both = (boxes.reshape(COUNT, -1), (1 / (1 + np.exp(1 - scores))).reshape(COUNT, -1))
        return np.concatenate(both, axis=1).astype(np.float32)

    def loss(self, outputs, weights=None):
        return self.task.loss(outputs, torch.tensor(self.targets), weights)


@pytest.fixture(autouse=True, scope="module")
def small_features(tmp_path_factory):
    """Style is judged by a VGG16 of a few channels."""
    weights = tiny_vgg(tmp_path_factory.mktemp("vgg"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "VGG16_WEIGHTS", replace(VGG16_WEIGHTS, locate=lambda: weights))
        yield


@pytest.fixture(params=sorted(VARIANTS))
def case(request):
    return Case(request.param)


@pytest.mark.parametrize("name", TASKS)
def test_it_is_registered_under_its_own_name(name):
    assert task(name).name == name


def test_quality_is_one_of_the_metrics(case):
    assert case.task.quality in case.task.metrics(case.outputs, case.targets)


def test_outputs_fit_the_labels(case):
    assert case.outputs.shape == (COUNT, case.task.outputs(LABELS, PREPROCESS))


def test_targets_are_what_the_data_gives(case):
    if case.task.target == "picture":
        pixels = torch.from_numpy(case.targets.transpose(0, 2, 3, 1))
        assert torch.equal(case.task.shown(torch.from_numpy(case.targets), pixels), torch.from_numpy(case.targets))
        return
    one_by_one = [tuple(row) if isinstance(row, list) else row for row in case.targets.tolist()]
    stored = targets_array(case.task.target, one_by_one, len(LABELS))
    assert stored.dtype == case.targets.dtype
    np.testing.assert_array_equal(stored, case.targets)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_finite_and_shares_lie_between_none_and_all(case, seed):
    metrics = case.task.metrics(case.random_outputs(seed), case.targets)
    assert all(np.isfinite(value) and value >= 0 for value in metrics.values())
    if case.task.better == "higher":
        assert all(value <= 1 for value in metrics.values())


def test_right_outputs_have_the_best_quality_and_others_are_worse(case):
    best = 1 if case.task.better == "higher" else 0
    assert case.quality(case.outputs) == pytest.approx(best, abs=1e-3)
    worse = case.quality(case.random_outputs())
    assert not holds(case.task, worse, case.quality(case.outputs))
    assert drop_of(case.task, case.quality(case.random_outputs(1)), case.quality(case.outputs)) < 0


def test_the_least_quality_is_the_one_that_is_left_after_the_drop(case):
    before = case.quality(case.random_outputs())
    assert drop_of(case.task, before, least_quality(case.task, before, 0.05)) == pytest.approx(0.05)


def test_an_interval_holds_the_quality(case):
    outputs = case.random_outputs()
    metrics, quality = metrics_with_interval(case.task, outputs, case.targets), case.task.quality
    if case.task.interval(outputs, case.targets) is None:
        assert set(metrics) == set(case.task.metrics(outputs, case.targets))
    else:
        assert metrics[f"{quality}_low"] < metrics[quality] < metrics[f"{quality}_high"]


def test_the_baseline_is_the_same_answer_for_every_picture_and_right_outputs_beat_it(case):
    words, metrics = case.task.baseline(case.targets, case.targets)
    assert words
    assert drop_of(case.task, case.quality(case.outputs), metrics[case.task.quality]) > 0.3


def test_decoding_gives_a_row_for_each_picture_and_copies_agree(case):
    outputs, others = case.random_outputs(), case.random_outputs(1)
    assert len(case.task.decode(outputs)) == COUNT
    assert case.task.agree(outputs, outputs).all()
    assert case.task.agree(outputs, others).shape == (COUNT,)
    assert not case.task.agree(outputs, others).all()


def test_mistakes_are_where_the_answer_is_wrong(case):
    outputs = case.random_outputs()
    mistakes = case.task.mistakes(outputs, case.targets)
    assert (mistakes.shape, mistakes.dtype) == ((COUNT,), np.float32)
    if isinstance(case.task.decoding, EmbeddingDecoding):
        vectors, threshold = case.task.decode(outputs), case.task.calibrated(outputs, case.targets).decoding.threshold
        wrong = (vectors @ vectors.T >= threshold) != (case.targets[:, None] == case.targets)
    elif case.task.target == "boxes":
        told, true = ((rows[..., 0] >= 0).sum(axis=1) for rows in (case.task.decode(outputs), case.targets))
        assert (mistakes >= np.abs(told - true)).all()
        assert (mistakes <= told + true).all()
        wrong = (mistakes > 0)[:, None]
    else:
        wrong = case.task.decode(outputs).reshape(COUNT, -1) != case.targets.reshape(COUNT, -1)
    assert ((mistakes > 0) == wrong.any(axis=1)).all()
    assert case.task.mistakes(case.outputs, case.targets).max() < 0.1


def test_the_record_of_the_decoding_reads_the_same_out_of_each_row(case):
    made = case.task.calibrated(case.outputs, case.targets)
    for row, told in zip(case.random_outputs(), made.decode(case.random_outputs()), strict=True):
        if isinstance(made.decoding, RegressionDecoding):
            assert number(row, made.decoding) == pytest.approx(float(told), rel=1e-5)
        elif isinstance(made.decoding, MultiLabelDecoding):
            assert (present_labels(row, made.decoding)[1] == told).all()
        elif isinstance(made.decoding, EmbeddingDecoding):
            np.testing.assert_allclose(unit_vector(row), told, atol=1e-6)
        elif isinstance(made.decoding, DetectionDecoding):
            photo = (PREPROCESS.width, PREPROCESS.height)
            found = detections(*(part[0] for part in made.parts(row[None])), made.decoding, PREPROCESS, photo)
            rows = [(one.label, *one.box, one.score) for one in found]
            np.testing.assert_allclose(told[: len(rows)], np.reshape(rows, (-1, 6)), atol=1e-4)
            assert (told[len(rows) :] == -1).all()
        elif isinstance(made.decoding, StyleDecoding):
            drawn = picture(row.reshape(case.targets.shape[1:]), "NCHW", made.decoding)
            np.testing.assert_array_equal(drawn.transpose(2, 0, 1).reshape(-1), told)
        else:
            assert made.decoding is None
            assert told == row.argmax()


def test_the_record_of_the_decoding_restores_the_task(case):
    made = case.task.calibrated(case.random_outputs(), case.targets)
    assert made.decoding is None or case.task.read_by(made.decoding).decoding == made.decoding


def test_loss_is_a_scalar_that_falls_towards_right_outputs_and_has_a_gradient(case):
    losses = []
    for share in (0.0, 0.5, 1.0):
        outputs = torch.tensor((1 - share) * case.random_outputs() + share * case.outputs, requires_grad=True)
        loss = case.loss(outputs)
        loss.backward()
        assert loss.shape == ()
        assert torch.isfinite(outputs.grad).all()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_descent_on_the_loss_reaches_the_best_quality(case, weighted):
    outputs = torch.tensor(case.random_outputs(), requires_grad=True)
    weights = case.task.class_weights(LABELS, case.targets) if weighted else None
    if weighted and weights is None:
        assert case.task.target in ("number", "picture", "boxes") or case.task.name == "embedding"
        return  # the same as without
    optimizer = torch.optim.Adam([outputs], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        case.loss(outputs, None if weights is None else torch.tensor(weights)).backward()
        optimizer.step()
    left = drop_of(
        case.task,
        case.task.baseline(case.targets, case.targets)[1][case.task.quality],
        case.quality(outputs.detach().numpy()),
    )
    assert left < -0.2 if case.task.better == "higher" else left < -0.9


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_distillation_loss_is_zero_for_the_teacher_itself_and_positive_for_others(case, temperature):
    teacher, other = torch.tensor(case.random_outputs()), torch.tensor(case.random_outputs(seed=1))
    assert case.task.distillation_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-5)
    assert case.task.distillation_loss(other, teacher, temperature).item() > 0.01


def test_every_task_is_tested():
    assert set(RIGHT) == set(TASKS)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown task 'origami'; known: .*classification"):
        task("origami")
