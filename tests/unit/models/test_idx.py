"""IDX files: what they hold, and damaged ones."""

import gzip

import numpy as np
import pytest

from phonefit.models.data import SourceConfig, load_data
from phonefit.models.errors import DataError
from tests.data_cases import idx_case, write_idx
from tests.tiny import SIZE


def test_gzipped_files_hold_the_same_data_whatever_their_names(tmp_path):
    case = idx_case(tmp_path)
    before = case.load()
    for path in (case.config.path, case.config.labels_path):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert case.load().digest == before.digest


def test_grey_images_and_repeated_ones(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    grey[5] = grey[0]
    config = SourceConfig(
        write_idx(tmp_path / "images", grey), write_idx(tmp_path / "labels", np.array([0, 1, 0, 1, 0, 0]))
    )
    data = load_data("idx", config)
    assert data.samples[5].digest == data.samples[0].digest
    assert data.samples[5].name == "images#000005"
    assert (np.asarray(data.read(data.samples[2])) == grey[2][..., None]).all()


def cut(content):
    return content[:-1]


def longer(content):
    return content + b"\0"


def no_magic(content):
    return b"\x89PNG" + content[4:]


def huge(content):
    return content[:4] + b"\xff" * 12 + content[16:]


def damaged_gzip(content):
    return gzip.compress(content)[:-20]


def header_only(content):
    return content[:6]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, f"declares 18x{SIZE}x{SIZE}x3 values, 55,296 bytes, and has 55,295"),
        (longer, "55,296 bytes, and has more"),
        (no_magic, "not an IDX file of integers: it starts with 89 50 4e 47"),
        (huge, "declares 4294967295x4294967295x4294967295"),
        (damaged_gzip, "damaged gzip file"),
        (header_only, "ends within its header"),
        (lambda content: b"", "starts with nothing"),
    ],
)
def test_a_file_that_is_not_what_it_declares_is_refused(tmp_path, damage, message):
    config = idx_case(tmp_path).config
    config.path.write_bytes(damage(config.path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load_data("idx", config)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    config = idx_case(tmp_path).config
    with pytest.raises(DataError, match=r"uint8 \[18\]; images must be.*Is it the file of labels"):
        load_data("idx", SourceConfig(config.labels_path, config.path))
    write_idx(config.labels_path, np.arange(7))
    with pytest.raises(DataError, match=r"holds 18 images, .* 7 labels"):
        load_data("idx", config)
    with pytest.raises(DataError, match=r"gone: No such file"):
        load_data("idx", SourceConfig(tmp_path / "gone", config.labels_path))
