"""The ledger's table, in SQLite or PostgreSQL, and the triggers that refuse changes of its rows."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from sluice.serving.database import SETUP_LOCK, Database, run_all

MAX_ACTOR = 256
"""Most characters of an actor."""
_METADATA = sa.MetaData()
TABLE = sa.Table(
    "sluice_ledger",
    _METADATA,
    sa.Column("model", sa.String(256), primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("version", sa.String(64), nullable=False),
    sa.Column("actor", sa.String(MAX_ACTOR), nullable=False),
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
        f"SELECT pg_advisory_xact_lock({SETUP_LOCK})",
        "LOCK TABLE sluice_ledger IN ACCESS EXCLUSIVE MODE",
        "DROP TRIGGER IF EXISTS sluice_ledger_append_only ON sluice_ledger",
    ),
}


class LedgerTable(Database):
    """The table in the database at `url`; it is created if there is none."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.create(TABLE, lambda connection: run_all(connection, _GUARDS[self.kind]))

    def insert(self, row: Mapping[str, Any]) -> None:
        """Insert a row. Raises sqlalchemy's IntegrityError if its sequence is taken.

        The primary key decides between concurrent writers.
        """
        with self.writing() as connection:
            connection.execute(sa.insert(TABLE).values(dict(row)))

    @contextmanager
    def rewriting(self) -> Iterator[sa.Connection]:
        """A transaction that excludes all others and may change and delete rows."""
        with self.writing() as connection:
            run_all(connection, _BEGIN_REWRITING[self.kind])
            yield connection
            run_all(connection, _GUARDS[self.kind])
