"""The content of the page, from the server's state alone."""

import json
import math
from dataclasses import asdict, replace
from typing import Any
from xml.etree import ElementTree

import pytest

from sluice.core.check import Check
from sluice.model.evaluation.verdict import PolicyIdentity, Verdict
from sluice.serving.lease import LeaseRow
from sluice.serving.ledger_chain import RecordedEntry
from sluice.serving.page import charts
from sluice.serving.page.render import Latencies, latencies_of, regions, render_login, render_page, render_region
from sluice.serving.page.view import build_view
from sluice.serving.page.view_model import Badge, place, view_model
from sluice.serving.release import ReleaseState

RELEASE = ReleaseState(
    champion="3", challenger="4", previous_champion="2", challenger_weight=25, earlier_champions=("1",)
)
CHECKS = [
    {
        "metric": "error_rate",
        "outcome": "pass",
        "value": 0.004,
        "bound": 0.02,
        "n": 250,
        "e_advance": 31.5,
        "e_drop": 0.02,
        "threshold": 20.0,
    },
    {
        "metric": "first_token",
        "outcome": "inconclusive",
        "value": None,
        "bound": 0.05,
        "n": 0,
        "e_advance": 1.0,
        "e_drop": None,
        "threshold": 20.0,
    },
]
PROGRESS = {
    "version": "4",
    "step": 3,
    "steps": [
        {"weight": 0, "shadow": True},
        {"weight": 1, "shadow": False},
        {"weight": 5, "shadow": False},
        {"weight": 25, "shadow": False},
        {"weight": 100, "shadow": False},
        {"weight": 100, "shadow": False},
    ],
    "wanted_weight": 25,
    "reason": "challenger at 25 %: 12 of 25 live challenger requests",
    "checks": CHECKS,
    "replays": 1250,
    "live": 12,
    "not_judged": {"client_left": 2, "capacity": 1},
    "paused": False,
    "since": 1_790_000_000.0,
}
STATE: dict[str, Any] = {
    "champion": "3",
    "challenger": "4",
    "challenger_weight": 25,
    "ready": ["2", "3", "4"],
    "slow": {},
    "deploy_errors": {},
    "release": asdict(RELEASE),
    "error": "",
    "versions": {
        "3": {"requests": 1200, "errors": 3, "not_judged": 2, "latency_p50_ms": 4.0, "latency_p95_ms": 9.26},
        "4": {"requests": 400, "errors": 0, "votes": {"good": 3, "bad": 1}},
    },
    "traffic_records_lost": 0,
    "view": {"rollout": PROGRESS, "entries": [], "verdict": None, "alerts": []},
}


def state(release: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """STATE with other fields, and the release with others."""
    return {**STATE, "release": {**asdict(RELEASE), **(release or {})}, **fields}


def test_a_rollout_is_shown_with_its_steps_and_shares() -> None:
    page = view_model(STATE)
    assert page.rollout is not None
    assert [(step.label, step.state) for step in page.rollout.steps] == [
        ("shadow", "done"),
        ("1 %", "done"),
        ("5 %", "done"),
        ("25 %", "current"),
        ("100 %", "ahead"),
        ("bake", "ahead"),
    ]
    assert (page.traffic.wanted, page.traffic.actual, page.traffic.note) == (25, 25, "")
    assert (page.rollout.replays, page.rollout.live) == ("1,250", "12")
    assert page.rollout.not_judged == "1 capacity, 2 client left"
    assert page.announcement == "v3 is the champion. Rollout of v4: in progress, step 25 %, 25 % of the traffic."


def test_e_values_stand_on_a_log_scale_beside_their_bound() -> None:
    errors, first = view_model(STATE).signals
    assert (errors.name, errors.outcome.text, errors.value, errors.bound) == ("Errors", "shown good", "0.4 %", "2 %")
    assert errors.advance is not None and errors.drop is not None
    assert (errors.advance.text, errors.advance.is_shown, errors.drop.is_shown) == ("31.5", True, False)
    assert errors.drop.position < place(1) < errors.threshold.position < errors.advance.position
    assert (first.value, first.drop, first.outcome.text) == ("–", None, "not shown yet")


def test_places_keep_within_the_axis_whatever_the_e_value() -> None:
    assert [place(e) for e in (0, 1e-9, 1e-3, 1e4, math.inf)] == [0, 0, 0, 1, 1]
    assert place(math.nan) == place(1) == pytest.approx(3 / 7)
    assert place(10) - place(1) == pytest.approx(place(1) - place(0.1))


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"challenger": None, "challenger_weight": 0, "ready": ["3"]}, "v4 is not ready"),
        ({"unwatched": True}, "no controller watches it"),
    ],
)
def test_the_actual_share_is_that_of_the_routes_in_force(fields: dict[str, Any], note: str) -> None:
    traffic = view_model(state(**fields)).traffic
    assert (traffic.wanted, traffic.actual, traffic.note) == (25, 0, note)


