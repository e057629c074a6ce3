"""The release ledger: an append-only, hash-chained table beside MLflow's tables, both lock and history.

MLflow's aliases are last-write-wins and keep no history, so the ledger decides what serves and the aliases follow. A
chain belongs to one registered model, and the sequence 1, 2, 3, .. is its primary key. The first writer to insert the
next sequence wins (compare-and-swap), all others get `LedgerConflict`. Each row's sha256 covers the hash of the
previous row, so an edited, removed or reordered row breaks the chain at that place. Works on SQLite and PostgreSQL.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from sluice.core.canonical import canonical_json

GENESIS = "0" * 64
"""The head of an empty chain."""
LOCK_TIMEOUT_S = 30
_SETUP_LOCK = 0x51_01CE
"""Key of the PostgreSQL advisory lock under which the table is created."""

_METADATA = sa.MetaData()
_TABLE = sa.Table(
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

_SQLITE_GUARDS = [
    f"CREATE TRIGGER IF NOT EXISTS sluice_ledger_no_{verb} BEFORE {verb} ON sluice_ledger "
    "BEGIN SELECT RAISE(ABORT, 'sluice_ledger is append-only'); END"
    for verb in ("UPDATE", "DELETE")
] + [
    # INSERT OR REPLACE deletes the earlier row without the trigger above.
    "CREATE TRIGGER IF NOT EXISTS sluice_ledger_no_REPLACE BEFORE INSERT ON sluice_ledger WHEN EXISTS "
    "(SELECT 1 FROM sluice_ledger WHERE model = NEW.model AND sequence = NEW.sequence) "
    "BEGIN SELECT RAISE(ABORT, 'sluice_ledger is append-only'); END"
]
_POSTGRESQL_GUARDS = [
    "CREATE OR REPLACE FUNCTION sluice_ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'sluice_ledger is append-only'; END $$",
    "CREATE OR REPLACE TRIGGER sluice_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sluice_ledger "
    "FOR EACH STATEMENT EXECUTE FUNCTION sluice_ledger_refuse()",
]


class LedgerConflict(RuntimeError):
    """Another writer appended first: read the state and decide again."""


class LedgerBroken(ValueError):
    """The chain is not as it was written; the message names the entry and the next step."""


@dataclass(frozen=True)
class Entry:
    """One change of a release."""

    time: float
    """Seconds since the epoch."""
    action: str
    version: str
    """Model version that the change is about."""
    actor: str
    reason: str
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further plain JSON values."""


@dataclass(frozen=True)
class RecordedEntry(Entry):
    """An entry with its place in the chain."""

    sequence: int = 0
    previous_hash: str = GENESIS
    hash: str = GENESIS


@dataclass(frozen=True)
class LedgerCheck:
    """Result of verifying the chain; if it is broken, the first broken entry and the reason."""

    ok: bool
    entries: int
    broken_at: int | None = None
    reason: str = "every hash matches"


def entry_hash(model: str, sequence: int, entry: Entry, previous_hash: str) -> str:
    """Return the sha256 hex of the canonical JSON of the entry, its place and the previous hash."""
    fields = {name: getattr(entry, name) for name in ("time", "action", "version", "actor", "reason")}
    fields["details"] = dict(entry.details)
    body = {"model": model, "sequence": sequence, "previous_hash": previous_hash, **fields}
    return hashlib.sha256(canonical_json(body)).hexdigest()


