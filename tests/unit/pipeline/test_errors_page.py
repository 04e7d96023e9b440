"""The page of errors: the plot of each kind of target, and the worst pictures."""

import re

import numpy as np

from phonefit.models.tasks import task
from phonefit.pipeline.errors_page import errors_page
from tests.tiny import LABELS, TinyPictures

COUNT = 12


class Case(TinyPictures):
    """Pictures with other targets."""

    def __init__(self, targets, labels=LABELS):
        super().__init__(COUNT)
        self.labels, self._targets = labels, targets

    def targets(self, side):
        return self._targets


def shown(page):
    """Names and captions of the pictures, in order."""
    return re.findall(r"<figcaption>(.*?)<br>(.*?)</figcaption>", page)


def test_wrong_pictures_of_classes_come_with_the_surest_first():
    targets = np.arange(COUNT) % 3
    outputs = 5 * np.eye(3, dtype=np.float32)[targets]
    outputs[4] = 0, 0, 1  # is 1
    outputs[7] = 9, 0, 0  # is 1
    page = errors_page("mine", "validation", outputs, task("classification"), Case(targets))
    assert shown(page) == [
        ("validation7.png", "told red, is green"),
        ("validation4.png", "told blue, is green"),
    ]
    assert "<h1>mine</h1>" in page
    assert page.count("data:image/png;base64,") >= 2


def test_numbers_come_with_the_largest_error_first():
    targets = np.linspace(10, 21, COUNT, dtype=np.float32)
    made = task("regression").fitted(["age"], targets)
    outputs = ((targets - made.offset) / made.scale)[:, None]
    outputs[3] += 2
    outputs[5] += 9
    names = [name for name, _ in shown(errors_page("m", "validation", outputs, made, Case(targets, ("age",))))]
    assert names[:2] == ["validation5.png", "validation3.png"]


def test_sets_of_labels_are_told_by_name():
    targets = np.tile([[1, 0, 1]], (COUNT, 1)).astype(np.float32)
    made = task("multi_label").fitted(LABELS, targets)
    outputs = 8 * targets - 4
    outputs[6] = -4
    page = errors_page("m", "validation", outputs, made, Case(targets))
    assert shown(page) == [("validation6.png", "told no label, is red|blue")]
