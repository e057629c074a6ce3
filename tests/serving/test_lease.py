"""The lease of a rollout's controller: one holder at a time, and a dead one is told by a beat that stands still."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sluice.serving import lease as lease_module
from sluice.serving.lease import LOST_S, Lease, LeaseLost, LeaseRow, LeaseTable, LeaseTaken, LeaseWatch

ROW = LeaseRow("process 1 on elsewhere", "token", 1, "2")


@pytest.fixture
def table(tmp_path: Path) -> LeaseTable:
    return LeaseTable(f"sqlite:///{tmp_path / 'mlflow.db'}")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_holder_is_alive_while_its_beat_moves_by_the_watchers_own_clock() -> None:
    clock = Clock()
    watch = LeaseWatch(clock)
    assert not watch.is_alive(None)
    assert watch.is_alive(ROW)
    clock.now += LOST_S
    assert watch.is_alive(ROW)
    clock.now += 0.1
    assert not watch.is_alive(ROW)
    assert watch.is_alive(replace(ROW, beat=2))
    clock.now += LOST_S + 1
    assert not watch.is_alive(replace(ROW, beat=2))
    assert watch.is_alive(replace(ROW, token="the next controller", beat=2))


def test_the_lease_tells_version_shadow_and_progress_while_it_is_held(table: LeaseTable) -> None:
    with Lease(table, "sluice", "7") as lease:
        first = table.read("sluice")
        assert first is not None and (first.version, first.shadow, first.progress) == ("7", False, {})
        lease.set(progress={"reason": "3 of 50 replayed prompts"})
        lease.set(shadow=True)
        told = table.read("sluice")
        assert told is not None and told.beat > first.beat
        assert (told.shadow, told.progress) == (True, {"reason": "3 of 50 replayed prompts"})
        assert table.read("another model") is None
    assert table.read("sluice") is None


def test_a_second_controller_is_refused_by_the_name_of_the_first(
    table: LeaseTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEW_S", 0.05)
    with (
        Lease(table, "sluice", "7", holder="process 1 on elsewhere"),
        pytest.raises(LeaseTaken, match="version 7 is measured by process 1 on elsewhere: wait for it"),
        Lease(table, "sluice", "7"),
    ):
        pytest.fail("two controllers hold one lease")


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_at_once(table: LeaseTable) -> None:
    ended = threading.Event()
    dead = Lease(table, "sluice", "7").holder.replace(f" {lease_module.os.getpid()} ", " 4194999 ")
    assert table.replace("sluice", None, replace(ROW, holder=dead))
    with Lease(table, "sluice", "8"):
        held = table.read("sluice")
        assert held is not None and held.version == "8"
        ended.set()
    assert ended.is_set()


def test_a_holder_elsewhere_whose_beat_stands_still_is_replaced_and_told(
    table: LeaseTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LOST_S", 0.3)
    with Lease(table, "sluice", "7", holder="process 1 on elsewhere") as stuck:
        stuck.pause_renewal()
        with Lease(table, "sluice", "7"):
            with pytest.raises(LeaseLost, match="another controller has taken over the rollout of version 7"):
                stuck.set(progress={})
            held = table.read("sluice")
            assert held is not None and held.holder != "process 1 on elsewhere"


def test_a_holder_that_beats_at_the_last_moment_keeps_its_lease(table: LeaseTable) -> None:
    later, other = replace(ROW, beat=2), replace(ROW, token="other", holder="process 2 on elsewhere")
    assert table.replace("sluice", None, ROW) and table.replace("sluice", later, later)
    assert not table.replace("sluice", ROW, other)
    assert table.read("sluice") == later
    assert table.replace("sluice", later, other)


def test_a_database_that_is_gone_at_the_end_changes_no_outcome(
    table: LeaseTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> bool:
        raise TimeoutError("locked for 30 s")

    with Lease(table, "sluice", "7") as lease:
        lease.pause_renewal()
        monkeypatch.setattr(table, "replace", locked)
    assert table.read("sluice") is not None


def test_of_many_controllers_at_once_one_gets_the_lease(table: LeaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "RENEW_S", 0.05)
    got, done, barrier = [], threading.Event(), threading.Barrier(6)

    def begin(number: int) -> None:
        barrier.wait()
        try:
            with Lease(table, "sluice", str(number), holder=f"process {number} on elsewhere"):
                got.append(number)
                done.wait(30)
        except LeaseTaken:
            refused.release()

    refused = threading.Semaphore(0)
    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        assert refused.acquire(timeout=30)
    done.set()
    for thread in threads:
        thread.join()
    assert len(got) == 1
