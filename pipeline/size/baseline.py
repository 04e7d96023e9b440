"""sizes.toml: the blessed figures and the limits on them; and sizes.lock.json beside it: what the blessed files hold.

A person edits the limits and `subjects`; `bless` writes the artifacts and keeps comments and order. The lock is written
by `bless` alone, and explains growth where the blessed file itself is gone.
"""

import datetime
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import Field, ValidationError
from tomlkit.exceptions import TOMLKitError

from phonefit.models.errors import FileFormatError
from phonefit.models.record import Frozen, Record, write_atomically
from phonefit.pipeline.size.limits import Limit
from phonefit.pipeline.size.parts import Anatomy
from phonefit.pipeline.store import explain_disk_errors

HEADER = (
    "Sizes that `phonefit size check` holds files against. The limits are yours to edit: docs/size-gate.md.",
    'The artifacts below are written by `phonefit size bless --reason "…"`.',
)


class Entry(Frozen):
    """The blessed figures of one artifact.

    Attributes:
        subject: the recipe or file that it comes from, as it was given.
        sections: bytes by section; they add up to `bytes`.
        measures: figures beside bytes, by name of the measure.
        tools: package -> version, of those that made the file, as far as they are known.
        checkpoint: of an artifact of a recipe: STAGE/KEY of what was converted, in the store of the runs folder.
        blessed: date of the last bless.
        reason: what was said for it.
    """

    subject: str
    sha256: str
    bytes: int
    precision: str = ""
    checkpoint: str = ""
    blessed: datetime.date
    reason: str
    sections: Mapping[str, int] = {}
    measures: Mapping[str, float] = {}
    tools: Mapping[str, str] = {}


class Baseline(Record):
    """Content of sizes.toml.

    Attributes:
        subjects: the recipes and files that `check` looks at when it is given none.
        since: the period of creep: a date, or a number of days as "30d", or of entries of the history.
        limits: later tables replace earlier ones, key by key.
    """

    schema_number: int = 1
    subjects: tuple[str, ...] = ()
    since: datetime.date | str | int | None = None
    limits: tuple[Limit, ...] = ()
    artifacts: Mapping[str, Entry] = Field(default={})


class Lock(Record):
    """Content of sizes.lock.json: artifact name -> what its blessed file is made of, with digests of the parts."""

    schema_number: int = 1
    artifacts: Mapping[str, Anatomy] = {}


def load_baseline(path: Path) -> Baseline:
    """Read sizes.toml.

    Raises:
        FileFormatError: it is missing, not TOML, of a newer schema, or a key is wrong; names the key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(
            f"{path}: no such file; make it with: phonefit size bless RECIPE_OR_FILE … --baseline {path} --reason first"
        ) from None
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileFormatError(f"{path}: not TOML: {error}") from None
    return _validated(content, path)


def _validated(content: Mapping[str, Any], path: Path) -> Baseline:
    found = content.get("schema_number", 1)
    if not isinstance(found, int) or found > Baseline.current_schema():
        raise FileFormatError(
            f"{path}: schema {found!r}, this phonefit reads up to {Baseline.current_schema()}; update phonefit"
        )
    try:
        return Baseline.model_validate(dict(content))
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
        raise FileFormatError(
            f"{path}: {len(lines)} wrong key(s); see docs/size-gate.md\n" + "\n".join(lines)
        ) from None


def save_entries(path: Path, entries: Mapping[str, Entry], subjects: tuple[str, ...], gone: tuple[str, ...]) -> None:
    """Write blessed entries into sizes.toml, which is made if missing. Comments, limits and order are kept.

    Args:
        subjects: joined to those that are there.
        gone: names of artifacts to take out.

    Raises:
        FileFormatError: the file that is there is not TOML.
        StoreError: it cannot be written.
    """
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8")) if path.is_file() else _empty()
    except (UnicodeDecodeError, TOMLKitError) as error:
        raise FileFormatError(f"{path}: not TOML: {error}") from None
    known = [str(subject) for subject in document.get("subjects", [])]
    added = [subject for subject in subjects if subject not in known]
    if added:
        listed = tomlkit.array()
        listed.extend([*known, *added])
        document["subjects"] = listed.multiline(len(listed) > 1)
    if "artifacts" not in document:
        document.append("artifacts", tomlkit.table(is_super_table=True))
    artifacts: Any = document["artifacts"]
    for name in gone:
        artifacts.pop(name, None)
    for name in sorted(entries):
        artifacts[name] = _table(entries[name])
    with explain_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, tomlkit.dumps(document).encode())


def lock_path(baseline: Path) -> Path:
    """The lock beside a baseline: sizes.toml -> sizes.lock.json."""
    return baseline.with_suffix(".lock.json")


def load_lock(baseline: Path) -> Lock:
    """The lock beside a baseline; an empty one where there is none."""
    path = lock_path(baseline)
    return Lock.load(path) if path.is_file() else Lock()


def save_lock(baseline: Path, anatomies: Mapping[str, Anatomy], gone: tuple[str, ...]) -> None:
    """Put anatomies into the lock beside a baseline: one line an artifact, so that a merge conflict names it."""
    kept = {name: found for name, found in load_lock(baseline).artifacts.items() if name not in gone}
    lock = Lock(artifacts={**kept, **anatomies})
    # the defaults are left out: they are most of the text
    lines = [
        f"{json.dumps(name)}: {lock.artifacts[name].model_dump_json(exclude_defaults=True)[:-1]}"
        f',"schema_number":{lock.artifacts[name].schema_number}}}'
        for name in sorted(lock.artifacts)
    ]
    text = f'{{"schema_number": {lock.schema_number}, "artifacts": {{\n' + ",\n".join(lines) + "\n}}\n"
    with explain_disk_errors(baseline.parent):
        write_atomically(lock_path(baseline), text.encode())


def _empty() -> tomlkit.TOMLDocument:
    document = tomlkit.document()
    for line in HEADER:
        document.add(tomlkit.comment(line))
    document.add("schema_number", tomlkit.item(Baseline.current_schema()))
    return document


def _table(entry: Entry) -> Any:
    table = tomlkit.table()
    content = entry.model_dump(exclude_defaults=True)
    for key, value in content.items():
        if isinstance(value, Mapping):
            inner = tomlkit.inline_table()
            inner.update({name: value[name] for name in sorted(value)})
            table.add(key, inner)
        else:
            table.add(key, value)
    return table
