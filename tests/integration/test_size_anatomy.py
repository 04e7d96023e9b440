"""Files of real converters taken apart, their growth explained, and damaged ones refused."""

from collections import Counter
from pathlib import Path

import pytest

from phonefit.pipeline.convert.delegation import delegation_of
from phonefit.pipeline.convert.sections import sections_of
from phonefit.pipeline.size.anatomy import anatomy_of
from phonefit.pipeline.size.why import why
from tests.size_artifacts import write_artifacts
from tests.size_fuzz import damaged, judged, of_anatomy, reference
from tests.size_mutations import HARMLESS, REGRESSIONS

pytestmark = pytest.mark.xdist_group("size_anatomy")  # its fixtures take long

FUZZED = 600  # benchmarks/fuzz_anatomy.py goes on to ten thousand
SUFFIXES = {".pte": "executorch", ".tflite": "tflite", ".onnx": "onnx"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_artifacts(tmp_path_factory.mktemp("artifacts"))


def taken_apart(content, suffix):
    return anatomy_of(content, Path(f"model{suffix}"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parts_add_up_and_the_weights_are_all_there(files, suffix):
    for name in ("float", "int8"):
        content = files[name + suffix]
        found = taken_apart(content, suffix)
        assert sum(part.bytes for part in found.parts) == len(content)
        filters = [part for part in found.parts if part.section == "weights" and len(part.shape) > 1]
        assert len(filters) == 5
        expected = {"float": 4, "int8": 1}[name]
        values = (3 * 9 + 9 + 16 + 9 * 32) * 16 + 32 * 3
        assert sum(part.bytes for part in filters) == expected * values
        assert {part.dtype for part in filters} == {"float32" if name == "float" else "int8"}
        assert all(part.users for part in filters)
        if name == "int8":
            assert {part.scales for part in filters} <= {1, 3, 16, 32}
            assert min(part.scales for part in filters) > 0


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_weights_agree_with_the_format_s_own_library(files, suffix, tmp_path):
    for name in ("float", "int8"):
        path = tmp_path / (name + suffix)
        path.write_bytes(files[path.name])
        found = taken_apart(files[path.name], suffix)
        expected = sections_of(path, SUFFIXES[suffix])["weights"]
        held = found.sections()
        constants = held["weights"] + held.get("constants", 0)
        if suffix == ".tflite":
            held["metadata"] = held.get("metadata", 0)
            assert constants <= expected <= constants + held["metadata"]
        else:
            assert constants <= expected <= constants + held.get("scales", 0)
        figures = reference(suffix, files[path.name])
        assert figures is None or of_anatomy(found) == figures


def test_operators_of_the_delegate_agree_with_the_count_by_executorch(files, tmp_path):
    for name in ("float.pte", "int8.pte", "plain.pte"):
        path = tmp_path / name
        path.write_bytes(files[name])
        found = taken_apart(files[name], ".pte")
        counted = delegation_of(path, "executorch")
        assert sum(found.delegated.values()) == counted.delegated
        assert dict(found.operators) == counted.rest
        assert found.partitions == counted.partitions


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_planted_regression_is_named(files, name):
    suffix, cause, plant = REGRESSIONS[name]
    old, new = plant(files)
    found = why(taken_apart(old, suffix), taken_apart(new, suffix))
    assert sum(change.bytes for change in found.changes) == len(new) - len(old)
    assert found.regressions, "nothing is named"
    assert found.regressions[0].cause == cause, [change.text for change in found.regressions]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_change_raises_nothing(files, name):
    suffix, change = HARMLESS[name]
    old, new = change(files)
    found = why(taken_apart(old, suffix), taken_apart(new, suffix))
    assert sum(change.bytes for change in found.changes) == len(new) - len(old)
    assert [change.text for change in found.regressions] == []


def test_damaged_files_are_refused_or_read_rightly(files):
    outcomes = Counter()
    for seed in range(FUZZED):
        suffix, content = damaged(files, seed)
        found = judged(suffix, content)
        outcomes[suffix, found is not None] += 1
        expected = reference(suffix, content) if found is not None else None
        assert expected is None or of_anatomy(found) == expected, f"seed {seed}"
    assert len(outcomes) == 6  # each format: some are refused, some are not


def test_cut_off_files_are_refused(files):
    for suffix in SUFFIXES:
        content = files["int8" + suffix]
        for length in range(0, len(content) - len(content) // 8, 97):
            assert judged(suffix, content[:length]) is None, (suffix, length)
