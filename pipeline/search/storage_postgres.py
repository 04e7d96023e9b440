"""Studies in PostgreSQL, for processes of several machines. Locks are the database's advisory locks.

https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS: the server drops a lock when its
connection ends, so each lock has a connection of its own. The numbers of the locks are made from the study's name and
the trial's number.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phonefit.pipeline.errors import RecipeError, StoreError
from phonefit.pipeline.search.storage import Release

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from psycopg import Connection

_STUDY = -1  # in place of a trial's number
_SIGN = 1 << 31
# A machine that lost its power says no goodbye: the server asks after 30 s of silence, and gives up after two minutes.
_KEEPALIVES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=30 -c tcp_keepalives_count=3"
_NUMBERS_HELD = """
    SELECT objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint = %s
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@dataclass(frozen=True)
class PostgresPlace:
    """A database that several machines reach. Studies of recipes of one name in one database are the same study."""

    url: str
    study_name: str

    remedy = "check that the server runs, and the user's rights; what was finished is kept"
    leftovers: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise RecipeError(
                "the PostgreSQL driver is not installed; install it with: pip install 'phonefit[postgres]'"
            ) from None

    @property
    def shown(self) -> str:
        """The URL, which holds no password, and the study."""
        return f"{self.url}, study {self.study_name}"

    def missing(self) -> bool:
        """Only the storage itself can say."""
        return False

    def storage(self) -> "BaseStorage":
        """Optuna's tables, made if missing."""
        from optuna.storages import RDBStorage
        from sqlalchemy import make_url

        url = str(make_url(self.url).set(drivername="postgresql+psycopg"))
        # Asks whether a connection still lives before using it: the server may have been started anew meanwhile.
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the study's lock."""
        with self._connected() as connection:
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (self._class, _STUDY))
            yield

    def claim(self, number: int) -> Release:
        """Hold the trial's lock."""
        with ExitStack() as stack:
            connection = stack.enter_context(self._connected())
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (self._class, number))
            return stack.pop_all().close

    def lost(self, numbers: Sequence[int]) -> list[int]:
        """The trials whose lock nobody holds."""
        if not numbers:
            return []
        with self._connected() as connection:
            rows = connection.execute(_NUMBERS_HELD, (self._class % (1 << 32),)).fetchall()
        alive = {number for (number,) in rows}
        return [number for number in numbers if number not in alive]

    @property
    def _class(self) -> int:
        """The study's half of a lock's number: 32 bits with a sign."""
        return (zlib.crc32(self.study_name.encode()) ^ _SIGN) - _SIGN

    @contextmanager
    def _connected(self) -> Iterator["Connection"]:
        import psycopg

        try:
            connection = psycopg.connect(self.url, autocommit=True, options=_KEEPALIVES, connect_timeout=30)
            with closing(connection):
                yield connection
        except psycopg.Error as error:
            raise StoreError(f"{self.shown}: {str(error).splitlines()[0]}; {self.remedy}") from None
