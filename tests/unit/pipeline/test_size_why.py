"""Reasons for a change of size, from anatomies made by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonefit.pipeline.errors import PhonefitError
from phonefit.pipeline.size.parts import Anatomy, Part
from phonefit.pipeline.size.why import why


def tensor(name, bytes_=1000, digest=None, dtype="int8", shape=None, users=1):
    digest = f"content of {name}" if digest is None else digest
    return Part(section="weights", name=name, kind="tensor", bytes=bytes_, dtype=dtype,
                shape=(bytes_,) if shape is None else shape, digest=digest, users=users)  # fmt: skip


def other(section, bytes_, name=""):
    return Part(section=section, name=name, kind="other", bytes=bytes_)


def file(*parts, **facts):
    return Anatomy(format="tflite", sha256="", bytes=sum(part.bytes for part in parts), parts=parts, **facts)


def causes(old, new):
    found = why(old, new)
    assert sum(change.bytes for change in found.changes) == new.bytes - old.bytes
    return [(change.cause, change.name, change.bytes) for change in found.regressions]


def test_same_file_has_no_changes():
    assert why(file(tensor("a")), file(tensor("a"))).changes == ()


def test_order_and_names_are_no_regression():
    old = file(tensor("a"), tensor("b"), other("names", 40))
    new = file(tensor("x", digest="content of b"), tensor("y", digest="content of a"), other("names", 90))
    found = why(old, new)
    assert found.regressions == ()
    assert {change.cause for change in found.changes} == {"renamed", "names"}


def test_other_values_are_no_regression():
    found = why(file(tensor("a")), file(tensor("a", digest="other")))
    assert [(change.cause, change.harmless) for change in found.changes] == [("other values", True)]


def test_weight_that_stayed_float():
    new = file(tensor("a", 4000, "float", "float32", (10, 100)))
    old = file(tensor("a", 1000, shape=(10, 100)))
    assert causes(old, new) == [("stayed float", "a", 3000)]
    assert causes(new, old) == []


def test_weight_that_stayed_float_under_another_name_and_layout():
    old = file(tensor("a", 1000, shape=(10, 1, 100)), tensor("bias", 40, shape=(10,)))
    new = file(tensor("q", 4000, "float", "float32", (100, 10)), tensor("bias", 40, shape=(10,)))
    assert causes(old, new) == [("stayed float", "q", 3000)]


def test_duplicate_and_unshared():
    once = file(tensor("a"))
    twice = file(tensor("a"), tensor("b", digest="content of a"))
    assert causes(once, twice) == [("duplicated constant", "b", 1000)]
    shared = file(tensor("a", users=2))
    assert causes(shared, twice) == [("unshared tensor", "b", 1000)]


def test_equal_contents_in_both_files_are_no_duplicates():
    zeros = [tensor(name, digest="zeros") for name in "abc"]
    assert why(file(*zeros), file(*zeros)).changes == ()


def test_values_that_became_equal_are_no_duplicates():
    old = file(tensor("a"), tensor("b"))
    new = file(tensor("a", digest="zeros"), tensor("b", digest="zeros"))
    assert causes(old, new) == []


def test_new_gone_grown():
    old = file(tensor("a"), tensor("b", 500))
    new = file(tensor("a", 1300, "more"), tensor("c", 700))
    assert causes(old, new) == [("grown tensor", "a", 300), ("new tensor", "c", 700)][::-1]


def operators(**bytes_):
    return [Part(section="graph", name=name, kind="operator", bytes=size, users=1) for name, size in bytes_.items()]


def test_casts_come_before_the_descriptions_that_grow_with_them():
    old = file(*operators(CONV_2D=50), other("graph", 1000), operators={"CONV_2D": 1})
    new = file(*operators(CONV_2D=50, QUANTIZE=90), other("graph", 3000), operators={"CONV_2D": 1, "QUANTIZE": 3})
    assert causes(old, new) == [("casts", "QUANTIZE", 90), ("graph", "", 2000)]


def test_operators_that_left_the_delegate():
    old = file(other("graph", 10), delegated={"Conv2d": 3}, partitions=1)
    new = file(
        other("graph", 10),
        *operators(convolution=60),
        operators={"convolution": 2},
        delegated={"Conv2d": 1},
        partitions=3,
    )
    found = why(old, new)
    assert [(change.cause, change.bytes) for change in found.regressions] == [("left the delegate", 60)]
    assert "Conv2d x 2 left the delegate, which is called 3 times and was 1" in found.regressions[0].text


@pytest.mark.parametrize(
    ("section", "harmless", "harmful"),
    [
        ("metadata", 200, 5000),
        ("padding", 200, 5000),
        ("names", 1000, 50_000),
        ("scales", 200, 5000),
        ("graph", 200, 5000),
    ],
)
def test_growth_by_section(section, harmless, harmful):
    old = file(tensor("a"), other(section, 1000))
    assert causes(old, file(tensor("a"), other(section, 1000 + harmless))) == []
    assert causes(old, file(tensor("a"), other(section, 1000 + harmful))) == [(section, "", harmful)]


PARTS = st.builds(
    Part,
    section=st.sampled_from(["weights", "constants", "graph", "names", "scales", "padding", "delegate:XnnpackBackend"]),
    name=st.sampled_from(["a", "b", "CONV_2D", "QUANTIZE", ""]),
    kind=st.sampled_from(["tensor", "operator", "entry", "delegate", "metadata", "padding", "other"]),
    bytes=st.integers(0, 9000),
    dtype=st.sampled_from(["int8", "float32", ""]),
    shape=st.sampled_from([(), (3,), (3, 1, 4), (4, 3)]),
    digest=st.sampled_from(["1", "2", "3"]),
    users=st.integers(0, 3),
)
COUNTS = st.dictionaries(st.sampled_from(["CONV_2D", "QUANTIZE", "Convert"]), st.integers(1, 5))
FILES = st.builds(
    lambda parts, operators, delegated: file(*parts, operators=operators, delegated=delegated),
    st.lists(PARTS, max_size=8), COUNTS, COUNTS,
)  # fmt: skip


@settings(derandomize=True, deadline=None)
@given(FILES, FILES)
def test_changes_of_any_two_files_add_up(old, new):
    found = why(old, new)
    assert sum(change.bytes for change in found.changes) == new.bytes - old.bytes
    assert why(old, old).regressions == ()
    if found.new_bytes > found.old_bytes:
        assert any(change.bytes > 0 for change in found.changes)


def test_unlike_formats_are_refused():
    with pytest.raises(PhonefitError, match="compare like with like"):
        why(file(tensor("a")), file(tensor("a")).model_copy(update={"format": "onnx"}))
