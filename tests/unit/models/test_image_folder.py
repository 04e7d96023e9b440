"""Image folders: what counts as a class and as a picture."""

import shutil

import pytest
from PIL import Image

from phonefit.models.data import SourceConfig, load_data
from phonefit.models.errors import DataError
from tests.tiny import LABELS, write_folder


def test_a_copy_under_another_name_and_format_has_the_same_digest(tmp_path):
    folder = write_folder(tmp_path, 3)
    Image.open(folder / "red" / "000.png").save(folder / "red" / "copy.bmp")
    samples = {sample.name: sample.digest for sample in load_data("image_folder", SourceConfig(folder)).samples}
    assert samples["red/copy.bmp"] == samples["red/000.png"]


def test_moving_the_folder_changes_nothing(tmp_path):
    before = load_data("image_folder", SourceConfig(write_folder(tmp_path / "here", 3)))
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert load_data("image_folder", SourceConfig(tmp_path / "there")).digest == before.digest


def test_hidden_files_are_left_out_and_nested_pictures_taken(tmp_path):
    folder = write_folder(tmp_path, 3)
    (folder / ".cache").mkdir()
    (folder / "red" / ".hidden").mkdir()
    shutil.copy(folder / "red" / "000.png", folder / "red" / ".hidden" / "a.png")
    (folder / "red" / ".DS_Store").write_text("x")
    (folder / "red" / "Thumbs.db").write_text("x")
    (folder / "red" / "monday" / "early").mkdir(parents=True)
    (folder / "red" / "000.png").rename(folder / "red" / "monday" / "early" / "0.png")
    data = load_data("image_folder", SourceConfig(folder))
    assert data.labels == ("blue", "green", "red")
    assert data.unreadable == ()
    assert len(data.samples) == 9
    assert data.samples[-1].name == "red/monday/early/0.png"


def test_links_to_folders_are_followed_and_circles_end(tmp_path):
    write_folder(tmp_path / "real", 3)
    (tmp_path / "data").mkdir()
    for label in LABELS:
        (tmp_path / "data" / label).symlink_to(tmp_path / "real" / label)
    (tmp_path / "real" / "red" / "again").symlink_to(tmp_path / "real" / "red")
    assert len(load_data("image_folder", SourceConfig(tmp_path / "data")).samples) == 9


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere does not exist; data.path must be a folder"):
        load_data("image_folder", SourceConfig(tmp_path / "nowhere"))


def test_a_folder_without_class_folders_says_how_to_arrange_them(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=r"no class folders \(1 files found\); put the pictures into one folder for each"
    ):
        load_data("image_folder", SourceConfig(tmp_path))


def test_one_class_is_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "a.png")
    with pytest.raises(DataError, match=r"one class only, 'cat'.*at least two classes"):
        load_data("image_folder", SourceConfig(tmp_path))


def test_an_empty_class_folder_is_named_with_the_classes_found(tmp_path):
    (write_folder(tmp_path, 3) / "violet").mkdir()
    with pytest.raises(DataError, match=r"no readable picture of 'violet' \(classes found: blue, green, red, violet\)"):
        load_data("image_folder", SourceConfig(tmp_path))
