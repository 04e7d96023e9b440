"""The three-way split by content."""

from dataclasses import replace

import pytest
from PIL import Image

from phonefit.models.data.dataset import SIDES, DataSet, Sample
from phonefit.models.data.split import find_conflicts, position, split
from phonefit.models.errors import DataError


def dataset(*samples, labels=("cat", "dog")):
    """A DataSet of (name, label, digest)."""
    return DataSet(
        labels, tuple(Sample(*sample) for sample in samples), (), lambda sample: Image.new("RGB", (1, 1)), ""
    )


def many(count, label=0, prefix="picture"):
    return [(f"{prefix}{index}", label, f"{prefix}{index}") for index in range(count)]


def other(kind, labels, *samples):
    """A DataSet of numbers or labels."""
    return replace(dataset(*samples, labels=labels), kind=kind)


def sides_by_name(data, validation=0.2, test=0.2, seed=0):
    sides = split(data, validation, test, seed)
    return {data.samples[index].name: side for side, indices in sides.items() for index in indices}


def test_every_sample_is_on_exactly_one_side_and_shares_are_met():
    data = dataset(*many(2000), *many(2000, 1, "other"))
    sides = split(data, validation=0.2, test=0.1, seed=0)
    assert tuple(sides) == SIDES
    assert sorted(index for indices in sides.values() for index in indices) == list(range(4000))
    assert all(list(indices) == sorted(indices) for indices in sides.values())
    for side, share in {"train": 0.7, "validation": 0.2, "test": 0.1}.items():
        assert len(sides[side]) / 4000 == pytest.approx(share, abs=0.02)


def test_copies_are_together():
    data = dataset(
        *many(60), *((f"copy of {name}", label, digest) for name, label, digest in many(60)), *many(9, 1, "d")
    )
    sides = sides_by_name(data)
    assert all(sides[f"picture{index}"] == sides[f"copy of picture{index}"] for index in range(60))


def test_adding_and_removing_pictures_moves_no_other():
    few = dataset(*many(50), *many(50, 1, "other"))
    more = dataset(*many(400), *many(400, 1, "other"), *many(30, 2, "new"), labels=("cat", "dog", "eel"))
    before, after = sides_by_name(few), sides_by_name(more)
    assert before == {name: after[name] for name in before}


def test_the_seed_decides():
    data = dataset(*many(100), *many(100, 1, "other"))
    assert sides_by_name(data, seed=1) == sides_by_name(data, seed=1)
    assert sides_by_name(data, seed=1) != sides_by_name(data, seed=2)


@pytest.mark.parametrize("seed", range(40))
def test_a_class_of_three_pictures_has_one_on_each_side(seed):
    data = dataset(*many(3), *many(40, 1, "other"))
    sides = sides_by_name(data, validation=0.1, test=0.1, seed=seed)
    assert sorted(sides[f"picture{index}"] for index in range(3)) == sorted(SIDES)


def test_an_empty_side_gets_the_picture_nearest_to_its_interval():
    training = [name for name, _, _ in many(500) if position(name, 0) >= 0.4][:20]
    data = dataset(*((name, 0, name) for name in training), *many(200, 1, "other"))
    sides = sides_by_name(data, validation=0.2, test=0.2)
    nearest = sorted(training, key=lambda name: position(name, 0))
    assert sides[nearest[0]] == "validation"  # its interval is [0.2, 0.4), filled before test
    assert sides[nearest[1]] == "test"
    assert {sides[name] for name in nearest[2:]} == {"train"}


@pytest.mark.parametrize("seed", range(20))
def test_filling_one_class_never_empties_another(seed):
    shared = [(f"as {label}: {name}", label, name) for label in (0, 1) for name, _, _ in many(4, prefix="both")]
    data = dataset(*shared, *many(2, 0, "cat"), *many(2, 1, "dog"))
    sides = split(data, validation=0.1, test=0.1, seed=seed)
    for label in (0, 1):
        assert all(any(data.samples[index].label == label for index in indices) for indices in sides.values())


def test_less_than_three_distinct_pictures_are_refused():
    data = dataset(("a", 0, "x"), ("b", 0, "x"), ("c", 0, "y"), *many(9, 1, "dog"))
    with pytest.raises(DataError, match=r"'cat' has 2 distinct pictures.*add pictures"):
        split(data, 0.2, 0.2, 0)


