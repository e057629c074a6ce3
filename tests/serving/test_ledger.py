"""The ledger on both databases, written by several processes, and tampered with."""

import hashlib
import json
import multiprocessing
import shutil
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from release_fixtures import postgresql  # noqa: F401

from sluice.serving.database import DatabaseFailed
from sluice.serving.ledger import Ledger, LedgerBroken, LedgerConflict
from sluice.serving.ledger_chain import GENESIS, Entry, chained, entry_hash
from sluice.serving.ledger_table import LedgerTable
from sluice.serving.ledger_trust import KEY_VARIABLE, Head, LedgerTrust

APPEND_ONLY = "append-only"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mlflow.db'}"
    server_url = request.getfixturevalue("postgresql")
    with sa.create_engine(server_url).begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS sluice_ledger")
    return server_url


@pytest.fixture
def trust(tmp_path: Path) -> LedgerTrust:
    return LedgerTrust(tmp_path / "ledger")


@pytest.fixture
def ledger(url: str, trust: LedgerTrust) -> Ledger:
    return Ledger(url, "sluice", trust)


def entry(version: str = "1", action: str = "propose", **details: object) -> Entry:
    return Entry(
        time=1_700_000_000.25, action=action, version=version, actor="test", reason="it is so", details=details
    )


def opened(url: str, trust: LedgerTrust, model: str = "sluice") -> Ledger:
    return Ledger(url, model, trust)


def fill(ledger: Ledger, count: int) -> list[str]:
    heads = [GENESIS]
    for number in range(1, count + 1):
        heads.append(ledger.append(entry(str(number), percent=number), expected_head=heads[-1]).hash)
    return heads


def tamper(url: str, *statements: str) -> None:
    """Change rows as somebody with all rights on the database can, once the guards are removed."""
    with sa.create_engine(url).begin() as connection:
        if url.startswith("sqlite"):
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS sluice_ledger_no_UPDATE")
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS sluice_ledger_no_DELETE")
        else:
            connection.exec_driver_sql("DROP TRIGGER IF EXISTS sluice_ledger_append_only ON sluice_ledger")
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_entries_come_back_as_they_were_written(ledger: Ledger, url: str, trust: LedgerTrust) -> None:
    written = ledger.append(entry(note="zeichen: é ≠ e", share=0.1, items=[1, None, True]), expected_head=GENESIS)
    assert opened(url, trust).history() == [written]
    assert written.sequence == 1 and written.previous_hash == GENESIS
    assert written.hash == entry_hash("sluice", 1, written, GENESIS, trust.key())
    assert opened(url, trust).last() == written


def test_an_untouched_chain_holds(ledger: Ledger) -> None:
    assert ledger.verify().ok and ledger.verify().entries == 0
    fill(ledger, 5)
    assert ledger.verify().ok and ledger.verify().entries == 5


def test_a_stale_head_conflicts_and_writes_nothing(ledger: Ledger) -> None:
    heads = fill(ledger, 2)
    for stale in heads[:2]:
        with pytest.raises(LedgerConflict):
            ledger.append(entry(), expected_head=stale)
    assert len(ledger.history()) == 2


def test_two_models_have_chains_of_their_own(url: str, trust: LedgerTrust) -> None:
    fill(opened(url, trust, "one"), 2)
    assert opened(url, trust, "two").history() == []
    fill(opened(url, trust, "two"), 1)
    assert opened(url, trust, "one").verify().entries == 2
    assert opened(url, trust, "two").verify().ok


@pytest.mark.parametrize("statement", ["UPDATE sluice_ledger SET reason = 'better'", "DELETE FROM sluice_ledger"])
def test_the_database_refuses_changes(ledger: Ledger, url: str, statement: str) -> None:
    fill(ledger, 2)
    with pytest.raises(sa.exc.DBAPIError, match=APPEND_ONLY), sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql(statement)
    assert ledger.verify().ok and len(ledger.history()) == 2


