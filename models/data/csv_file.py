"""CSV file with a column `path` (from the file's own folder, or absolute) and one with what is to be learned.

That column is `label` (a class), `value` (a number) or `labels` (any number of labels, separated by "|"; it may be
empty), whichever the task learns, or the one that the settings name.
"""

import csv
import math
from pathlib import Path

from phonefit.models.data.collect import collect
from phonefit.models.data.dataset import DataSet
from phonefit.models.data.picture import open_picture
from phonefit.models.data.source import (
    Candidate,
    DigestCache,
    OnProgress,
    SourceConfig,
    file_stamp,
    required_path,
)
from phonefit.models.errors import DataError
from phonefit.models.targets import Target, TargetKind

COLUMNS: dict[TargetKind, str] = {"class": "label", "number": "value", "labels": "labels"}
SEPARATOR = "|"


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Load `config.path`, UTF-8 with a header; other columns are ignored.

    Classes and labels are the column's values, sorted; a number is called as its column. A picture that does not exist
    counts as unreadable. A sample's name is its path as the file gives it.

    Raises:
        DataError: no such file, not CSV, a missing column or value, no number where there must be one, one class, or a
            class or label without a readable picture.
    """
    table = required_path(config, "csv")
    column = config.column or COLUMNS[config.kind]
    rows = _rows(table, column, config.kind)
    labels, targets = _targets([value for _, _, value in rows], column, config.kind)
    if config.kind == "number":
        targets = [_number(value, table, line) for _, line, value in rows]
    folder = table.parent
    candidates = (
        Candidate(path, target, file_stamp(folder / path)) for (path, _, _), target in zip(rows, targets, strict=True)
    )
    return collect(
        f"CSV file {table}",
        labels,
        candidates,
        lambda name: open_picture(folder / name),
        config.limit,
        progress,
        cache,
        config.kind,
    )


def _targets(values: list[str], column: str, kind: TargetKind) -> tuple[list[str], list[Target]]:
    """Labels, and the target of each value; of numbers only their label."""
    if kind == "number":
        return [column], []
    if kind == "class":
        labels = sorted(set(values))
        indices = {label: index for index, label in enumerate(labels)}
        return labels, [indices[value] for value in values]
    sets = [{label.strip() for label in value.split(SEPARATOR)} - {""} for value in values]
    labels = sorted(set().union(*sets))
    return labels, [tuple(int(label in present) for label in labels) for present in sets]


def _number(value: str, table: Path, line: int) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{table}, line {line}: {value!r} is not a number; write it as 23 or 23.5")
    return number


def _rows(table: Path, column: str, kind: TargetKind) -> list[tuple[str, int, str]]:
    """Path, line and value of each row."""
    wanted = ("path", column)
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets write a byte order mark
            reader = csv.DictReader(stream)
            found = [name.strip() for name in reader.fieldnames or ()]
            if missing := [name for name in wanted if name not in found]:
                raise DataError(
                    f"{table}: no column {' and no column '.join(missing)}; "
                    f"found the columns {', '.join(found) or 'none'}. The first line must name "
                    f"the columns path and {column}, separated by a comma"
                )
            reader.fieldnames = found
            rows = []
            for row in reader:
                path, value = ((row[name] or "").strip() for name in wanted)
                if not path or (not value and kind != "labels"):
                    raise DataError(f"{table}, line {reader.line_num}: no {column if path else 'path'}; fill it in")
                rows.append((path, reader.line_num, value))
            return rows
    except OSError as error:
        raise DataError(f"{table}: {error.strerror}; data.path must be a CSV file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a CSV file in UTF-8 ({error}); save it as such") from None
