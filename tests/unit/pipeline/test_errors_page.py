"""The page of errors: the plot of each kind of target, and the worst pictures."""

import re

import numpy as np

from phonefit.models.decoding import EmbeddingDecoding
from phonefit.models.tasks import task
from phonefit.models.tasks.options import StyleOptions
from phonefit.pipeline.errors_page import errors_page
from tests.style_case import tiny_vgg
from tests.tiny import LABELS, PREPROCESS, TinyPictures

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
    made = task("regression").fitted(["age"], targets, PREPROCESS)
    outputs = ((targets - made.offset) / made.scale)[:, None]
    outputs[3] += 2
    outputs[5] += 9
    names = [name for name, _ in shown(errors_page("m", "validation", outputs, made, Case(targets, ("age",))))]
    assert names[:2] == ["validation5.png", "validation3.png"]


def test_sets_of_labels_are_told_by_name():
    targets = np.tile([[1, 0, 1]], (COUNT, 1)).astype(np.float32)
    made = task("multi_label").fitted(LABELS, targets, PREPROCESS)
    outputs = 8 * targets - 4
    outputs[6] = -4
    page = errors_page("m", "validation", outputs, made, Case(targets))
    assert shown(page) == [("validation6.png", "told no label, is red|blue")]


def test_pairs_of_an_embedding_are_side_by_side_with_the_worst_first():
    targets = np.arange(COUNT) % 3
    outputs = np.eye(3, dtype=np.float32)[targets] + 0.1
    outputs[4] = 0, 0, 1  # is 1: far from the other 1s, near the 2s
    outputs[9] = 1, 1, 0  # is 0: between
    made = task("embedding").read_by(EmbeddingDecoding(threshold=0.8))
    page = errors_page("m", "validation", outputs, made, Case(targets))
    captions = shown(page)
    assert ("validation1.png, validation4.png", "cosine 0.09: told different, is the same") in captions
    assert captions[0][1].startswith("cosine 0.09")
    assert "told the same, is different" in " ".join(told for _, told in captions)
    assert page.count('class="pair"') == len(captions)
    assert page.count('<img src="data:image/png;base64,') == 2 * len(captions)
    assert "threshold 0.800" in page


def test_redrawn_pictures_are_shown_before_and_after_with_their_losses(tmp_path):
    made = task(StyleOptions(features=tiny_vgg(tmp_path)))
    case = Case(TinyPictures(COUNT).pixels("validation").transpose(0, 3, 1, 2), ("picture",))
    unchanged = case.targets("validation").reshape(COUNT, -1) / np.float32(255)
    drawn = 1 - unchanged
    drawn[4:] = unchanged[4:]
    page = errors_page("mine", "validation", unchanged, made, case, {"float": drawn})
    captions = dict(shown(page))
    assert len(captions) == COUNT
    for row in range(COUNT):
        numbers = re.findall(r"(?:unchanged|this file|float) ([\d.]+)", captions[f"validation{row}.png"])
        assert numbers[0] == numbers[1]
        assert (numbers[0] == numbers[2]) == (row >= 4)
    assert page.count("<img src=") == 3 * COUNT
