"""Which version a request belongs to."""

from dataclasses import replace

import pytest

from sluice.serving.routing import Routes, is_challenged, session_hash, targets


def test_weights_split_by_request_id() -> None:
    ids = [f"request-{number}" for number in range(4000)]
    by_weight = {weight: {name for name in ids if is_challenged(name, "2", weight)} for weight in (0, 10, 50, 100)}
    assert [len(found) for found in by_weight.values()] == [
        0,
        pytest.approx(400, rel=0.2),
        pytest.approx(2000, rel=0.1),
        4000,
    ]
    assert by_weight[10] < by_weight[50]
    assert by_weight[50] != {name for name in ids if is_challenged(name, "3", 50)}


def test_weight_0_is_nobody_and_100_everybody_of_100_000_sessions() -> None:
    for salt in ("", "a salt", "another"):
        routes = Routes(champion="1", challenger="2", salt=salt)
        full = replace(routes, challenger_weight=100)
        sessions = [f"session-{number}" for number in range(100_000 if salt == "a salt" else 1000)]
        assert {targets(routes, session, None, "live")[0].arm for session in sessions} == {"champion"}
        assert {targets(full, session, None, "live")[0].arm for session in sessions[:1000]} == {"challenger"}


def test_who_does_not_know_the_salt_cannot_choose_an_arm() -> None:
    sessions = [f"session-{number}" for number in range(4000)]
    chosen = {salt: {each for each in sessions if is_challenged(each, "2", 10, salt)} for salt in ("a", "b")}
    # Of those in one salt's tenth, about a tenth is in the other's.
    assert len(chosen["a"] & chosen["b"]) == pytest.approx(40, abs=25)
    assert session_hash("anna", "a") != session_hash("anna", "b")
    assert len(session_hash("anna", "a")) == 16 and session_hash("", "a") == ""


def test_arms_are_asked_in_order() -> None:
    def versions(routes: Routes, arm: str | None = None, source: str = "live") -> list[str]:
        return [leg.version for leg in targets(routes, "id", arm, source)]  # type: ignore[arg-type]

    both = Routes(champion="1", challenger="2", challenger_weight=100)
    assert versions(both) == ["2", "1"]
    assert versions(Routes(champion="1", challenger="2")) == ["1"]
    assert versions(both, arm="champion") == ["1"]
    assert versions(both, arm="challenger", source="smoke") == ["2"]
    first = Routes(challenger="1", challenger_weight=100)
    assert versions(first) == versions(first, arm="challenger") == []
    assert versions(first, source="smoke") == versions(first, source="replay") == ["1"]
    assert versions(first, arm="champion", source="smoke") == []