@pytest.mark.parametrize(
    ("statements", "broken_at"),
    [
        (["UPDATE sluice_ledger SET version = '9' WHERE sequence = 3"], 3),
        (["UPDATE sluice_ledger SET time = time + 1 WHERE sequence = 2"], 2),
        (["UPDATE sluice_ledger SET details = '{\"percent\": 3}' WHERE sequence = 3"], 3),
        (["UPDATE sluice_ledger SET details = 'not json' WHERE sequence = 4"], 4),
        (["DELETE FROM sluice_ledger WHERE sequence = 2"], 2),
        (["DELETE FROM sluice_ledger WHERE sequence = 1"], 1),
        (
            [
                "UPDATE sluice_ledger SET sequence = 99 WHERE sequence = 2",
                "UPDATE sluice_ledger SET sequence = 2 WHERE sequence = 3",
                "UPDATE sluice_ledger SET sequence = 3 WHERE sequence = 99",
            ],
            2,
        ),
    ],
    ids=["edited", "redated", "respelled details", "broken details", "removed", "first removed", "reordered"],
)
def test_tampering_is_found_and_located(ledger: Ledger, url: str, statements: list[str], broken_at: int) -> None:
    fill(ledger, 5)
    tamper(url, *statements)
    check = ledger.verify()
    assert not check.ok and check.broken_at == broken_at
    assert str(broken_at) in check.reason


@pytest.mark.parametrize("key", [None, b"a key that somebody without access to the workspace guesses"])
def test_nobody_without_the_key_can_write_an_entry(ledger: Ledger, url: str, key: bytes | None) -> None:
    heads = fill(ledger, 2)
    forged = entry_hash("sluice", 3, entry("9", percent=3), heads[2], key)
    row = {**chained("sluice", [entry("9", percent=3)], b"k")[0], "sequence": 3, "previous_hash": heads[2]}
    LedgerTable(url).insert({**row, "hash": forged})
    assert ledger.verify().broken_at == 3
    # Not even a whole history.
    tamper(url, "DELETE FROM sluice_ledger")
    LedgerTable(url).insert({**row, "sequence": 1, "previous_hash": GENESIS, "hash": forged})
    assert ledger.verify().broken_at == 1


def test_a_chain_cut_at_its_end_is_seen(ledger: Ledger, url: str, trust: LedgerTrust) -> None:
    heads = fill(ledger, 4)
    tamper(url, "DELETE FROM sluice_ledger WHERE sequence > 2")
    for each in (ledger, opened(url, trust)):
        check = each.verify()
        assert (check.broken_at, check.keep) == (3, 2)
        assert "notes entry 4" in check.message and "sluice history --repair 2" in check.message
        assert each.read(2, heads[2])[1].broken_at == 3
    tamper(url, "DELETE FROM sluice_ledger")
    assert ledger.verify().broken_at == 1


def test_an_entry_in_the_place_of_the_noted_one_is_seen(ledger: Ledger, trust: LedgerTrust) -> None:
    """As after a restored backup of the database, in which releases went on from an earlier entry."""
    fill(ledger, 3)
    (note,) = trust.folder.glob("sluice-*.json")
    kept = note.read_text()
    ledger.append(entry("other"), expected_head=ledger.history()[-1].hash)
    note.write_text(kept.replace(ledger.history()[2].hash, "f" * 64))
    assert ledger.verify().broken_at == 3
    note.write_text("{")
    check = ledger.verify()
    assert (check.broken_at, check.keep) == (5, 4) and str(note) in check.reason


def append_at(url: str, trust: LedgerTrust, head: str, writer: int, start: Callable[[], object]) -> str:
    """One of many writers that believe the same head, all let loose at once."""
    start()
    try:
        return opened(url, trust).append(entry(str(writer)), expected_head=head).version
    except LedgerConflict:
        return ""


def test_of_many_threads_with_the_same_head_exactly_one_wins(url: str, trust: LedgerTrust) -> None:
    head, start = fill(opened(url, trust), 1)[-1], threading.Barrier(8, timeout=300)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda writer: append_at(url, trust, head, writer, start.wait), range(8)))
    winners = [version for version in won if version]
    assert [each.version for each in opened(url, trust).history()[1:]] == winners and len(winners) == 1


@pytest.mark.process
def test_of_many_processes_with_the_same_head_exactly_one_wins(url: str, trust: LedgerTrust) -> None:
    # Neither table nor key exists yet: the processes race for them, too.
    context = multiprocessing.get_context("fork")
    start, won = context.Barrier(4, timeout=300), context.SimpleQueue()
    writers = [
        context.Process(
            target=lambda writer: won.put(append_at(url, trust, GENESIS, writer, start.wait)), args=(writer,)
        )
        for writer in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=600)
    assert [writer.exitcode for writer in writers] == [0] * 4
    winners = [version for version in (won.get() for _ in writers) if version]
    assert [each.version for each in opened(url, trust).history()] == winners and len(winners) == 1


