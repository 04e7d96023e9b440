"""CSV files: columns, encodings, missing pictures."""

import pytest

from phonefit.models.data import SourceConfig, load_data
from phonefit.models.errors import DataError
from tests.data_cases import PER_CLASS, csv_case


def csv_source(folder, content):
    (folder / "table.csv").write_text(content, encoding="utf-8")
    return SourceConfig(folder / "table.csv")


def test_other_columns_and_a_byte_order_mark_do_not_matter(tmp_path):
    case = csv_case(tmp_path)
    before = case.load()
    lines = case.config.path.read_text().splitlines()
    case.config.path.write_text(
        "\n".join(f"{line},{'note' if number == 0 else 'a, b'!r}" for number, line in enumerate(lines)),
        encoding="utf-8-sig",
    )
    assert case.load().digest == before.digest


def test_a_picture_that_does_not_exist_counts_as_unreadable(tmp_path):
    case = csv_case(tmp_path)
    with case.config.path.open("a") as stream:
        stream.write("pictures/gone.png,red\n")
    data = case.load()
    assert [(failed.name, failed.reason) for failed in data.unreadable] == [("pictures/gone.png", "no such file")]
    assert len(data.samples) == 3 * PER_CLASS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,class\na.png,cat\n", "no column path and no column label; found the columns file, class"),
        ("path;label\na.png;cat\n", "found the columns path;label.*separated by a comma"),
        ("", "found the columns none"),
        ("path,label\na.png,cat\nb.png\n", "line 3: no label"),
        ("path,label\n,cat\n", "line 2: no path"),
        ("path,label\n", "found no classes"),
    ],
)
def test_a_table_that_does_not_fit_says_what_was_found(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        load_data("csv", csv_source(tmp_path, content))


def test_a_table_that_is_no_text_or_missing_is_named(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"path,label\n\xff\xfe\x00\n")
    with pytest.raises(DataError, match=r"table.csv: not a CSV file in UTF-8"):
        load_data("csv", SourceConfig(tmp_path / "table.csv"))
    with pytest.raises(DataError, match=r"gone.csv: No such file"):
        load_data("csv", SourceConfig(tmp_path / "gone.csv"))
