"""CSV file with a column `path` (from the file's own folder, or absolute) and a column `label`."""

import csv
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

COLUMNS = ("path", "label")


def load(config: SourceConfig, progress: OnProgress, cache: DigestCache) -> DataSet:
    """Load `config.path`, UTF-8 with a header; other columns are ignored. The labels are the column's values, sorted.

    A picture that does not exist counts as unreadable. A sample's name is its path as the file gives it.

    Raises:
        DataError: no such file, not CSV, a missing column or value, one class, or a class without a readable picture.
    """
    table = required_path(config, "csv")
    rows = _rows(table)
    labels = sorted({label for _, label in rows})
    indices = {label: index for index, label in enumerate(labels)}
    folder = table.parent
    candidates = (Candidate(path, indices[label], file_stamp(folder / path)) for path, label in rows)
    where = f"CSV file {table}"
    return collect(where, labels, candidates, lambda name: open_picture(folder / name), config.limit, progress, cache)


def _rows(table: Path) -> list[tuple[str, str]]:
    """The file's (path, label) pairs."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:  # spreadsheets write a byte order mark
            reader = csv.DictReader(stream)
            found = [name.strip() for name in reader.fieldnames or ()]
            if missing := [name for name in COLUMNS if name not in found]:
                raise DataError(
                    f"{table}: no column {' and no column '.join(missing)}; "
                    f"found the columns {', '.join(found) or 'none'}. The first line must name "
                    "the columns path and label, separated by a comma"
                )
            reader.fieldnames = found
            rows = []
            for row in reader:
                path, label = ((row[name] or "").strip() for name in COLUMNS)
                if not path or not label:
                    raise DataError(f"{table}, line {reader.line_num}: no {'label' if path else 'path'}; fill it in")
                rows.append((path, label))
            return rows
    except OSError as error:
        raise DataError(f"{table}: {error.strerror}; data.path must be a CSV file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a CSV file in UTF-8 ({error}); save it as such") from None
