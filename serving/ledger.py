"""The release ledger: an append-only, hash-chained table beside MLflow's tables, both lock and history.

MLflow's aliases are last-write-wins and keep no history, so the ledger decides what serves and the aliases follow. A
chain belongs to one registered model, and the sequence 1, 2, 3, .. is its primary key. The first writer to insert the
next sequence wins (compare-and-swap), all others get `LedgerConflict`. Each row's hash (HMAC-SHA256, RFC 2104) covers
that of the previous row, so a forged, edited, removed or reordered row breaks the chain at that place; the anchor of
`LedgerTrust` reveals a chain that was cut at its end. Works on SQLite and PostgreSQL.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sluice.core.files import create_private
from sluice.serving.ledger_chain import (
    GENESIS,
    Entry,
    RecordedEntry,
    chained,
    fault_alone,
    readable,
    to_entry,
    to_row,
    walk,
)
from sluice.serving.ledger_table import TABLE, LedgerTable
from sluice.serving.ledger_trust import KEY_VARIABLE, Head, LedgerTrust

CHUNK = 10_000
"""Entries that are read and verified at a time."""


class LedgerConflict(RuntimeError):
    """Another writer appended first: read the state and decide again."""


class LedgerBroken(ValueError):
    """The chain is not as it was written; the message names the entry and the commands that lead out."""


@dataclass(frozen=True)
class LedgerCheck:
    """Result of verifying the chain; if it is broken, the first broken entry and the reason."""

    entries: int
    broken_at: int | None = None
    reason: str = "every hash matches"
    keep: int = 0
    """Number of entries that a repair would keep."""

    @property
    def ok(self) -> bool:
        return self.broken_at is None

    @property
    def message(self) -> str:
        """The fault of a chain, and the commands that repair it."""
        if self.ok:
            return self.reason
        kept = f"keep entries 1 to {self.keep} as `sluice history` lists them" if self.keep else "begin a new history"
        return (
            f"broken at entry {self.broken_at}: {self.reason}. Restore what was lost from a backup, or {kept}: "
            f'`sluice history --repair {self.keep} --reason "WHY"`'
        )


class Ledger:
    """Chain of one registered model in the database at `url` (SQLAlchemy URL, `sqlite:///..` or `postgresql://..`).

    A database that has no key yet gets one from `trust`, and entries of earlier versions their keyed hashes. Keeps no
    connection between calls, so it may be used after a fork. Raises ValueError for other databases, and TimeoutError if
    the database stays locked for LOCK_TIMEOUT_S.
    """

    def __init__(self, url: str, model: str, trust: LedgerTrust) -> None:
        self.url, self.model, self.trust = url, model, trust
        self._table = LedgerTable(url)
        self._chain = f"{model}-{hashlib.sha256(self._table.place_from(trust.folder).encode()).hexdigest()[:8]}"
        """File name of the chain's anchor."""
        if trust.key() is None:
            self._make_key()

    def append(self, entry: Entry, *, expected_head: str) -> RecordedEntry:
        """Append `entry` after the row whose hash is `expected_head` (GENESIS in an empty ledger).

        Raises LedgerConflict if the head has changed, and ValueError if the entry is not plain JSON.
        """
        last = self.last()
        sequence, head = (last.sequence, last.hash) if last else (0, GENESIS)
        if head != expected_head:
            raise LedgerConflict(f"the ledger of {self.model} has moved on to entry {sequence}")
        key = self.trust.key()
        if key is None:
            raise LedgerBroken(f"the ledger of {self.model} is {self.verify().message}")
        sequence += 1
        row = to_row(self.model, sequence, entry, head, key)
        try:
            self._table.insert(row)
        except IntegrityError as error:
            raise LedgerConflict(f"another writer took entry {sequence} of {self.model} first") from error
        self.trust.note(self._chain, Head(sequence, row["hash"]))
        return to_entry(row)

    def last(self) -> RecordedEntry | None:
        """Return the newest entry."""
        rows = self._rows(sa.select(TABLE).order_by(TABLE.c.sequence.desc()).limit(1))
        return to_entry(rows[0]) if rows else None

    def newest(self, count: int) -> list[RecordedEntry]:
        """Return the last `count` entries as they are listed, oldest first, verified or not."""
        rows = self._rows(sa.select(TABLE).order_by(TABLE.c.sequence.desc()).limit(count))
        return [to_entry(row) for row in reversed(rows)]

    def history(self) -> list[RecordedEntry]:
        """Return all entries as they are listed, oldest first, verified or not."""
        return [to_entry(row) for row in self._rows(sa.select(TABLE).order_by(TABLE.c.sequence))]

    def find(self, action: str, version: str) -> RecordedEntry | None:
        """Return the newest entry of an action on a version. Raises LedgerBroken if its own hash does not match."""
        wanted = sa.select(TABLE).where(TABLE.c.action == action, TABLE.c.version == version)
        rows = self._rows(wanted.order_by(TABLE.c.sequence.desc()).limit(1))
        if not rows:
            return None
        if fault_alone(self.model, rows[0], self.trust.key()):
            raise LedgerBroken(f"the ledger of {self.model} is {self.verify().message}")
        return to_entry(rows[0])

    def verify(self, noted: Head | None = None) -> LedgerCheck:
        """Check every entry of the chain, and that its end was not cut off; `noted` as for `read`."""
        after, head = 0, GENESIS
        while True:
            entries, check = self.read(after, head, most=CHUNK, noted=noted)
            if not check.ok or len(entries) < CHUNK:
                return check
            after, head = entries[-1].sequence, entries[-1].hash

    def read(
        self, after: int = 0, head: str = GENESIS, *, most: int | None = None, noted: Head | None = None
    ) -> tuple[list[RecordedEntry], LedgerCheck]:
        """Return the entries after number `after`, whose hash was `head`, up to the first broken one, and the check.

        Returns the first `most` of them; the chain has no further ones where they are fewer. `noted` is the newest
        entry that the registry has noted, read before this call.
        """
        anchor, unreadable = None, ""
        try:
            # Before the rows: a writer notes an entry after it has been inserted, so a noted entry is among the rows.
            anchor = self.trust.anchor(self._chain)
        except ValueError as error:
            unreadable = f"{error}, so nobody would see that the chain was cut off there"
        key = self.trust.key()
        query = sa.select(TABLE).where(TABLE.c.sequence >= after).order_by(TABLE.c.sequence)
        rows = self._rows(query if most is None else query.limit(most + (after > 0)))
        new = rows[1:] if after else rows
        is_end = most is None or len(new) < most
        size = (rows[-1]["sequence"] if rows else 0) if is_end else self._size()
        if rows and key is None:
            reason = f"the key of its hashes is gone, as there is neither {self.trust.key_file} nor {KEY_VARIABLE}"
            return [], LedgerCheck(size, after + 1, reason, keep=size)
        if after and (not rows or (rows[0]["sequence"], rows[0]["hash"]) != (after, head)):
            return [], LedgerCheck(size, after, f"entry {after} was changed or removed", keep=after - 1)
        entries, fault = walk(self.model, new, after, head, key)
        last = after + len(entries)
        if fault or (unreadable and is_end):
            without_key = [] if last else walk(self.model, self._rows(query), 0, GENESIS, None)[0]
            return entries, LedgerCheck(size, last + 1, fault or unreadable, keep=last or len(without_key))
        hashes = [head, *(entry.hash for entry in entries)]
        for note, place in ((anchor, self.trust.anchor_file(self._chain)), (noted, "the registry")):
            if note is not None and is_end and note.sequence > last:
                reason = f"the chain was cut off: {place} notes entry {note.sequence}"
                return entries, LedgerCheck(size, last + 1, reason, keep=last)
            if note is not None and after <= note.sequence <= last and hashes[note.sequence - after] != note.hash:
                reason = f"it is not the entry that {place} notes"
                return entries, LedgerCheck(size, note.sequence, reason, keep=note.sequence - 1)
        if entries and is_end and last > (anchor.sequence if anchor else 0):
            self.trust.note(self._chain, Head(last, entries[-1].hash))
        return entries, LedgerCheck(size)

    def checkpoint(self) -> dict[str, Any] | None:
        """Return what was last noted beside the anchor, to go on from there; None if it is not by the key."""
        return self.trust.checkpoint(self._chain)

    def note_checkpoint(self, content: Mapping[str, Any]) -> None:
        """Note plain JSON values beside the anchor. A checkpoint only saves reading: no error if it cannot be kept."""
        with suppress(OSError):
            self.trust.note_checkpoint(self._chain, content)

    def repair(self, keep: int, entry: Entry, *, noted: Head | None = None) -> RecordedEntry:
        """Keep entries 1 to `keep` of a broken chain as they are listed, set its rows aside and append `entry`.

        All rows are kept in a file beside the key, named in the entry's details. Raises ValueError if the chain is
        whole, or the entries to keep cannot be read. `noted` as for `read`.
        """
        check = self.verify(noted)
        if check.ok:
            raise ValueError(f"the ledger of {self.model} is whole: there is nothing to repair")
        key = self.trust.key() or self.trust.make_key()
        with self._table.rewriting() as connection:
            whole = sa.select(TABLE).where(TABLE.c.model == self.model).order_by(TABLE.c.sequence)
            rows = [dict(row) for row in connection.execute(whole).mappings()]
            kept = readable(rows)
            if not 0 <= keep <= len(kept):
                raise ValueError(f"cannot keep entries 1 to {keep}: choose a number from 0 to {len(kept)}")
            aside = json.dumps(rows, indent=1, default=repr).encode()
            sha256 = hashlib.sha256(aside).hexdigest()
            file = self.trust.folder / f"{self._chain}-{sha256[:8]}-aside.json"
            self.trust.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            create_private(file, aside)
            details = {"kept": keep, "of": len(rows), "broken": check.reason, "rows": file.name, "rows_sha256": sha256}
            chain = chained(self.model, [*kept[:keep], replace(entry, details=details)], key)
            connection.execute(sa.delete(TABLE).where(TABLE.c.model == self.model))
            connection.execute(sa.insert(TABLE), chain)
        repaired = to_entry(chain[-1])
        self.trust.note(self._chain, Head(repaired.sequence, repaired.hash))
        return repaired

    def _make_key(self) -> None:
        """Make the first key; every chain of an earlier version gets keyed hashes, unless it is broken."""
        with self._table.rewriting() as connection:
            every = sa.select(TABLE).order_by(TABLE.c.model, TABLE.c.sequence)
            rows = [dict(row) for row in connection.execute(every).mappings()]
            chains = {model: list(chain) for model, chain in groupby(rows, key=lambda row: row["model"])}
            plain = {model: chain for model, chain in chains.items() if not walk(model, chain, 0, GENESIS, None)[1]}
            if self.model in chains.keys() - plain.keys():
                # Written with a key that is gone, or changed: a new key would hide that.
                return
            key = self.trust.make_key()
            for model, chain in plain.items():
                connection.execute(sa.delete(TABLE).where(TABLE.c.model == model))
                connection.execute(sa.insert(TABLE), chained(model, readable(chain), key))

    def _size(self) -> int:
        last = self.last()
        return last.sequence if last else 0

    def _rows(self, query: sa.Select) -> list[dict[str, Any]]:
        return self._table.rows(query.where(TABLE.c.model == self.model))


def ledger_models(url: str) -> list[str]:
    """Return the registered models that have a ledger in the database."""
    query = sa.select(TABLE.c.model).distinct().order_by(TABLE.c.model)
    return [row["model"] for row in LedgerTable(url).rows(query)]
