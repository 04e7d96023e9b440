"""From a recipe's data section to split, resized pictures on disk."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phonefit.models.data.dataset import SIDES
from phonefit.models.data.preprocess import apply
from phonefit.models.quantisation import CalibrationSet
from phonefit.models.spec import Preprocess
from phonefit.pipeline.context import SilentProgress
from phonefit.pipeline.errors import DataError, RecipeError, StoreError
from phonefit.pipeline.prepare import prepare, resolve_preprocess
from phonefit.pipeline.recipe import DataConfig, InputConfig
from phonefit.pipeline.store import Store
from tests.data_cases import csv_labels_case, csv_numbers_case
from tests.tiny import PREPROCESS, SIZE, write_folder

PER_CLASS = 12
FULL_DISK = Path("/dev/full")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data", PER_CLASS)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


class Stages(SilentProgress):
    """Remembers which stages were shown, and with how many steps."""

    def __init__(self):
        self.shown = []

    def stage(self, title, total=None):
        self.shown.append((title, total))
        return super().stage(title, total)


def prepared(folder, store, preprocess=PREPROCESS, progress=None, **changes):
    config = DataConfig(source="image_folder", path=folder, **changes)
    return prepare(config, preprocess, store, progress or SilentProgress())


def test_each_picture_is_one_row_on_one_side_with_its_target(folder, store):
    pictures = prepared(folder, store)
    names = [name for side in SIDES for name in pictures.names[side]]
    assert sorted(names) == sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert pictures.labels == ("blue", "green", "red")
    for side in SIDES:
        pixels, targets = pictures.pixels(side), pictures.targets(side)
        assert pixels.shape == (len(pictures.names[side]), SIZE, SIZE, 3)
        assert (pixels.dtype, targets.dtype) == (np.uint8, np.int64)
        assert set(targets.tolist()) == {0, 1, 2}
        for name, row, target in zip(pictures.names[side], pixels, targets, strict=True):
            assert (row == apply(Image.open(folder / name), PREPROCESS)).all()
            assert name.split("/")[0] == pictures.labels[target]


def test_pixels_are_mapped_not_loaded(folder, store):
    assert isinstance(prepared(folder, store).pixels("train"), np.memmap)


def test_inputs_are_normalised_rows(folder, store):
    preprocess = PREPROCESS.model_copy(update={"mean": (100, 50, 0), "std": (50, 100, 200)})
    pictures = prepared(folder, store, preprocess)
    inputs = pictures.inputs("validation", 1, 3)
    expected = (pictures.pixels("validation")[1:3].astype(np.float64) - (100, 50, 0)) / (50, 100, 200)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def test_a_second_run_decodes_nothing(folder, store):
    first, stages = Stages(), Stages()
    one, two = prepared(folder, store, progress=first), prepared(folder, store, progress=stages)
    assert first.shown == [("Reading pictures", 36), ("Resizing pictures", 36)]
    assert stages.shown == []
    assert (one.reused, two.reused) == (False, True)
    assert (one.digest, one.names) == (two.digest, two.names)


def test_a_new_picture_alone_is_read_and_moves_no_other(folder, store):
    before = prepared(folder, store)
    Image.new("RGB", (50, 50), "red").save(folder / "red" / "new.jpg")
    stages = Stages()
    after = prepared(folder, store, progress=stages)
    assert stages.shown == [("Reading pictures", 1), ("Resizing pictures", 37)]
    assert after.digest != before.digest
    for side in SIDES:
        assert set(before.names[side]) <= set(after.names[side])


def test_copies_in_other_formats_land_on_the_same_side(folder, store):
    for path in sorted(folder.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
    pictures = prepared(folder, store)
    for side in SIDES:
        names = set(pictures.names[side])
        assert {name.removesuffix(".png") for name in names if name.endswith(".png")} == {
            name.removesuffix(".bmp") for name in names if name.endswith(".bmp")
        }


def test_the_digest_follows_everything_that_changes_the_input(folder, store):
    base = prepared(folder, store)
    others = [
        prepared(folder, store, PREPROCESS.model_copy(update={"mean": (0, 0, 0)})),
        prepared(folder, store, PREPROCESS.model_copy(update={"interpolation": "bicubic"})),
        prepared(folder, store, split={"seed": 1}),
        prepared(folder, store, limit=15),
    ]
    assert len({pictures.digest for pictures in (base, *others)}) == 5
    assert others[0].folder == base.folder  # another mean needs no other pictures on disk


def test_an_unreadable_picture_is_skipped_by_name_or_refused(folder, store):
    (folder / "red" / "broken.png").write_bytes(b"not a picture")
    pictures = prepared(folder, store)
    assert [failed.name for failed in pictures.unreadable] == ["red/broken.png"]
    assert sum(len(pictures.targets(side)) for side in SIDES) == 3 * PER_CLASS
    with pytest.raises(DataError, match=r"1 pictures cannot be read(?s:.*)red/broken.png: not a picture"):
        prepared(folder, store, unreadable="refuse")


def test_refusing_names_ten_and_counts_the_others(folder, store):
    for index in range(12):
        (folder / "red" / f"broken{index:02}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"12 pictures") as refused:
        prepared(folder, store, unreadable="refuse")
    assert str(refused.value).count("empty file") == 10
    assert str(refused.value).endswith("and 2 more")


def test_an_unreadable_picture_that_comes_later_does_not_invalidate_the_others(folder, store):
    before = prepared(folder, store)
    (folder / "red" / "broken.png").write_bytes(b"not a picture")
    after = prepared(folder, store)
    assert after.reused
    assert after.digest == before.digest
    assert len(after.unreadable) == 1


def test_a_picture_under_two_labels_is_reported(folder, store):
    shutil.copy(folder / "red" / "000.png", folder / "blue" / "also.png")
    (conflict,) = prepared(folder, store).conflicts
    assert conflict.names == ("blue/also.png", "red/000.png")
    assert conflict.labels == ("blue", "red")


def test_a_picture_that_changes_while_it_is_read_is_noticed(folder, store):
    class Meddling(Stages):
        def stage(self, title, total=None):
            if title == "Resizing pictures":
                Image.new("RGB", (9, 9)).save(folder / "green" / "001.png")
            return super().stage(title, total)

    with pytest.raises(DataError, match=r"green/001.png changed while the data was being read"):
        prepared(folder, store, progress=Meddling())
    assert prepared(folder, store).reused is False  # nothing half-written was kept, and the next run works


@pytest.mark.parametrize("content", [b"", b"[]", b'{"decoder": 1}', b'{"decoder": "x", "known": [1]}', b"\xff\x00"])
def test_a_damaged_listing_is_only_a_cache(folder, store, content):
    before = prepared(folder, store)
    (listing,) = (store.root / "store" / "listing").iterdir()
    listing.write_bytes(content)
    stages = Stages()
    assert prepared(folder, store, progress=stages).digest == before.digest
    assert stages.shown == [("Reading pictures", 36)]


def test_a_run_folder_that_cannot_be_made_is_a_store_error(folder, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / "runs"))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(StoreError, match="no permission to write"):
        prepared(folder, Store(tmp_path / "runs"))


@pytest.mark.skipif(not FULL_DISK.exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_a_store_error_and_leaves_nothing_half_written(folder, store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("phonefit.pipeline.prepare._pixels_file", lambda folder, side: FULL_DISK)
        with pytest.raises(StoreError, match="the disk is full"):
            prepared(folder, store)
    assert list((store.root / "store" / "tmp").iterdir()) == []
    assert prepared(folder, store).reused is False


# --- calibration ------------------------------------------------------------------------------------------------------


def calibration_labels(pictures, description):
    """The classes of the calibration pictures, found by looking the rows up on the training side."""
    rows = pictures.inputs("train", 0, len(pictures.targets("train")))
    found = [int(np.flatnonzero((rows == one).all(axis=(1, 2, 3)))[0]) for one in pictures.calibration(description)]
    assert len(set(found)) == len(found)
    return pictures.targets("train")[found].tolist()


def test_calibration_is_balanced_in_each_part_although_the_data_is_not(folder, store):
    for index, path in enumerate(sorted((folder / "red").iterdir())):
        if index > 6:
            path.unlink()
    labels = calibration_labels(prepared(folder, store), CalibrationSet(samples=9))
    assert Counter(labels) == {0: 3, 1: 3, 2: 3}
    assert all(sorted(labels[start : start + 3]) == [0, 1, 2] for start in (0, 3, 6))


def test_calibration_follows_its_seed(folder, store):
    pictures = prepared(folder, store)
    one, again, other = (pictures.calibration(CalibrationSet(samples=9, seed=seed)) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


def test_calibration_gives_what_there_is(folder, store):
    pictures = prepared(folder, store)
    labels = calibration_labels(pictures, CalibrationSet(samples=10_000))
    assert sorted(labels) == sorted(pictures.targets("train").tolist())


# --- the input --------------------------------------------------------------------------------------------------------

BASE = Preprocess(height=224, width=192, mean=(1, 2, 3), std=(4, 5, 6))


def test_nothing_given_changes_nothing():
    assert resolve_preprocess(BASE, InputConfig()) == BASE


def test_a_height_alone_makes_the_input_square():
    changed = resolve_preprocess(BASE, InputConfig(height=128))
    assert (changed.height, changed.width) == (128, 128)


def test_all_that_is_given_counts():
    asked = {
        "height": 64,
        "width": 96,
        "resize": "stretch",
        "crop_share": 0.5,
        "interpolation": "bicubic",
        "mean": (7, 8, 9),
        "std": (1, 1, 1),
    }
    assert resolve_preprocess(BASE, InputConfig(**asked)) == Preprocess(**asked)


def test_a_letterbox_has_its_padding():
    asked = resolve_preprocess(BASE, InputConfig(resize="letterbox", padding=7))
    assert (asked.resize, asked.padding) == ("letterbox", 7)
    assert resolve_preprocess(BASE, InputConfig(resize="letterbox")).padding == 114


def test_an_impossible_std_is_a_recipe_error():
    with pytest.raises(RecipeError, match=r"data.input: .*std must be positive"):
        resolve_preprocess(BASE, InputConfig(std=(0, 1, 1)))


def test_shots_leave_so_many_training_pictures_of_each_class_and_the_other_sides_alone(folder, store):
    whole, few = prepared(folder, store), prepared(folder, store, shots=2)
    assert Counter(few.targets("train").tolist()) == {0: 2, 1: 2, 2: 2}
    assert set(few.names["train"]) < set(whole.names["train"])
    assert (few.names["test"], few.names["validation"]) == (whole.names["test"], whole.names["validation"])
    assert set(few.names["train"]) < set(prepared(folder, store, shots=3).names["train"])
    assert few.digest != whole.digest


def test_numbers_and_labels_become_arrays(tmp_path, store):
    for kind, case in (("number", csv_numbers_case), ("labels", csv_labels_case)):
        (tmp_path / kind).mkdir()
        table = case(tmp_path / kind).config.path
        pictures = prepare(DataConfig(source="csv", path=table), PREPROCESS, store, SilentProgress(), kind)
        targets = pictures.targets("train")
        assert targets.dtype == np.float32
        assert targets.shape == ((len(targets),) if kind == "number" else (len(targets), 2))
        assert len(pictures.calibration(CalibrationSet(samples=5))) == 5
