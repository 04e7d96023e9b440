"""COCO files: what is read, and what is refused."""

import json

import pytest

from phonefit.models.data import SourceConfig, load_data
from phonefit.models.errors import DataError
from tests.data_cases import coco_case
from tests.tiny import LABELS, SIZE


@pytest.fixture
def case(tmp_path):
    return coco_case(tmp_path)


def changed(case, **parts):
    """The case with other parts of its JSON file; a function gets the part that is there."""
    table = case.config.labels_path
    content = json.loads(table.read_text())
    table.write_text(json.dumps(content | {name: change(content[name]) for name, change in parts.items()}))
    return case


def first(**values):
    """A change of the first entry."""
    return lambda entries: [entries[0] | values, *entries[1:]]


def test_boxes_are_corners_and_crowds_are_left_out(case):
    data = case.load()
    assert (data.labels, data.kind) == (LABELS, "boxes")
    last = max(sample.name for sample in data.samples)
    for sample in data.samples:
        label = LABELS.index(sample.name.partition("/")[0])
        assert sample.label == (() if sample.name == last else ((label, 8.0, 6.0, 20.0, 26.0),))


def test_a_picture_that_does_not_exist_or_has_another_size_is_unreadable(case):
    def other(images):
        return [images[0] | {"file_name": "gone.png"}, images[1] | {"width": 100}, *images[2:]]

    reasons = [failed.reason for failed in changed(case, images=other).load().unreadable]
    assert sorted(reasons) == [f"{SIZE}x{SIZE} pixels when it is upright; boxes.json says 100x{SIZE}", "no such file"]


def test_a_box_that_reaches_out_by_less_than_a_pixel_is_cut(case):
    data = changed(case, annotations=first(bbox=[-0.5, 0, 10, SIZE + 0.4])).load()
    assert data.samples[0].label[0][1:] == (0.0, 0.0, 9.5, float(SIZE))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"annotations": first(category_id=3)}, r"annotation 0: no category has the id 3; known: 7 \(red\), 8"),
        ({"annotations": first(image_id=99, id=5)}, "annotation 5: no image has the id 99"),
        ({"annotations": first(bbox=[30, 6, 12, 20])}, r"annotation 0: the box \[30.0, .* reaches out of .* 32x32"),
        ({"annotations": first(bbox=[8, 6, 0, 20])}, "has no size; remove it"),
        ({"annotations": first(bbox=[8, 6, 12])}, r"annotations.0.bbox.3: Field required; .* COCO's format"),
        ({"images": first(id=1)}, "two entries of one image id"),
        ({"categories": first(id=8)}, "two entries of one category id"),
        ({"images": lambda entries: [entries[0], entries[1] | {"file_name": entries[0]["file_name"]}, *entries[2:]]},
         "two images have one file_name"),
        ({"annotations": lambda _: []}, "no picture has a label"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_place(case, parts, message):
    with pytest.raises(DataError, match=message):
        changed(case, **parts).load()


@pytest.mark.parametrize(("text", "message"), [("{", "not a JSON file"), ("[]", "COCO's format"), ("{}", "images: ")])
def test_another_file_is_refused(case, text, message):
    case.config.labels_path.write_text(text)
    with pytest.raises(DataError, match=message):
        case.load()


def test_missing_places_are_named(case, tmp_path):
    with pytest.raises(DataError, match=r"data.labels_path"):
        load_data("coco", SourceConfig(tmp_path, kind="boxes"))
    with pytest.raises(DataError, match=r"nowhere is no folder"):
        load_data("coco", SourceConfig(tmp_path / "nowhere", case.config.labels_path, kind="boxes"))
    with pytest.raises(DataError, match=r"gone.json: No such file"):
        load_data("coco", SourceConfig(tmp_path, tmp_path / "gone.json", kind="boxes"))
