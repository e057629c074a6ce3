"""The workspace's database, SQLite or PostgreSQL, as the release's own tables use it beside MLflow's."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from sluice.core.failure import Failure

LOCK_TIMEOUT_S = 30
_FULL_BYTES = 2**20
"""SQLite needs some room even to read."""
SETUP_LOCK = 0x51_01CE
"""Key of the PostgreSQL advisory lock under which tables and their triggers are created."""


class DatabaseFailed(Failure):
    """The database does not answer, or is damaged, full or read-only."""


class Database:
    """The database at `url` (`sqlite:///..` or `postgresql://..`).

    Keeps no connection between calls, so it may be used after a fork. Raises ValueError for other databases,
    TimeoutError if the database stays locked for LOCK_TIMEOUT_S, and DatabaseFailed for its other faults.
    """

    def __init__(self, url: str) -> None:
        self._address = sa.make_url(url)
        self.kind = self._address.get_backend_name()
        """sqlite or postgresql."""
        self._engine = self._connect()

    def place_from(self, folder: Path) -> str:
        """Name of the database; of a SQLite file, its path from `folder`, which is the same where both are moved."""
        if self.kind == "sqlite":
            return os.path.relpath(Path(self._address.database or "").resolve(), folder.resolve())
        return f"{self._address.host}:{self._address.port}/{self._address.database}"

    def rows(self, query: sa.Select, table: sa.TableClause | None = None) -> list[dict[str, Any]]:
        """Return the rows that a query selects; none where `table` is given and does not exist."""
        with self._naming_faults(), self._engine.connect() as connection:
            if table is not None and not sa.inspect(connection).has_table(table.name):
                return []
            return [dict(row) for row in connection.execute(query).mappings()]

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction; sqlalchemy's IntegrityError leaves it as it is.

        Begin it with a write: SQLite cannot upgrade a reader to a writer once another process has written.
        """
        with self._naming_faults(), self._engine.begin() as connection:
            yield connection

    def create(self, table: sa.Table, finish: Callable[[sa.Connection], None] = lambda _: None) -> None:
        """Create the table if there is none, then call `finish` in the same transaction."""
        with self.writing() as connection:
            if self.kind == "sqlite":
                _use_wal(connection)
            elif sa.inspect(connection).has_table(table.name):
                return
            else:
                # CREATE IF NOT EXISTS alone races on PostgreSQL: of two concurrent first users one would get an error.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SETUP_LOCK)))
            connection.execute(CreateTable(table, if_not_exists=True))
            finish(connection)

    def _connect(self) -> sa.Engine:
        file = Path(self._address.database or ":memory:")
        if self.kind not in ("sqlite", "postgresql"):
            raise ValueError(f"ledger database {self.kind!r} is not supported: use sqlite or postgresql")
        if self.kind == "postgresql":
            options = {"options": f"-c lock_timeout={LOCK_TIMEOUT_S}s", "connect_timeout": LOCK_TIMEOUT_S}
            return sa.create_engine(self._address, poolclass=NullPool, connect_args=options)
        if not file.parent.is_dir() or file.name == ":memory:":
            raise ValueError(
                f"ledger database {file} must be a file in an existing directory: create {file.parent} first"
            )
        return sa.create_engine(self._address, poolclass=NullPool, connect_args={"timeout": LOCK_TIMEOUT_S})

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        """Turn the drivers' errors into one line that names the database; a taken key goes through."""
        try:
            yield
        except IntegrityError:
            raise
        except DatabaseError as error:
            place = self._address.render_as_string(hide_password=True)
            reason = " ".join(str(error.orig).split())
            if "locked" in reason or "lock timeout" in reason:
                raise TimeoutError(f"the ledger in {place} stayed locked for {LOCK_TIMEOUT_S} s") from error
            if (
                self.kind == "sqlite"
                and shutil.disk_usage(Path(self._address.database or "").parent).free < _FULL_BYTES
            ):
                reason += " (its disk is full)"
            way_out = "docs/operations.md has the ways out"
            raise DatabaseFailed(f"the database {place} cannot be used: {reason}; {way_out}") from error


def run_all(connection: sa.Connection, statements: Sequence[str]) -> None:
    """Execute statements of the database's own dialect."""
    for statement in statements:
        connection.exec_driver_sql(statement)


def _use_wal(connection: sa.Connection) -> None:
    """Let readers continue while one process writes. The mode is stored in the file, so MLflow uses it too.

    SQLite does not wait for its busy timeout where two connections change the mode at once: one of them fails at once.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            return
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