class Ledger:
    """Chain of one registered model in the database at `url` (SQLAlchemy URL, `sqlite:///..` or `postgresql://..`).

    Keeps no connection between calls, so it may be used after a fork. Raises ValueError for other databases, and
    TimeoutError if the database stays locked for LOCK_TIMEOUT_S.
    """

    def __init__(self, url: str, model: str = "sluice") -> None:
        self.url, self.model = url, model
        self._engine = _engine(url)
        with _bounded(url):
            _create_table(self._engine)

    def append(self, entry: Entry, *, expected_head: str) -> RecordedEntry:
        """Append `entry` after the row whose hash is `expected_head` (GENESIS in an empty ledger).

        Raises LedgerConflict if the head has changed, and ValueError if the entry is not plain JSON.
        """
        last = self.last()
        sequence, head = (last.sequence, last.hash) if last else (0, GENESIS)
        if head != expected_head:
            raise LedgerConflict(f"the ledger of {self.model} has moved on to entry {sequence}")
        sequence += 1
        row = {**asdict(entry), "details": canonical_json(dict(entry.details)).decode()}
        row |= {"model": self.model, "sequence": sequence, "previous_hash": head}
        row["hash"] = entry_hash(self.model, sequence, entry, head)
        try:
            # A transaction that begins with the write, because SQLite cannot upgrade a reader to a writer once another
            # process has written. The primary key decides between concurrent writers.
            with _bounded(self.url), self._engine.begin() as connection:
                connection.execute(sa.insert(_TABLE).values(row))
        except IntegrityError as error:
            raise LedgerConflict(f"another writer took entry {sequence} of {self.model} first") from error
        return _recorded(row)

    def last(self) -> RecordedEntry | None:
        """Return the newest entry."""
        rows = self._rows(sa.select(_TABLE).order_by(_TABLE.c.sequence.desc()).limit(1))
        return _recorded(rows[0]) if rows else None

    def history(self) -> list[RecordedEntry]:
        """Return all entries, oldest first."""
        return [_recorded(row) for row in self._rows(sa.select(_TABLE).order_by(_TABLE.c.sequence))]

    def follow(self, sequence: int = 0, head: str = GENESIS) -> list[RecordedEntry]:
        """Return the entries after number `sequence`, whose hash was `head`, each verified to follow the one before.

        Raises LedgerBroken where one does not, or where entry `sequence` itself has changed or is gone.
        """
        query = sa.select(_TABLE).where(_TABLE.c.sequence >= sequence).order_by(_TABLE.c.sequence)
        rows = self._rows(query)
        if sequence:
            known, rows = rows[:1], rows[1:]
            if not known or (known[0]["sequence"], known[0]["hash"]) != (sequence, head):
                raise LedgerBroken(self._broken(sequence, f"entry {sequence} was changed or removed"))
        for expected, row in enumerate(rows, start=sequence + 1):
            if wrong := _fault(self.model, expected, row, head):
                raise LedgerBroken(self._broken(expected, wrong))
            head = row["hash"]
        return [_recorded(row) for row in rows]

    def _broken(self, sequence: int, reason: str) -> str:
        return f"the ledger of {self.model} is broken at entry {sequence}: {reason}; restore the database from a backup"

    def verify(self, anchor: tuple[int, str] | None = None) -> LedgerCheck:
        """Check every entry of the chain.

        A chain that was cut off at its end is still consistent: only `anchor`, a (sequence, hash) noted outside of the
        ledger, reveals that.
        """
        rows = self._rows(sa.select(_TABLE).order_by(_TABLE.c.sequence))
        previous = GENESIS
        for expected, row in enumerate(rows, start=1):
            wrong = _fault(self.model, expected, row, previous)
            if not wrong and anchor and anchor[0] == expected and anchor[1] != row["hash"]:
                wrong = f"entry {expected} has another hash than the one noted outside the ledger"
            if wrong:
                return LedgerCheck(False, len(rows), expected, wrong)
            previous = row["hash"]
        if anchor and anchor[0] > len(rows):
            return LedgerCheck(
                False, len(rows), len(rows) + 1, f"entries up to {anchor[0]} were noted outside the ledger"
            )
        return LedgerCheck(True, len(rows))

    def _rows(self, query: sa.Select) -> list[dict[str, Any]]:
        with _bounded(self.url), self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query.where(_TABLE.c.model == self.model)).mappings()]


def ledger_models(url: str) -> list[str]:
    """Return the registered models that have a ledger in the database."""
    with _bounded(url), _engine(url).connect() as connection:
        if not sa.inspect(connection).has_table(_TABLE.name):
            return []
        return list(connection.execute(sa.select(_TABLE.c.model).distinct().order_by(_TABLE.c.model)).scalars())


def _fault(model: str, expected: int, row: Mapping[str, Any], previous: str) -> str:
    """Return the fault of `row` as entry `expected` after the hash `previous`; empty if there is none."""
    if row["sequence"] != expected:
        return f"entry {expected} is missing"
    if row["previous_hash"] != previous:
        return f"entry {expected} does not follow the entry before it"
    try:
        entry = _recorded(row)
        if canonical_json(dict(entry.details)).decode() != row["details"]:
            return f"the details of entry {expected} are not as they were written"
        computed = entry_hash(model, expected, entry, previous)
    except (ValueError, TypeError):
        return f"the details of entry {expected} cannot be read"
    return "" if computed == row["hash"] else f"the hash of entry {expected} does not match its content"


def _recorded(row: Mapping[str, Any]) -> RecordedEntry:
    fields = {name: value for name, value in row.items() if name not in ("model", "details")}
    return RecordedEntry(**fields, details=json.loads(row["details"]))


def _engine(url: str) -> sa.Engine:
    address = sa.make_url(url)
    kind, file = address.get_backend_name(), Path(address.database or ":memory:")
    if kind not in ("sqlite", "postgresql"):
        raise ValueError(f"ledger database {kind!r} is not supported: use sqlite or postgresql")
    if kind == "postgresql":
        options = {"options": f"-c lock_timeout={LOCK_TIMEOUT_S}s", "connect_timeout": LOCK_TIMEOUT_S}
        return sa.create_engine(address, poolclass=NullPool, connect_args=options)
    if not file.parent.is_dir() or file.name == ":memory:":
        raise ValueError(f"ledger database {file} must be a file in an existing directory: create {file.parent} first")
    return sa.create_engine(address, poolclass=NullPool, connect_args={"timeout": LOCK_TIMEOUT_S})


def _create_table(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            # WAL lets readers continue while one process writes. The mode is stored in the file, so MLflow uses it too.
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        elif sa.inspect(connection).has_table(_TABLE.name):
            return
        else:
            # CREATE IF NOT EXISTS alone races on PostgreSQL: of two concurrent first users one would get an error.
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SETUP_LOCK)))
        connection.execute(CreateTable(_TABLE, if_not_exists=True))
        for guard in _SQLITE_GUARDS if engine.dialect.name == "sqlite" else _POSTGRESQL_GUARDS:
            connection.exec_driver_sql(guard)


@contextmanager
def _bounded(url: str) -> Iterator[None]:
    """Turn the drivers' lock timeouts into a TimeoutError that names the database."""
    try:
        yield
    except OperationalError as error:
        if "locked" not in str(error) and "lock timeout" not in str(error):
            raise
        place = sa.make_url(url).render_as_string(hide_password=True)
        raise TimeoutError(f"the ledger in {place} stayed locked for {LOCK_TIMEOUT_S} s") from error
