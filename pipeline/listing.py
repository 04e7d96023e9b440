"""What is known about the files of a data source, so that a second run starts without decoding them."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

import PIL

from phonefit.models.data.picture import DIGEST_VERSION
from phonefit.models.record import write_atomically

logger = logging.getLogger(__name__)


@dataclass
class ListingFile:
    """A DigestCache in one JSON file. Only a cache: a missing, damaged or foreign file counts as empty."""

    path: Path
    known: dict[str, tuple[str, str]] = field(default_factory=dict)
    changed: bool = False

    @classmethod
    def load(cls, path: Path) -> "ListingFile":
        """Read the file if it is there and was written by the same version of the decoder."""
        try:
            content = json.loads(path.read_bytes())
            if content["decoder"] != _decoder():
                return cls(path)
            return cls(path, {name: (str(stamp), str(digest)) for name, (stamp, digest) in content["known"].items()})
        except FileNotFoundError:
            return cls(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("%s is not usable (%s: %s); reading all pictures again", path, type(error).__name__, error)
            return cls(path)

    def get(self, name: str, stamp: str) -> str | None:
        """The digest of picture `name`, if it was stored with this stamp."""
        found = self.known.get(name)
        return found[1] if found is not None and found[0] == stamp else None

    def put(self, name: str, stamp: str, digest: str) -> None:
        """Store a digest."""
        self.known[name] = (stamp, digest)
        self.changed = True

    def save(self) -> None:
        """Write atomically, if something was added."""
        if self.changed:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, json.dumps({"decoder": _decoder(), "known": self.known}).encode())


def _decoder() -> str:
    return f"pillow {PIL.__version__}, digest {DIGEST_VERSION}"
