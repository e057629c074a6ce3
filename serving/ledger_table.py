"""The ledger's table, in SQLite or PostgreSQL, and the triggers that refuse changes of its rows."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
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
_SETUP_LOCK = 0x51_01CE
"""Key of the PostgreSQL advisory lock under which the table and its triggers are created."""

_METADATA = sa.MetaData()
TABLE = sa.Table(
    "sluice_ledger",
    _METADATA,
    sa.Column("model", sa.String(256), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(256), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)

_GUARDS = {
    "sqlite": (
        *(
            f"CREATE TRIGGER IF NOT EXISTS sluice_ledger_no_{verb} BEFORE {verb} ON sluice_ledger "
            "BEGIN SELECT RAISE(ABORT, 'sluice_ledger is append-only'); END"
            for verb in ("UPDATE", "DELETE")
        ),
        # INSERT OR REPLACE deletes the earlier row without the trigger above.
        "CREATE TRIGGER IF NOT EXISTS sluice_ledger_no_REPLACE BEFORE INSERT ON sluice_ledger WHEN EXISTS "
        "(SELECT 1 FROM sluice_ledger WHERE model = NEW.model AND sequence = NEW.sequence) "
        "BEGIN SELECT RAISE(ABORT, 'sluice_ledger is append-only'); END",
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION sluice_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'sluice_ledger is append-only'; END $$",
        "CREATE OR REPLACE TRIGGER sluice_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sluice_ledger "
        "FOR EACH STATEMENT EXECUTE FUNCTION sluice_ledger_refuse()",
    ),
}
_BEGIN_REWRITING = {
    "sqlite": (
        "BEGIN IMMEDIATE",
        *(f"DROP TRIGGER IF EXISTS sluice_ledger_no_{verb}" for verb in ("UPDATE", "DELETE", "REPLACE")),
    ),
    "postgresql": (
        # Before the table, as its creation does, so that neither waits for the other.
        f"SELECT pg_advisory_xact_lock({_SETUP_LOCK})",
        "LOCK TABLE sluice_ledger IN ACCESS EXCLUSIVE MODE",
        "DROP TRIGGER IF EXISTS sluice_ledger_append_only ON sluice_ledger",
    ),
}


class DatabaseFailed(Failure):
    """The database does not answer, or is damaged, full or read-only."""


class LedgerTable:
    """The table in the database at `url`; it is created if there is none.

    Keeps no connection between calls, so it may be used after a fork. Raises ValueError for other databases,
    TimeoutError if the database stays locked for LOCK_TIMEOUT_S, and DatabaseFailed for its other faults.
    """

    def __init__(self, url: str) -> None:
        self._address = sa.make_url(url)
        self._kind = self._address.get_backend_name()
        self._engine = self._connect()
        self._create()

    def place_from(self, folder: Path) -> str:
        """Name of the database; of a SQLite file, its path from `folder`, which is the same where both are moved."""
        if self._kind == "sqlite":
            return os.path.relpath(Path(self._address.database or "").resolve(), folder.resolve())
        return f"{self._address.host}:{self._address.port}/{self._address.database}"

    def rows(self, query: sa.Select) -> list[dict[str, Any]]:
        with self._naming_faults(), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def insert(self, row: Mapping[str, Any]) -> None:
        """Insert a row. Raises sqlalchemy's IntegrityError if its sequence is taken.

        The transaction begins with the write, because SQLite cannot upgrade a reader to a writer once another process
        has written. The primary key decides between concurrent writers.
        """
        with self._naming_faults(), self._engine.begin() as connection:
            connection.execute(sa.insert(TABLE).values(dict(row)))

    @contextmanager
    def rewriting(self) -> Iterator[sa.Connection]:
        """A transaction that excludes all others and may change and delete rows."""
        with self._naming_faults(), self._engine.begin() as connection:
            for statement in _BEGIN_REWRITING[self._kind]:
                connection.exec_driver_sql(statement)
            yield connection
            for guard in _GUARDS[self._kind]:
                connection.exec_driver_sql(guard)

    def _connect(self) -> sa.Engine:
        file = Path(self._address.database or ":memory:")
        if self._kind not in ("sqlite", "postgresql"):
            raise ValueError(f"ledger database {self._kind!r} is not supported: use sqlite or postgresql")
        if self._kind == "postgresql":
            options = {"options": f"-c lock_timeout={LOCK_TIMEOUT_S}s", "connect_timeout": LOCK_TIMEOUT_S}
            return sa.create_engine(self._address, poolclass=NullPool, connect_args=options)
        if not file.parent.is_dir() or file.name == ":memory:":
            raise ValueError(
                f"ledger database {file} must be a file in an existing directory: create {file.parent} first"
            )
        return sa.create_engine(self._address, poolclass=NullPool, connect_args={"timeout": LOCK_TIMEOUT_S})

    def _create(self) -> None:
        with self._naming_faults(), self._engine.begin() as connection:
            if self._kind == "sqlite":
                _use_wal(connection)
            elif sa.inspect(connection).has_table(TABLE.name):
                return
            else:
                # CREATE IF NOT EXISTS alone races on PostgreSQL: of two concurrent first users one would get an error.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SETUP_LOCK)))
            connection.execute(CreateTable(TABLE, if_not_exists=True))
            for guard in _GUARDS[self._kind]:
                connection.exec_driver_sql(guard)

    @contextmanager
    def _naming_faults(self) -> Iterator[None]:
        """Turn the drivers' errors into one line that names the database; a taken sequence goes through."""
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
                self._kind == "sqlite"
                and shutil.disk_usage(Path(self._address.database or "").parent).free < _FULL_BYTES
            ):
                reason += " (its disk is full)"
            way_out = "docs/operations.md has the ways out"
            raise DatabaseFailed(f"the database {place} cannot be used: {reason}; {way_out}") from error


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
