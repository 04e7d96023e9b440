"""What every data source promises. A new source is one entry in `tests.data_cases`."""

import os
import shutil
import struct
import zlib
from collections import Counter
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from phonefit.models.data import SOURCES, TARGETS, SourceConfig, demo, load_data
from phonefit.models.data.picture import picture_digest
from phonefit.models.errors import DataError, UnknownNameError
from phonefit.models.targets import groups_of
from phonefit.pipeline.recipe import DataConfig
from tests.data_cases import CASES, OTHER_TARGETS, PER_CLASS, Case


@pytest.fixture(params=sorted(CASES))
def case(request, tmp_path):
    return CASES[request.param](tmp_path)


@pytest.fixture(params=[*sorted(CASES), *sorted(OTHER_TARGETS)], ids=str)
def any_case(request, tmp_path):
    return (CASES | OTHER_TARGETS)[request.param](tmp_path)


class Memory:
    """A DigestCache in memory."""

    def __init__(self):
        self.known = {}

    def get(self, name, stamp):
        return self.known.get((name, stamp))

    def put(self, name, stamp, digest):
        self.known[name, stamp] = digest


# --- all sources ------------------------------------------------------------------------------------------------------


def test_labels_and_samples_are_complete_and_in_order(case):
    data = case.load()
    assert data.labels == case.labels
    assert Counter(sample.label for sample in data.samples) == dict.fromkeys(range(len(case.labels)), PER_CLASS)
    names = [sample.name for sample in data.samples]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert data.unreadable == ()


def test_read_gives_the_picture_that_the_digest_stands_for(any_case):
    data = any_case.load()
    for sample in data.samples[:: PER_CLASS // 2]:
        picture = data.read(sample)
        assert picture.mode == "RGB"
        assert picture_digest(picture) == sample.digest


def test_loading_again_gives_the_same_data(any_case):
    first, second = any_case.load(), any_case.load()
    assert first.digest == second.digest
    assert first.samples == second.samples


def test_different_pictures_have_different_digests(any_case):
    data = any_case.load()
    assert len({sample.digest for sample in data.samples}) == len(data.samples)


def test_limit_takes_a_fixed_balanced_part(case):
    less, more = case.load(limit=len(case.labels) * 2), case.load(limit=len(case.labels) * 4)
    assert Counter(sample.label for sample in less.samples) == dict.fromkeys(range(len(case.labels)), 2)
    assert set(less.samples) < set(more.samples)
    assert less.digest == case.load(limit=len(case.labels) * 2).digest
    assert less.digest != more.digest


def test_a_limit_below_the_number_of_classes_is_refused(case):
    with pytest.raises(DataError, match=r"data.limit 1 is below the number of classes"):
        case.load(limit=1)


def test_progress_counts_every_picture(any_case):
    steps = []
    total = len(any_case.load(progress=lambda done, total: steps.append((done, total))).samples)
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_a_known_picture_is_not_decoded_again(any_case):
    cache, steps = Memory(), []
    first = any_case.load(cache=cache)
    second = any_case.load(cache=cache, progress=lambda done, total: steps.append(done))
    assert steps == []
    assert (second.samples, second.digest) == (first.samples, first.digest)


def test_every_source_is_tested():
    tested = {*CASES, *(source for source, _ in OTHER_TARGETS)}
    assert sorted(tested) == sorted(SOURCES) == sorted(get_args(DataConfig.model_fields["source"].annotation))


def test_an_unknown_source_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="unknown data source 'ftp'; known: coco, csv, demo, drawn_faces"):
        load_data("ftp", SourceConfig())


# --- numbers and labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", sorted(OTHER_TARGETS))
def test_numbers_and_labels_are_complete_and_in_order(key, tmp_path):
    case = OTHER_TARGETS[key](tmp_path)
    data = case.load()
    assert (data.labels, data.kind) == (case.labels, key[1])
    kind = {"number": float, "picture": int}.get(key[1], tuple)
    assert {type(sample.label) for sample in data.samples} == {kind}
    assert [sample.name for sample in data.samples] == sorted(sample.name for sample in data.samples)
    groups = {group for sample in data.samples for group in groups_of(data.kind, sample.label)}
    assert groups == set(range(len(case.labels)))
    assert case.load().digest == data.digest
    less = case.load(limit=8)
    assert len(less.samples) == 8
    assert set(less.samples) < set(data.samples)