def test_every_append_that_tries_again_gets_its_place(url: str, trust: LedgerTrust) -> None:
    def persist(writer: int) -> None:
        ledger = opened(url, trust)
        for number in range(5):
            while True:
                last = ledger.last()
                try:
                    ledger.append(entry(f"{writer}.{number}"), expected_head=last.hash if last else GENESIS)
                    break
                except LedgerConflict:
                    continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(persist, range(4)))
    check = opened(url, trust).verify()
    assert check.ok and check.entries == 20
    versions = [each.version for each in opened(url, trust).history()]
    assert sorted(versions) == sorted(f"{writer}.{number}" for writer in range(4) for number in range(5))


def test_a_value_that_json_does_not_know_is_refused_and_not_written(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        ledger.append(entry(error_rate=float("nan")), expected_head=GENESIS)
    assert ledger.history() == []


def test_another_database_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mysql"):
        LedgerTable("mysql://somewhere/db")
    with pytest.raises(ValueError, match="existing directory"):
        LedgerTable(f"sqlite:///{tmp_path / 'missing' / 'mlflow.db'}")
    with pytest.raises(ValueError, match="must be a file"):
        LedgerTable("sqlite://")


@pytest.fixture
def on_sqlite(tmp_path: Path, trust: LedgerTrust) -> Ledger:
    return opened(f"sqlite:///{tmp_path / 'mlflow.db'}", trust)


def test_a_locked_database_is_a_bounded_wait(
    tmp_path: Path, trust: LedgerTrust, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.serving.database.LOCK_TIMEOUT_S", 0.05)
    ledger = opened(f"sqlite:///{tmp_path / 'mlflow.db'}", trust)
    with sa.create_engine(ledger.url).connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert ledger.history() == []
        with pytest.raises(TimeoutError, match="locked for"):
            ledger.append(entry(), expected_head=GENESIS)


def test_a_row_cannot_be_replaced(on_sqlite: Ledger) -> None:
    fill(on_sqlite, 2)
    with (
        pytest.raises(sa.exc.IntegrityError, match=APPEND_ONLY),
        sa.create_engine(on_sqlite.url).begin() as connection,
    ):
        connection.exec_driver_sql(
            "INSERT OR REPLACE INTO sluice_ledger SELECT * FROM sluice_ledger WHERE sequence = 2"
        )
    assert on_sqlite.verify().ok


def test_what_is_new_is_read_and_verified(ledger: Ledger, url: str) -> None:
    heads = fill(ledger, 3)
    assert [each.sequence for each in ledger.read()[0]] == [1, 2, 3]
    assert [each.sequence for each in ledger.read(2, heads[2])[0]] == [3]
    assert ledger.read(3, heads[3])[0] == [] and ledger.read(3, heads[3])[1].ok
    assert ledger.read(3, heads[2])[1].reason == "entry 3 was changed or removed"
    with sa.create_engine(url).begin() as connection:
        forged = "SELECT model, 4, time, action, '9', actor, reason, details, hash, 'garbage' FROM sluice_ledger"
        connection.exec_driver_sql(f"INSERT INTO sluice_ledger {forged} WHERE sequence = 3")
    for found, check in (ledger.read(2, heads[2]), ledger.read()):
        assert found[-1].sequence == 3
        assert check.reason == "the hash of entry 4 does not match its content and the key"
    tamper(url, "DELETE FROM sluice_ledger WHERE sequence > 2")
    assert ledger.read(3, heads[3])[1].reason == "entry 3 was changed or removed"


def test_the_key_is_for_its_owner_alone_and_made_once(on_sqlite: Ledger, trust: LedgerTrust) -> None:
    key = trust.key()
    assert key is not None and len(key) == 64
    assert stat.S_IMODE(trust.key_file.stat().st_mode) == 0o600
    assert trust.make_key() == key
    assert on_sqlite.url.encode() not in trust.key_file.read_bytes()


def test_a_key_of_the_environment_goes_before_and_has_a_length(
    tmp_path: Path, trust: LedgerTrust, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv(KEY_VARIABLE, "of all pods " * 3)
    fill(opened(url, trust), 2)
    assert not trust.key_file.exists()
    # Another pod has a folder of its own, and a secret that was made from a file.
    monkeypatch.setenv(KEY_VARIABLE, "of all pods " * 3 + "\n")
    assert opened(url, LedgerTrust(tmp_path / "another pod")).verify().ok
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(ValueError, match="SLUICE_LEDGER_KEY has 5 characters, but a key of the ledger has 32 or more"):
        opened(url, trust)
    monkeypatch.delenv(KEY_VARIABLE)
    trust.folder.mkdir(parents=True, exist_ok=True)
    trust.key_file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"hmac.key has 0 characters, .*: put back the key .* `sluice history` shows"):
        opened(url, trust)


def test_a_copied_workspace_has_its_key_and_its_note(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    original = opened(f"sqlite:///{first / 'mlflow.db'}", LedgerTrust(first / "ledger"))
    heads = fill(original, 2)
    shutil.copytree(first, second)
    copy = opened(f"sqlite:///{second / 'mlflow.db'}", LedgerTrust(second / "ledger"))
    assert copy.verify().ok
    # Both go on, each with a history of its own.
    for ledger in (original, copy):
        ledger.append(entry(ledger.url), expected_head=heads[2])
        assert ledger.verify().ok
    tamper(copy.url, "DELETE FROM sluice_ledger WHERE sequence > 1")
    assert original.verify().ok and copy.verify().broken_at == 2
    # Another database is another chain.
    for other in (second / "other.db", tmp_path / Path(sa.make_url(copy.url).database or "").name):
        assert opened(f"sqlite:///{other}", LedgerTrust(second / "ledger")).verify().ok


def insert_plain(url: str, entries: int, model: str = "sluice") -> None:
    """A chain as earlier versions wrote it."""
    table, head = LedgerTable(url), GENESIS
    for sequence in range(1, entries + 1):
        written = entry(str(sequence), percent=sequence)
        row = {**chained(model, [written], b"k")[0], "sequence": sequence, "previous_hash": head}
        head = row["hash"] = entry_hash(model, sequence, written, head, None)
        table.insert(row)


def test_a_ledger_of_an_earlier_version_gets_its_key_when_it_is_first_opened(url: str, trust: LedgerTrust) -> None:
    insert_plain(url, 3)
    insert_plain(url, 2, "other")
    for model, entries in (("sluice", 3), ("other", 2)):
        ledger = opened(url, trust, model)
        assert ledger.verify().ok and [each.version for each in ledger.history()] == ["1", "2", "3"][:entries]
    with pytest.raises(sa.exc.DBAPIError, match=APPEND_ONLY), sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql("DELETE FROM sluice_ledger")


def test_with_a_key_entries_without_one_are_kept_by_a_repair_alone(on_sqlite: Ledger, trust: LedgerTrust) -> None:
    assert trust.key() is not None
    insert_plain(on_sqlite.url, 3)
    check = on_sqlite.verify()
    assert (check.broken_at, check.keep) == (1, 3)
    assert check.reason == "entry 1 was written without the key, as earlier versions did"
    on_sqlite.repair(3, entry(action="repair"))
    assert on_sqlite.verify().ok


FAULTS = {
    "edited": ["UPDATE sluice_ledger SET version = '9' WHERE sequence = 3"],
    "broken details": ["UPDATE sluice_ledger SET details = 'not json' WHERE sequence = 3"],
    "details with NaN": ["""UPDATE sluice_ledger SET details = '{"percent": NaN}' WHERE sequence = 3"""],
    "details nested deep": [f"UPDATE sluice_ledger SET details = '{'[' * 100_000}' WHERE sequence = 3"],
    "infinite time": ["UPDATE sluice_ledger SET time = 9e999 WHERE sequence = 3"],
    "garbage": ["UPDATE sluice_ledger SET time = 1e300, hash = 'garbage' WHERE sequence = 3"],
    "removed": ["DELETE FROM sluice_ledger WHERE sequence = 3"],
    "cut off": ["DELETE FROM sluice_ledger WHERE sequence > 2"],
    "emptied": ["DELETE FROM sluice_ledger"],
}


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        *(("sqlite", fault) for fault in (*FAULTS, "key lost", "note damaged")),
        pytest.param("postgresql", "edited", marks=pytest.mark.process),
    ],
    indirect=["url"],
)
def test_a_repair_leads_out_of_every_fault_and_keeps_what_was_there(
    fault: str, ledger: Ledger, url: str, trust: LedgerTrust
) -> None:
    fill(ledger, 4)
    if fault == "key lost":
        trust.key_file.unlink()
        assert opened(url, trust).trust.key() is None, "a new key would hide the loss"
    elif fault == "note damaged":
        next(trust.folder.glob("sluice-*.json")).write_text("{")
    else:
        tamper(url, *FAULTS[fault])
    before, check = ledger.history(), ledger.verify()
    assert not check.ok and f"sluice history --repair {check.keep}" in check.message
    kept = {"key lost": 4, "note damaged": 4, "emptied": 0}.get(fault, 2)
    assert check.keep == kept
    with pytest.raises((LedgerBroken, LedgerConflict)):
        ledger.append(entry(), expected_head=before[-1].hash if before and fault == "key lost" else "0")
    with pytest.raises(ValueError, match="cannot keep entries 1 to 9: choose a number from 0 to "):
        ledger.repair(9, entry())
    if fault in ("details with NaN", "details nested deep", "infinite time"):
        with pytest.raises(ValueError, match="cannot keep entries 1 to 3: choose a number from 0 to 2"):
            ledger.repair(3, entry())
    added = ledger.repair(kept, entry("", "repair"))
    assert ledger.verify().ok and opened(url, trust).verify().ok
    assert [each.version for each in ledger.history()] == [*map(str, range(1, kept + 1)), ""]
    aside = trust.folder / added.details["rows"]
    assert [row["hash"] for row in json.loads(aside.read_text())] == [each.hash for each in before]
    assert hashlib.sha256(aside.read_bytes()).hexdigest() == added.details["rows_sha256"]
    fill_on = ledger.append(entry("5"), expected_head=added.hash)
    assert ledger.verify().ok and fill_on.sequence == kept + 2
    with pytest.raises(sa.exc.DBAPIError, match=APPEND_ONLY), sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql("DELETE FROM sluice_ledger")
    with pytest.raises(ValueError, match="is whole: there is nothing to repair"):
        ledger.repair(1, entry())


@pytest.mark.parametrize("fault", ["none", *FAULTS, "note damaged", "key lost"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
def test_a_long_ledger_is_verified_in_chunks_as_it_is_at_once(
    chunk: int, fault: str, on_sqlite: Ledger, trust: LedgerTrust, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(on_sqlite, 4)
    if fault == "key lost":
        trust.key_file.unlink()
    elif fault == "note damaged":
        next(trust.folder.glob("sluice-*.json")).write_text("{")
    else:
        tamper(on_sqlite.url, *FAULTS.get(fault, []))
    whole = on_sqlite.read()[1]
    monkeypatch.setattr("sluice.serving.ledger.CHUNK", chunk)
    assert on_sqlite.verify() == whole and whole.ok == (fault == "none")


def test_what_the_registry_has_noted_is_compared(on_sqlite: Ledger) -> None:
    heads = fill(on_sqlite, 4)
    for noted, broken_at in (
        (Head(4, heads[4]), None),
        (Head(2, heads[2]), None),
        (Head(6, "f" * 64), 5),
        (Head(3, "f" * 64), 3),
    ):
        check = on_sqlite.verify(noted)
        assert check.broken_at == broken_at and (check.ok or "the registry notes" in check.reason)
    assert on_sqlite.read(4, heads[4], noted=Head(4, "f" * 64))[1].broken_at == 4
    assert on_sqlite.read(4, heads[4], noted=Head(2, "f" * 64))[1].ok, "not among what was read"
    repaired = on_sqlite.repair(4, entry(action="repair"), noted=Head(6, "f" * 64))
    assert "the registry notes entry 6" in repaired.details["broken"]


def test_the_newest_entry_of_a_version_is_found(on_sqlite: Ledger) -> None:
    fill(on_sqlite, 3)
    found = on_sqlite.find("propose", "2")
    assert found is not None and found.sequence == 2
    assert on_sqlite.find("drop", "2") is None and on_sqlite.find("propose", "2' OR '1'='1") is None
    tamper(on_sqlite.url, "UPDATE sluice_ledger SET reason = 'x' WHERE sequence = 2")
    with pytest.raises(LedgerBroken, match="broken at entry 2"):
        on_sqlite.find("propose", "2")


def test_a_damaged_database_is_one_line_that_names_it(tmp_path: Path, trust: LedgerTrust) -> None:
    file = tmp_path / "mlflow.db"
    url = f"sqlite:///{file}"
    ledger = Ledger(url, "sluice", trust)
    fill(ledger, 40)
    with sa.create_engine(url).connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    file.write_bytes(file.read_bytes()[:4096])
    with pytest.raises(DatabaseFailed, match=r"mlflow\.db cannot be used: database disk image is malformed; docs/"):
        ledger.history()
    file.write_bytes(b"not a database" * 400)
    with pytest.raises(DatabaseFailed, match=r"mlflow\.db cannot be used: file is not a database; docs/"):
        Ledger(url, "sluice", trust)