def test_one_picture_under_two_labels_is_kept_together_and_reported():
    data = dataset(*many(20), *many(20, 1, "other"), ("z1", 0, "same"), ("z2", 1, "same"))
    sides = sides_by_name(data)
    assert sides["z1"] == sides["z2"]
    (conflict,) = find_conflicts(data)
    assert conflict.names == ("z1", "z2")
    assert conflict.labels == ("cat", "dog")


def test_copies_with_one_label_are_no_conflict():
    assert find_conflicts(dataset(("a", 0, "x"), ("b", 0, "x"), ("c", 1, "y"))) == ()


def test_numbers_are_split_as_one_and_three_pictures_are_enough():
    few = other("number", ("age",), ("a", 3.0, "a"), ("b", 4.5, "b"), ("c", 3.0, "c"))
    assert sorted(sides_by_name(few).values()) == sorted(SIDES)
    with pytest.raises(DataError, match=r"'age' has 2 distinct pictures"):
        split(other("number", ("age",), ("a", 3.0, "a"), ("b", 4.5, "b")), 0.2, 0.2, 0)


@pytest.mark.parametrize("seed", range(20))
def test_each_label_has_a_picture_on_each_side(seed):
    rare = [(f"rare{index}", (1, 1), f"rare{index}") for index in range(3)]
    plain = [(f"plain{index}", (1, 0), f"plain{index}") for index in range(30)]
    none = [(f"none{index}", (0, 0), f"none{index}") for index in range(30)]
    data = other("labels", ("often", "seldom"), *rare, *plain, *none)
    sides = sides_by_name(data, validation=0.1, test=0.1, seed=seed)
    assert sorted(sides[name] for name, _, _ in rare) == sorted(SIDES)


def test_one_picture_with_several_numbers_or_sets_of_labels_is_a_conflict():
    (ages,) = find_conflicts(other("number", ("age",), ("a", 3.0, "x"), ("b", 4.5, "x"), ("c", 4.5, "y")))
    assert (ages.names, ages.labels) == (("a", "b"), ("3", "4.5"))
    (sets,) = find_conflicts(other("labels", ("p", "q"), ("a", (1, 1), "x"), ("b", (0, 0), "x")))
    assert sets.labels == ("no label", "p|q")


def persons(count, pictures=3):
    labels = tuple(f"person{index}" for index in range(count))
    samples = [sample for index in range(count) for sample in many(pictures, index, f"{labels[index]}-")]
    return dataset(*samples, labels=labels)


def classes_by_side(data, **shares):
    arguments = {"validation": 0.2, "test": 0.2, "seed": 0} | shares
    sides = split(data, **arguments, by="class")
    assert sorted(index for indices in sides.values() for index in indices) == list(range(len(data.samples)))
    return {side: {data.labels[data.samples[index].label] for index in indices} for side, indices in sides.items()}


def test_by_class_no_class_is_on_two_sides_and_shares_are_met():
    found = classes_by_side(persons(300), validation=0.3, test=0.1)
    assert tuple(found) == SIDES
    assert sum(len(names) for names in found.values()) == len(set().union(*found.values())) == 300
    for side, share in {"train": 0.6, "validation": 0.3, "test": 0.1}.items():
        assert len(found[side]) / 300 == pytest.approx(share, abs=0.06)


def test_by_class_adding_classes_moves_no_other():
    few, more = classes_by_side(persons(40)), classes_by_side(persons(90))
    assert all(few[side] <= more[side] for side in SIDES)


@pytest.mark.parametrize("seed", range(5))
def test_by_class_each_side_has_two_to_tell_apart(seed):
    found = classes_by_side(persons(6), validation=0.05, test=0.05, seed=seed)
    assert {side: len(names) for side, names in found.items()} == dict.fromkeys(SIDES, 2)
    with pytest.raises(DataError, match=r"at least 6 classes.*found 5.*data\.split\.by=picture"):
        classes_by_side(persons(5))


def test_by_class_a_picture_of_two_classes_is_on_one_side():
    data = persons(12)
    shared = [Sample(f"shared{index}", index, "shared") for index in range(12)]
    data = replace(data, samples=(*data.samples, *shared))
    sides = split(data, 0.2, 0.2, 0, by="class")
    assert len({side for side, indices in sides.items() if any(index >= 36 for index in indices)}) == 1


def test_by_class_needs_classes():
    with pytest.raises(DataError, match="found pictures without classes"):
        split(other("number", ("age",), *many(20)), 0.2, 0.2, 0, by="class")