def test_versions_have_their_role_readiness_and_counts() -> None:
    rows = view_model(state({"challenger_forced": True}, deploy_errors={"4": "gone"}, ready=["2", "3", "7"])).versions
    assert [(row.name, row.role, row.status.text) for row in rows] == [
        ("v3", "champion", "ready"),
        ("v4", "challenger", "cannot be loaded"),
        ("v2", "previous champion", "ready"),
        ("v7", "kept ready", "ready"),
    ]
    assert (rows[0].requests, rows[0].error_rate, rows[0].latency_ms) == ("1,200", "0.25 %", "4.0 / 9.3")
    assert (rows[1].votes, rows[1].first_token_ms, rows[1].marks) == ("3 / 1", "–", ("forced past the gate",))


def test_what_got_past_gate_or_rollout_is_marked_for_ever() -> None:
    page = view_model(state({"champion_forced": "by hand: the demo is today", "former_forced": {"2": "forced: why"}}))
    assert [row.marks for row in page.versions] == [("by hand: the demo is today",), (), ("forced: why",)]
    assert any("without all the evidence (by hand: the demo is today)." in notice.text for notice in page.notices)
    forced = view_model(state({"challenger_forced": True, "challenger_forced_reason": "a hot fix"}))
    assert [notice.text for notice in forced.notices] == ["v4 was forced past the gate: a hot fix"]


@pytest.mark.parametrize(
    ("release", "allowed"),
    [
        ({}, {"pause", "promote", "abort", "rollback"}),
        ({"paused": True}, {"resume", "promote", "abort", "rollback"}),
        ({"challenger": None}, {"rollback"}),
        ({"challenger": None, "previous_champion": None, "earlier_champions": ()}, set()),
    ],
)
def test_only_what_the_state_allows_can_be_pressed(release: dict[str, Any], allowed: set[str]) -> None:
    actions = view_model(state(release)).actions
    assert {action.name for action in actions if action.is_allowed} == allowed
    rollback = next(action for action in actions if action.name == "rollback")
    assert rollback.choices == (("2", "1") if "rollback" in allowed else ())


def test_every_action_says_what_it_does_and_on_which_version() -> None:
    actions = {action.name: action for action in view_model(STATE).actions}
    assert actions["promote"].title == "Promote v4 by hand?"
    assert "for ever" in actions["promote"].consequence
    assert [actions[name].version for name in ("pause", "promote", "abort", "rollback")] == ["4", "4", "4", "3"]
    assert "The rollout of v4 ends." in actions["rollback"].consequence


def test_a_pause_that_waits_for_a_person_is_told_from_one_by_rule() -> None:
    by_hand = view_model(state({"paused": True})).rollout
    by_rule = view_model(state(view={**STATE["view"], "rollout": {**PROGRESS, "paused": True}})).rollout
    assert by_hand is not None and by_rule is not None
    assert (by_hand.status.text, by_rule.status.text) == ("paused until resumed", "paused")


def test_progress_of_another_version_is_not_shown() -> None:
    page = view_model(state({"challenger": "5", "challenger_weight": 0}, challenger="5"))
    assert page.rollout is not None
    assert (page.rollout.version, page.rollout.steps, page.signals) == ("v5", (), ())


def test_an_empty_server_and_one_of_before_have_a_page() -> None:
    for bare in ({}, {"champion": None, "release": {}, "view": {}, "versions": {}}):
        page = view_model(bare)
        assert (page.health.text, page.rollout, page.versions) == ("no champion", None, ())
        assert page.announcement == "No version serves. No rollout is in progress."
        whole = render_page(regions(page, Latencies(), may_release=True), csrf="c", key_name="k", role="release")
        assert "The ledger is empty." in whole


def test_errors_are_shown_first() -> None:
    page = view_model(
        state(
            {"champion_forced": "why"},
            error="LedgerBroken: entry 3",
            view={"error": "OSError: locked"},
            deploy_errors={"4": "gone"},
            slow={"2": "slow"},
            traffic_records_lost=2,
        )
    )
    assert page.health.kind == "warning"
    assert [notice.text.split(":")[0] for notice in page.notices] == [
        "LedgerBroken",
        "Ledger and verdict are not up to date",
        "v4 could not be loaded",
        "v2 is still being loaded",
        "v3 serves without all the evidence (why).",
        "2 traffic records could not be written.",
    ]


EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_every_text_is_escaped() -> None:
    """Also those that no user should be able to choose."""

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {EVIL if key in STATE["versions"] else key: poisoned(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [poisoned(each) for each in value]
        return EVIL if isinstance(value, str) else value

    entry = {"sequence": 1, "time": 0.0, "action": "a", "version": "v", "actor": "a", "reason": "r", "to": "t"}
    verdict = {"version": "4", "outcome": "o", "reason": "r", "policy": "p", "time": "t"}
    view = {
        "rollout": PROGRESS,
        "entries": [entry],
        "verdict": {**verdict, "checks": [{"metric": "m", "outcome": "o", "reason": "r"}]},
        "alerts": [{"outcome": "alert", "title": "t", "text": "t", "time": 0.0}],
    }
    found = poisoned(state({"champion_forced": "f"}, view=view, error="e", slow={"2": "s"}, deploy_errors={"4": "d"}))
    page = view_model(found)
    latencies = latencies_of([{EVIL: 3.0}], page)
    whole = render_page(regions(page, latencies, may_release=True), csrf=EVIL, key_name=EVIL, role=EVIL)
    assert "alert(1)" in whole
    assert EVIL not in whole and "<script>" not in whole and "<img" not in whole
    assert EVIL not in render_login(EVIL)


def test_charts_are_well_formed_and_hidden_from_screen_readers() -> None:
    page = view_model(STATE)
    points = [{"3": 1.0}, {"3": None, "4": 2.0}, {"3": 4.0, "4": None}]
    for svg in (
        *map(charts.evidence_bars, page.signals),
        charts.evidence_axis(),
        charts.share_bars(page.traffic),
        charts.latency_lines(points, {"3": "champion", "4": "challenger", "9": "gone"}, 5),
    ):
        root = ElementTree.fromstring(svg)
        assert (root.tag, root.get("aria-hidden")) == ("svg", "true")
        assert "NaN" not in svg and "inf" not in svg
    lines = ElementTree.fromstring(charts.latency_lines(points, {"3": "champion", "4": "challenger"}, 5))
    assert [path.get("class") for path in lines.iter("path")] == ["champion", "challenger"]


def test_a_key_that_may_watch_gets_no_button_to_press() -> None:
    page = view_model(STATE)
    for may_release, disabled in ((True, 1), (False, 5)):
        html = render_region("actions", regions(page, Latencies(), may_release=may_release)["actions"])
        assert html.count(" disabled") == disabled
    assert "role release" in html


class History:
    """Version 3 in rollout with 30 weights, and a signed verdict on it."""

    def __init__(self, fault: str = "") -> None:
        self._fault = fault
        self._entries = [
            RecordedEntry(1000.0 + number, "weight", "3", "rollout", "why", {"percent": number}, sequence=number)
            for number in range(1, 31)
        ]

    def state(self) -> ReleaseState:
        return ReleaseState(champion="2", challenger="3")

    def newest(self, count: int) -> list[RecordedEntry]:
        return self._entries[-count:]

    def verdict(self, version: str) -> Verdict:
        if self._fault:
            raise ValueError(self._fault)
        check = Check(metric="bits_per_byte", bound=2.0, n=9, outcome="pass", reason="1.9 < 2.0, n=9")
        return Verdict(
            outcome="promote",
            reason=f"version {version} is better",
            checks=[check],
            confidence=0.95,
            correction="none",
            hashes={},
            is_first_version=False,
            policy=PolicyIdentity(name="default", version="1", sha256="d" * 64),
            time="2026-12-01T10:00:00Z",
        )


def test_the_view_is_plain_json_of_the_release() -> None:
    view = build_view(
        History(),
        LeaseRow("ann", "t", 7, "3", progress={"step": 1}),
        [{"outcome": "ok", "title": "t", "text": "x", "time": 1.0}],
    )
    assert json.loads(json.dumps(view)) == view
    newest = view["entries"][0]
    assert (newest["action"], newest["version"], newest["actor"], newest["percent"]) == ("weight", "3", "rollout", 30)
    assert [entry["sequence"] for entry in view["entries"]] == list(range(30, 10, -1))
    assert (view["verdict"]["version"], view["verdict"]["policy"]) == ("3", "default")
    assert view["verdict"]["checks"][0]["reason"] == "1.9 < 2.0, n=9"
    assert view["rollout"] == {"step": 1, "version": "3", "holder": "ann"}
    assert view["alerts"][0]["title"] == "t"
    shown = view_model({**STATE, "view": view})
    assert (shown.entries[0].action, shown.entries[0].time) == ("weight 30 %", "1970-01-01 00:17:10")
    assert shown.verdict is not None and shown.verdict.outcome == Badge("good", "promote")


def test_a_verdict_that_cannot_be_read_is_said() -> None:
    view = build_view(History("the verdict is gone"), None)
    assert view["verdict"] == {"version": "3", "outcome": "unreadable", "reason": "the verdict is gone"}
    assert view["rollout"] is None


def test_equal_states_draw_nothing_again() -> None:
    """Regions compare by value, which is how live updates know what changed."""
    one, two = (regions(view_model(STATE), Latencies(), may_release=True) for _ in range(2))
    assert one == two
    other = regions(view_model(state(release={"paused": True})), Latencies(), may_release=True)
    assert {name for name in one if one[name] != other[name]} == {"announcement", "actions", "rollout"}
    assert replace(view_model(STATE).traffic, actual=1) != view_model(STATE).traffic