def test_every_kind_of_target_is_tested():
    assert {(source, kind) for source, kinds in TARGETS.items() for kind in kinds if kind != "class"} == {
        *OTHER_TARGETS
    }
    assert sorted(TARGETS) == sorted(SOURCES)


def test_a_source_without_such_targets_names_those_that_have_them(tmp_path):
    config = SourceConfig(tmp_path, kind="number")
    with pytest.raises(
        DataError, match=r"needs a number .* source image_folder does not give; sources that do: csv, d"
    ):
        load_data("image_folder", config)


# --- sources of files: unreadable pictures and copies -----------------------------------------------------------------


@pytest.fixture(params=["image_folder", "csv", "demo"])
def files(request, tmp_path, monkeypatch):
    """A case whose picture files may be changed, and those files."""
    if request.param != "demo":
        case = CASES[request.param](tmp_path)
        return case, sorted(tmp_path.rglob("*.png"))
    package = demo.package_folder()
    (tmp_path / "images").mkdir()
    lines = [line for line in (package / "labels.csv").read_text().splitlines() if line.strip()][:12]
    for line in lines:
        shutil.copy(package / line.split()[0], tmp_path / line.split()[0])
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    monkeypatch.setattr(demo, "package_folder", lambda: tmp_path)
    return Case("demo", SourceConfig(), demo.LABELS), sorted(tmp_path.rglob("*.png"))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("this is not a picture")


def bomb(path):
    """A PNG of a few bytes that claims 40,000 x 40,000 pixels."""
    Image.new("1", (1, 1)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def garbled(path):
    """A picture whose compressed pixels are noise."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:-16] = np.random.default_rng(0).bytes(len(content) - 16 - middle)
    path.write_bytes(content)


def locked(path):
    path.chmod(0)


def float_pixels(path):
    Image.new("F", (8, 8)).save(path, format="TIFF")


DAMAGES = {
    truncate: "damaged",
    garbled: "damaged",
    empty: "empty file",
    text: "not a picture",
    bomb: "more than 89,478,485",
    float_pixels: "mode F",
    locked: "no permission",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_an_unreadable_picture_is_named_and_the_others_are_kept(files, damage):
    if damage is locked and os.geteuid() == 0:
        pytest.skip("root may read everything")
    case, paths = files
    damage(paths[3])
    data = case.load()
    (failed,) = data.unreadable
    assert failed.name.endswith(f"{paths[3].parent.name}/{paths[3].name}")
    assert DAMAGES[damage] in failed.reason
    assert len(data.samples) == len(paths) - 1


def test_a_picture_between_the_limits_of_pillow_and_ours_is_unreadable_without_a_warning(files, recwarn):
    case, paths = files
    Image.new("1", (10_000, 9_500)).save(paths[0])
    assert "10000x9500 pixels" in case.load().unreadable[0].reason
    assert not [warning for warning in recwarn if issubclass(warning.category, Image.DecompressionBombWarning)]


def test_a_repaired_picture_is_read_again_and_a_changed_one_has_a_new_digest(files):
    case, paths = files
    cache, good = Memory(), paths[0].read_bytes()
    before = case.load(cache=cache)
    truncate(paths[0])
    assert len(case.load(cache=cache).unreadable) == 1
    paths[0].write_bytes(good)
    assert case.load(cache=cache).digest == before.digest
    shutil.copy(paths[1], paths[0])
    changed = case.load(cache=cache)
    assert changed.digest != before.digest
    assert changed.samples[0].digest == changed.samples[1].digest


def test_an_unreadable_picture_does_not_count_towards_the_limit(files):
    case, paths = files
    limit = 2 * len(case.labels)
    chosen = case.load(limit=limit).samples[0]
    truncate(next(path for path in paths if path.as_posix().endswith(chosen.name)))
    data = case.load(limit=limit)
    assert len(data.samples) == limit
    assert [failed.name for failed in data.unreadable] == [chosen.name]


def test_a_class_without_a_readable_picture_is_refused(files):
    case, paths = files
    label = case.load().samples[0].label
    for sample in [sample for sample in case.load().samples if sample.label == label]:
        text(next(path for path in paths if path.as_posix().endswith(sample.name)))
    with pytest.raises(
        DataError, match=rf"no readable picture of '{case.labels[label]}' \(classes found: (?s:.*)not a"
    ):
        case.load()
