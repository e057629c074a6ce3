"""The ledger's entries as a chain: each hash covers the entry and the hash of the one before. Pure."""

import hashlib
import hmac
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sluice.core.canonical import canonical_json

GENESIS = "0" * 64
"""The head of an empty chain."""
_UNREADABLE = "unreadable"
"""Key under which the text of details that are no object of plain JSON is listed."""


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


def entry_hash(model: str, sequence: int, entry: Entry, previous_hash: str, key: bytes | None) -> str:
    """Return the HMAC-SHA256 hex of the canonical JSON of the entry, its place and the previous hash.

    Without a key it is the sha256, as in ledgers of earlier versions.
    """
    fields = {name: getattr(entry, name) for name in ("time", "action", "version", "actor", "reason")}
    fields["details"] = dict(entry.details)
    body = canonical_json({"model": model, "sequence": sequence, "previous_hash": previous_hash, **fields})
    return hmac.digest(key, body, "sha256").hex() if key else hashlib.sha256(body).hexdigest()


def walk(
    model: str, rows: Iterable[Mapping[str, Any]], sequence: int, head: str, key: bytes | None
) -> tuple[list[RecordedEntry], str]:
    """Return the entries that follow entry `sequence`, whose hash is `head`, up to the first fault, and that fault."""
    entries: list[RecordedEntry] = []
    for expected, row in enumerate(rows, start=sequence + 1):
        if fault := _fault(model, expected, row, head, key):
            return entries, fault
        entries.append(to_entry(row))
        head = row["hash"]
    return entries, ""


def _fault(model: str, expected: int, row: Mapping[str, Any], previous: str, key: bytes | None) -> str:
    """Return the fault of `row` as entry `expected` after the hash `previous`; empty if there is none."""
    if row["sequence"] != expected:
        return f"entry {expected} is missing"
    if row["previous_hash"] != previous:
        return f"entry {expected} does not follow the entry before it"
    entry = to_entry(row)
    if _UNREADABLE in entry.details or canonical_json(dict(entry.details)).decode() != row["details"]:
        return f"the details of entry {expected} are not as they were written"
    try:
        if hmac.compare_digest(entry_hash(model, expected, entry, previous, key), row["hash"]):
            return ""
        if key and entry_hash(model, expected, entry, previous, None) == row["hash"]:
            return f"entry {expected} was written without the key, as earlier versions did"
    except (ValueError, TypeError):
        pass
    return f"the hash of entry {expected} does not match its content and the key"


def fault_alone(model: str, row: Mapping[str, Any], key: bytes | None) -> str:
    """Return the fault of a row by its own hash, whatever the rows before it are; empty if there is none."""
    return _fault(model, row["sequence"], row, row["previous_hash"], key)


def to_entry(row: Mapping[str, Any]) -> RecordedEntry:
    """Return the entry of a row, verified or not."""
    fields = {name: value for name, value in row.items() if name not in ("model", "details")}
    try:
        details = json.loads(row["details"])
        canonical_json(details)
    except (ValueError, TypeError, RecursionError):
        details = None
    return RecordedEntry(**fields, details=details if isinstance(details, dict) else {_UNREADABLE: row["details"]})


def readable(rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Return the entries 1, 2, 3, .. up to the first that is missing or cannot be read, and so cannot be hashed."""
    found: list[Entry] = []
    for row in rows:
        entry = to_entry(row)
        try:
            entry_hash("", entry.sequence, entry, GENESIS, None)
            is_dated = math.isfinite(entry.time)
        except (ValueError, TypeError):
            break
        if entry.sequence != len(found) + 1 or _UNREADABLE in entry.details or not is_dated:
            break
        found.append(entry)
    return found


def chained(model: str, entries: Iterable[Entry], key: bytes) -> list[dict[str, Any]]:
    """Return the rows of a chain of `entries` from the start."""
    rows, head = [], GENESIS
    for sequence, entry in enumerate(entries, start=1):
        rows.append(to_row(model, sequence, entry, head, key))
        head = rows[-1]["hash"]
    return rows


def to_row(model: str, sequence: int, entry: Entry, previous_hash: str, key: bytes) -> dict[str, Any]:
    """Return the row of an entry at its place in the chain."""
    fields = {name: getattr(entry, name) for name in ("time", "action", "version", "actor", "reason")}
    return {
        **fields,
        "model": model,
        "sequence": sequence,
        "details": canonical_json(dict(entry.details)).decode(),
        "previous_hash": previous_hash,
        "hash": entry_hash(model, sequence, entry, previous_hash, key),
    }
