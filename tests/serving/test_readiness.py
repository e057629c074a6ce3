"""Readiness of the champion, and the message if none answers."""

from dataclasses import asdict

import pytest

from sluice.serving.readiness import find_outage
from sluice.serving.release import ReleaseState
from sluice.serving.routing import Routes

THREE = ReleaseState(champion="3", previous_champion="2", earlier_champions=("1",))


def outage(release: ReleaseState | None = None, error: str = "", failed: str = "") -> tuple[str, int]:
    errors = dict.fromkeys(failed.split(), "its files are gone")
    found = find_outage(Routes(release=asdict(release) if release else {}, error=error, deploy_errors=errors))
    assert found is not None
    return found.message, found.retry_after_s


def test_whoever_has_a_champion_is_ready_whatever_else_is_wrong() -> None:
    assert find_outage(Routes(champion="2", error="the ledger is broken", deploy_errors={"3": "gone"})) is None


@pytest.mark.parametrize(
    ("release", "error", "failed", "message", "retry_after_s"),
    [
        (None, "", "", "the server is starting; try again shortly", 1),
        (
            None,
            "LedgerBroken: entry 3",
            "",
            "the release cannot be followed: LedgerBroken: entry 3; `sluice status` shows the ledger",
            30,
        ),
        (ReleaseState(), "", "", "no version has been promoted yet; run `sluice run`, or `sluice promote`", 30),
        (THREE, "", "", "version 3 is being loaded; try again shortly", 1),
        (
            THREE,
            "",
            "3",
            "version 3 cannot be loaded: its files are gone; version 2 is being loaded in its place; `sluice rollback` "
            "makes it the champion",
            30,
        ),
        (
            THREE,
            "",
            "2 3",
            "version 3 cannot be loaded: its files are gone; restore its files, or run `sluice rollback --to 1`",
            30,
        ),
        (
            ReleaseState(champion="1"),
            "",
            "1",
            "version 1 cannot be loaded: its files are gone; restore its files, or release another version by "
            "`sluice run`",
            30,
        ),
    ],
)
def test_every_outage_has_a_reason_and_a_next_step(
    release: ReleaseState | None, error: str, failed: str, message: str, retry_after_s: int
) -> None:
    assert outage(release, error, failed) == (message, retry_after_s)


def test_a_champion_that_takes_long_is_not_promised_shortly() -> None:
    slow = {"3": "not loaded within 120 s: Deployment 'model' has 1 replicas that wait for 1.0 CPU"}
    found = find_outage(Routes(release=asdict(THREE), slow=slow))
    assert found is not None and found.retry_after_s == 30
    assert found.message == (
        f"version 3 is still being loaded: {slow['3']}; `sluice doctor` shows whether memory or processors are short"
    )
