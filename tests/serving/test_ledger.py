"""The ledger on both databases, written by several processes, and tampered with."""

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from release_fixtures import postgresql  # noqa: F401

from sluice.serving.ledger import GENESIS, Entry, Ledger, LedgerBroken, LedgerConflict, entry_hash

APPEND_ONLY = "append-only"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.process)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'mlflow.db'}"
    server_url = request.getfixturevalue("postgresql")
    with sa.create_engine(server_url).begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS sluice_ledger")
    return server_url


def entry(version: str = "1", action: str = "propose", **details: object) -> Entry:
    return Entry(
        time=1_700_000_000.25, action=action, version=version, actor="test", reason="it is so", details=details
    )


def fill(ledger: Ledger, count: int) -> list[str]:
    heads = [GENESIS]
    for number in range(1, count + 1):
        heads.append(ledger.append(entry(str(number), percent=number), expected_head=heads[-1]).hash)
    return heads


def tamper(url: str, *statements: str) -> None:
    """Change rows as somebody with all rights on the database can, once the guards are removed."""
    with sa.create_engine(url).begin() as connection:
        if url.startswith("sqlite"):
            connection.exec_driver_sql("DROP TRIGGER sluice_ledger_no_UPDATE")
            connection.exec_driver_sql("DROP TRIGGER sluice_ledger_no_DELETE")
        else:
            connection.exec_driver_sql("DROP TRIGGER sluice_ledger_append_only ON sluice_ledger")
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_entries_come_back_as_they_were_written(url: str) -> None:
    ledger = Ledger(url)
    written = ledger.append(entry(note="zeichen: é ≠ e", share=0.1, items=[1, None, True]), expected_head=GENESIS)
    assert Ledger(url).history() == [written]
    assert written.sequence == 1 and written.previous_hash == GENESIS
    assert written.hash == entry_hash("sluice", 1, written, GENESIS)
    assert Ledger(url).last() == written


def test_an_untouched_chain_holds(url: str) -> None:
    ledger = Ledger(url)
    assert ledger.verify().ok and ledger.verify().entries == 0
    heads = fill(ledger, 5)
    check = ledger.verify((3, heads[3]))
    assert check.ok and check.entries == 5


def test_a_stale_head_conflicts_and_writes_nothing(url: str) -> None:
    ledger = Ledger(url)
    heads = fill(ledger, 2)
    for stale in heads[:2]:
        with pytest.raises(LedgerConflict):
            ledger.append(entry(), expected_head=stale)
    assert len(ledger.history()) == 2


def test_two_models_have_chains_of_their_own(url: str) -> None:
    fill(Ledger(url, "one"), 2)
    assert Ledger(url, "two").history() == []
    fill(Ledger(url, "two"), 1)
    assert Ledger(url, "one").verify().entries == 2
    assert Ledger(url, "two").verify().ok


@pytest.mark.parametrize("statement", ["UPDATE sluice_ledger SET reason = 'better'", "DELETE FROM sluice_ledger"])
def test_the_database_refuses_changes(url: str, statement: str) -> None:
    ledger = Ledger(url)
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
def test_tampering_is_found_and_located(url: str, statements: list[str], broken_at: int) -> None:
    ledger = Ledger(url)
    fill(ledger, 5)
    tamper(url, *statements)
    check = ledger.verify()
    assert not check.ok and check.broken_at == broken_at
    assert str(broken_at) in check.reason


def test_a_row_rehashed_after_an_edit_breaks_its_successor(url: str) -> None:
    ledger = Ledger(url)
    heads = fill(ledger, 3)
    forged = entry_hash("sluice", 2, entry("8", percent=2), heads[1])
    tamper(url, f"UPDATE sluice_ledger SET version = '8', hash = '{forged}' WHERE sequence = 2")
    assert ledger.verify().broken_at == 3


def test_a_chain_cut_at_its_end_is_seen_from_the_anchor_alone(url: str) -> None:
    ledger = Ledger(url)
    heads = fill(ledger, 4)
    tamper(url, "DELETE FROM sluice_ledger WHERE sequence > 2")
    assert ledger.verify().ok
    check = ledger.verify((4, heads[4]))
    assert not check.ok and check.broken_at == 3
    ledger.append(entry("other"), expected_head=heads[2])
    ledger.append(entry("other"), expected_head=ledger.history()[-1].hash)
    assert ledger.verify((4, heads[4])).broken_at == 4


