"""Record: the base of everything that phonefit writes to disk as JSON."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from phonefit.models.errors import FileFormatError


def canonical_json(value: object) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(value: object) -> str:
    """sha256 hex digest of a JSON-compatible value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 hex digest of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new one, also after a kill."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class Frozen(BaseModel):
    """An immutable value that refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def as_json(self) -> dict[str, Any]:
        """JSON-compatible dict of this value."""
        return self.model_dump(mode="json")


class Record(Frozen):
    """A frozen value with a schema number, stored as one JSON file."""

    schema_number: int

    @classmethod
    def current_schema(cls) -> int:
        """The schema number that this version writes: the default of `schema_number`."""
        return int(cls.model_fields["schema_number"].default)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and validate a file.

        Raises:
            FileFormatError: the file is missing, is not JSON, has a newer schema, or does not fit.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileFormatError(f"{path}: no such file; expected a {cls.__name__} there") from None
        except OSError as error:
            raise FileFormatError(f"{path}: cannot be read ({error.strerror}); expected a {cls.__name__}") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise FileFormatError(f"{path}: not JSON ({error}); expected a {cls.__name__}") from None
        found = content.get("schema_number") if isinstance(content, dict) else None
        if not isinstance(found, int) or found > cls.current_schema():
            raise FileFormatError(
                f"{path}: {cls.__name__} schema {found!r}, this version of phonefit reads up to "
                f"{cls.current_schema()}; update phonefit or write the file anew"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise FileFormatError(f"{path}: not a {cls.__name__}: {where}: {first['msg']}") from None

    def save(self, path: Path) -> None:
        """Write atomically, readable and with sorted keys."""
        text = json.dumps(self.as_json(), indent=1, sort_keys=True, allow_nan=False)
        write_atomically(path, text.encode() + b"\n")
