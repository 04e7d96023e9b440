"""CSV files: columns, encodings, missing pictures."""

from dataclasses import replace

import pytest

from phonefit.models.data import SourceConfig, load_data
from phonefit.models.errors import DataError
from tests.data_cases import PER_CLASS, csv_case, csv_labels_case, csv_numbers_case


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


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("number", "path,label\na.png,3\n", "no column value; found the columns path, label"),
        ("number", "path,value\na.png,23\nb.png,old\n", "line 3: 'old' is not a number; write it as 23 or 23.5"),
        ("number", "path,value\na.png,inf\n", "line 2: 'inf' is not a number"),
        ("number", "path,value\na.png,\n", "line 2: no value"),
        ("labels", "path,labels\na.png,\n", "no picture has a label"),
    ],
)
def test_numbers_and_labels_that_do_not_fit_are_named(tmp_path, kind, content, message):
    with pytest.raises(DataError, match=message):
        load_data("csv", replace(csv_source(tmp_path, content), kind=kind))


def test_the_column_may_have_another_name(tmp_path):
    case = csv_numbers_case(tmp_path)
    before = case.load()
    case.config.path.write_text(case.config.path.read_text().replace("path,value", "path,age"))
    data = load_data("csv", replace(case.config, column="age"))
    assert data.labels == ("age",)
    assert [sample.label for sample in data.samples] == [sample.label for sample in before.samples]


def test_labels_are_split_and_sorted_and_may_be_none(tmp_path):
    data = csv_labels_case(tmp_path).load()
    told = {sample.name.split("/")[1]: sample.label for sample in data.samples}
    assert told == {"red": (1, 1), "green": (1, 0), "blue": (0, 0)}


def test_a_table_that_is_no_text_or_missing_is_named(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"path,label\n\xff\xfe\x00\n")
    with pytest.raises(DataError, match=r"table.csv: not a CSV file in UTF-8"):
        load_data("csv", SourceConfig(tmp_path / "table.csv"))
    with pytest.raises(DataError, match=r"gone.csv: No such file"):
        load_data("csv", SourceConfig(tmp_path / "gone.csv"))