def append_at(url: str, head: str, writer: int, start: Callable[[], object]) -> str:
    """One of many writers that believe the same head, all let loose at once."""
    start()
    try:
        return Ledger(url).append(entry(str(writer)), expected_head=head).version
    except LedgerConflict:
        return ""


def test_of_many_threads_with_the_same_head_exactly_one_wins(url: str) -> None:
    head, start = fill(Ledger(url), 1)[-1], threading.Barrier(8, timeout=300)
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda writer: append_at(url, head, writer, start.wait), range(8)))
    winners = [version for version in won if version]
    assert [recorded.version for recorded in Ledger(url).history()[1:]] == winners and len(winners) == 1


@pytest.mark.process
def test_of_many_processes_with_the_same_head_exactly_one_wins(url: str) -> None:
    # The table does not exist yet: the processes race for that, too.
    context = multiprocessing.get_context("fork")
    start, won = context.Barrier(4, timeout=300), context.SimpleQueue()
    writers = [
        context.Process(target=lambda writer: won.put(append_at(url, GENESIS, writer, start.wait)), args=(writer,))
        for writer in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=600)
    assert [writer.exitcode for writer in writers] == [0] * 4
    winners = [version for version in (won.get() for _ in writers) if version]
    assert [recorded.version for recorded in Ledger(url).history()] == winners and len(winners) == 1


def test_every_append_that_tries_again_gets_its_place(url: str) -> None:
    Ledger(url)

    def persist(writer: int) -> None:
        ledger = Ledger(url)
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
    check = Ledger(url).verify()
    assert check.ok and check.entries == 20
    versions = [recorded.version for recorded in Ledger(url).history()]
    assert sorted(versions) == sorted(f"{writer}.{number}" for writer in range(4) for number in range(5))


def test_a_value_that_json_does_not_know_is_refused_and_not_written(url: str) -> None:
    ledger = Ledger(url)
    with pytest.raises(ValueError, match="JSON compliant"):
        ledger.append(entry(error_rate=float("nan")), expected_head=GENESIS)
    assert ledger.history() == []


def test_another_database_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mysql"):
        Ledger("mysql://somewhere/db")
    with pytest.raises(ValueError, match="existing directory"):
        Ledger(f"sqlite:///{tmp_path / 'missing' / 'mlflow.db'}")
    with pytest.raises(ValueError, match="must be a file"):
        Ledger("sqlite://")


def test_a_locked_database_is_a_bounded_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice.serving.ledger.LOCK_TIMEOUT_S", 0.05)
    url = f"sqlite:///{tmp_path / 'mlflow.db'}"
    ledger = Ledger(url)
    with sa.create_engine(url).connect() as other:
        other.exec_driver_sql("BEGIN IMMEDIATE")
        assert ledger.history() == []
        with pytest.raises(TimeoutError, match="locked for"):
            ledger.append(entry(), expected_head=GENESIS)


def test_a_row_cannot_be_replaced(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'mlflow.db'}")
    fill(ledger, 2)
    with (
        pytest.raises(sa.exc.IntegrityError, match=APPEND_ONLY),
        sa.create_engine(ledger.url).begin() as connection,
    ):
        connection.exec_driver_sql(
            "INSERT OR REPLACE INTO sluice_ledger SELECT * FROM sluice_ledger WHERE sequence = 2"
        )
    assert ledger.verify().ok


def test_following_verifies_what_is_new(url: str) -> None:
    ledger = Ledger(url)
    heads = fill(ledger, 3)
    assert [each.sequence for each in ledger.follow()] == [1, 2, 3]
    assert [each.sequence for each in ledger.follow(2, heads[2])] == [3]
    assert ledger.follow(3, heads[3]) == []
    with pytest.raises(LedgerBroken, match="entry 3 was changed or removed"):
        ledger.follow(3, heads[2])
    with sa.create_engine(url).begin() as connection:
        forged = "SELECT model, 4, time, action, '9', actor, reason, details, hash, 'garbage' FROM sluice_ledger"
        connection.exec_driver_sql(f"INSERT INTO sluice_ledger {forged} WHERE sequence = 3")
    with pytest.raises(LedgerBroken, match="broken at entry 4: the hash of entry 4 does not match"):
        ledger.follow(3, heads[3])
    tamper(url, "DELETE FROM sluice_ledger WHERE sequence > 2")
    with pytest.raises(LedgerBroken, match="entry 3 was changed or removed"):
        ledger.follow(3, heads[3])
