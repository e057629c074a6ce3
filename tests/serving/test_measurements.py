"""Evidence about a version: the class of an attempt, and the decisions that rest on it."""

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.monitoring.config import MonitorConfig
from sluice.monitoring.monitor import Window, assess, with_class
from sluice.monitoring.traffic.classify import JUDGED, classify, classify_record
from sluice.monitoring.traffic.record import COLUMNS, TrafficRecord
from sluice.serving.canary import RolloutDecision, RolloutState, decide
from sluice.serving.config import RolloutConfig, ServeConfig
from sluice.serving.evidence import Evidence, LiveCounts, Pairs
from sluice.serving.measurements import RecentRequests
from sluice.serving.slots import Place, Slots

OBJECTIVE_MS = ServeConfig().max_first_token_ms
COMPLETE: dict[str, Any] = {"completion_tokens": 10, "total_ms": 200.0, "mean_log_probability": -1.0}
ANSWERED: dict[str, Any] = {"status": 200, "first_token_ms": 20.0, "wait_ms": 21.0, "queue_ms": 1.0}
FAULT: dict[str, Any] = {"status": 500, "error": "NonFiniteLogits", "wait_ms": 20.0}
QUEUE_FULL: dict[str, Any] = {"status": 503, "error": "QueueFull", "wait_ms": 2.0}
MISTAKE: dict[str, Any] = {"status": 400, "error": "PromptTooLong", "wait_ms": 2.0}
LEFT: dict[str, Any] = {"status": 499, "error": "ClientGone", "wait_ms": 900.0}
HANGS: dict[str, Any] = {"status": 499, "error": "ClientGone", "wait_ms": 30_000.0}
NOT_JUDGED = [QUEUE_FULL, MISTAKE, LEFT, {**ANSWERED, "first_token_ms": 9000.0, "wait_ms": 9000.0, "queue_ms": 8900.0}]


def records(version: str, *groups: tuple[int, dict[str, Any]]) -> list[TrafficRecord]:
    """`count` records of each group, one group after the other."""
    found = []
    for count, fields in groups:
        for _ in range(count):
            answer = COMPLETE if "queue_ms" in fields else {}
            found.append(
                TrafficRecord(
                    request_id=f"{version}-{len(found)}",
                    time=1000.0 + len(found) / 100,
                    version=version,
                    arm="champion" if version == "1" else "challenger",
                    **answer,
                    **fields,
                )
            )
    return found


def canary(challenger: Sequence[TrafficRecord], memory: int = 20_000) -> RolloutDecision:
    """The decision on live traffic, half of it a healthy champion's, from what the gateway remembers."""
    recent = RecentRequests(memory)
    for record in [*records("1", (300, ANSWERED)), *challenger]:
        recent.add(record, classify_record(record, OBJECTIVE_MS))
    counted = recent.measurements("2")
    live = LiveCounts(50, counted.requests, counted.errors, *recent.measurements("1").judged("live"))
    replays = Pairs(neither=60)
    return decide(RolloutState(), Evidence(replays, replays, replays, (live,)), RolloutConfig())


def monitored(champion: Sequence[TrafficRecord]) -> tuple[str, dict[str, int], list[Any]]:
    """The monitor's outcome without drift tests' data, its counts by class, and its checks."""
    config = MonitorConfig()
    rows = [{name: getattr(record, name) for name in COLUMNS} for record in champion]
    numbers = [name for name, column in COLUMNS.items() if column.parquet == "double"]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(numbers, float))
    current = with_class(frame, config.max_first_token_p95_ms)
    report = assess(config, Window(current, current.head(0), []), "1", now=1100.0)
    return report.verdict.outcome, report.classes, report.checks


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (ANSWERED, "answered"),
        ({**ANSWERED, "first_token_ms": None, "wait_ms": None, "queue_ms": None}, "answered"),
        ({**ANSWERED, "first_token_ms": math.nan}, "answered"),
        (FAULT, "model_fault"),
        ({"status": 504, "error": "TimeoutError"}, "model_fault"),
        ({"status": 502, "error": "RayActorError"}, "model_fault"),
        ({"status": 200, "error": "NonFiniteLogits"}, "model_fault"),
        ({**ANSWERED, "first_token_ms": 3001.5, "queue_ms": 1.0}, "model_fault"),
        ({**ANSWERED, "first_token_ms": 3001.5, "queue_ms": None}, "model_fault"),
        ({**ANSWERED, "wait_ms": 3500.0}, "model_fault"),
        ({**ANSWERED, "first_token_ms": 3000.0, "wait_ms": 3000.0}, "answered"),
        ({**ANSWERED, "first_token_ms": 9000.0, "queue_ms": 8900.0}, "capacity"),
        (QUEUE_FULL, "capacity"),
        ({"status": 504, "error": "TimeoutError", "wait_ms": 3010.0, "queue_ms": 2900.0}, "capacity"),
        ({"status": 504, "error": "TimeoutError", "wait_ms": 60_000.0, "queue_ms": 2900.0}, "model_fault"),
        ({"status": 504, "error": "TimeoutError", "wait_ms": 200.0, "queue_ms": 0.0}, "model_fault"),
        (
            {"status": 504, "error": "TimeoutError", "first_token_ms": 9.0, "wait_ms": 9.0, "queue_ms": 5.0},
            "model_fault",
        ),
        (
            {"status": 504, "error": "TimeoutError", "first_token_ms": 9.0, "wait_ms": 5000.0, "queue_ms": 4990.0},
            "capacity",
        ),
        ({"status": 499, "error": "ClientGone", "wait_ms": 9000.0, "queue_ms": 8900.0}, "client_left"),
        ({"status": 499, "error": "ClientGone", "wait_ms": 9000.0, "queue_ms": 100.0}, "model_fault"),
        ({"status": 503, "error": "EngineStopped"}, "capacity"),
        (MISTAKE, "client_mistake"),
        ({"status": 422, "error": "ValueError", "wait_ms": 9000.0}, "client_mistake"),
        (LEFT, "client_left"),
        ({"status": 499, "error": "ClientGone", "wait_ms": None}, "client_left"),
        ({"status": 499, "error": "ClientGone", "first_token_ms": 20.0, "wait_ms": 40.0}, "client_left"),
        ({"status": 499, "error": "ClientGone", "first_token_ms": 20.0, "wait_ms": 3001.0}, "model_fault"),
        (HANGS, "model_fault"),
    ],
)
def test_every_attempt_has_one_class(fields: dict[str, Any], expected: str) -> None:
    record = TrafficRecord(request_id="r", time=1.0, version="1", arm="champion", **fields)
    assert classify_record(record, OBJECTIVE_MS) == expected


def test_a_full_queue_is_not_the_models_fault() -> None:
    outcome, classes, checks = monitored(records("1", (126, ANSWERED), (224, QUEUE_FULL)))
    assert outcome != "rollback"
    assert (classes["answered"], classes["capacity"], classes["model_fault"]) == (126, 224, 0)
    assert {check.outcome for check in checks} == {"pass"} and checks[0].n == 126
    assert canary(records("2", (126, ANSWERED), (224, QUEUE_FULL))).action == "advance"


def test_an_attempt_is_queued_while_the_slots_are_taken() -> None:
    slots = Slots(2)
    first, second, third, fourth, other = (slots.enter(version, now) for now, version in enumerate("11112"))
    slots.note_event("1", 20)
    slots.leave(second, 10)
    assert [slots.queue_ms(place, 20) for place in (first, second, third, fourth, other)] == [0, 0, 8000, 17_000, 0]
    slots.note_event("1", 30)
    slots.leave(fourth, 30)
    slots.leave(first, 40)
    assert slots.queue_ms(fourth, 30) == 27_000 and slots.queue_ms(third, 50) == 8000
    assert slots.queue_ms(slots.enter("1", 50), 60) == 0


def test_behind_a_version_without_events_nobody_is_queued() -> None:
    slots = Slots(1)
    running, waiting = slots.enter("1", 0), slots.enter("1", 1)
    slots.note_event("2", 9)
    assert slots.queue_ms(waiting, 9) == 0
    slots.note_event("1", 4)
    slots.leave(running, 9)
    assert slots.queue_ms(waiting, 9) == 3000 and slots.queue_ms(slots.enter("1", 5), 9) == 0


@pytest.mark.parametrize(("gives_events", "expected"), [(False, "model_fault"), (True, "capacity")])
def test_a_version_that_hangs_is_at_fault_however_many_wait_for_it(gives_events: bool, expected: str) -> None:
    slots, line, classes = Slots(8), list[Place](), []
    for second in range(100):  # eight requests a second, each of which gives up after 3 s
        if gives_events:
            slots.note_event("1", second)
        for place in [place for place in line if second - place.entered == 3]:
            queue_ms = slots.queue_ms(place, second)
            waited = {"first_token_ms": None, "wait_ms": 3000.1, "queue_ms": queue_ms, "objective_ms": OBJECTIVE_MS}
            classes.append(classify(504, "TimeoutError", **waited))
            slots.leave(place, second)
            line.remove(place)
        line += [slots.enter("1", second) for _ in range(8)]
    assert set(classes[8:]) == {expected}


def test_nothing_but_refusals_is_no_data_and_never_a_pass() -> None:
    outcome, _, checks = monitored(records("1", (350, QUEUE_FULL)))
    assert outcome == "alert" and checks[0].reason == "error_rate n=0 < 30 requests"
    assert canary(records("2", (350, QUEUE_FULL))).action == "wait"


def test_clients_mistakes_do_not_dilute_a_challengers_errors() -> None:
    answers = records("2", (266, ANSWERED), (34, FAULT), (1050, MISTAKE), (1050, LEFT))
    decision = canary(answers)
    assert decision.action == "abort" and "error rate 9.4% shown above 2.0%" in decision.reason
    assert "n=360" in decision.reason


def test_totals_forget_nothing_however_much_comes_after() -> None:
    recent = RecentRequests(size=10)
    for record in records("2", (5, FAULT), (300, ANSWERED), (7, QUEUE_FULL), (3, MISTAKE), (2, LEFT)):
        recent.add(record, classify_record(record, OBJECTIVE_MS))
    counted = recent.measurements("2")
    expected = {"answered": 300, "model_fault": 5, "capacity": 7, "client_mistake": 3, "client_left": 2}
    assert counted.counts == {"live": expected}
    assert counted.judged("live") == (305, 5) and counted.judged("replay") == (0, 0)
    shown = recent.overview(now=1003.17 + 60)["2"]
    assert (shown["requests"], shown["errors"], shown["not_judged"], shown["latency_p50_ms"]) == (305, 5, 12, 20.0)
    assert shown["latency_p95_minute_ms"] is None and recent.overview(now=1003.0)["2"]["latency_p95_minute_ms"] == 20.0


def test_clients_mistakes_do_not_displace_a_challengers_errors_from_memory() -> None:
    assert canary(records("2", (266, ANSWERED), (34, FAULT), (2100, MISTAKE)), memory=300).action == "abort"


def test_a_challenger_that_hangs_until_its_clients_leave_is_dropped() -> None:
    decision = canary(records("2", (60, ANSWERED), (40, HANGS)))
    assert decision.action == "abort" and "error rate 25.0%" in decision.reason
    outcome, classes, _ = monitored(records("1", (60, ANSWERED), (40, HANGS)))
    assert (outcome, classes["model_fault"]) == ("rollback", 40)


GROUPS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from([ANSWERED, FAULT, HANGS])), max_size=6)
EXTRA = st.lists(st.tuples(st.integers(0, 300), st.sampled_from(NOT_JUDGED)), max_size=4)


@given(GROUPS, EXTRA, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_does_not_judge_a_version_never_changes_a_canarys_decision(
    groups: list[tuple[int, dict[str, Any]]], extra: list[tuple[int, dict[str, Any]]], random: Any
) -> None:
    judged, others = records("2", *groups), records("2", *extra)
    assert all(classify_record(record, OBJECTIVE_MS) in JUDGED for record in judged)
    mixed = [*judged, *others]
    order = sorted(range(len(mixed)), key=lambda index: (random.random() if index >= len(judged) else 0.5, index))
    assert canary([mixed[index] for index in order]) == canary(judged)


@given(GROUPS, EXTRA)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_what_does_not_judge_a_version_never_changes_the_monitors_decision(
    groups: list[tuple[int, dict[str, Any]]], extra: list[tuple[int, dict[str, Any]]]
) -> None:
    alone, _, checks = monitored(records("1", *groups))
    mixed, _, with_others = monitored([*records("1", *groups), *records("1", *extra)])
    assert (mixed, with_others) == (alone, checks)


def test_quantiles_are_of_the_newest_answers() -> None:
    recent = RecentRequests(size=100)
    random = Random(1)
    times = [random.choice([5.0, 5.0, random.uniform(1, 100)]) for _ in range(1000)]
    for number, first_token_ms in enumerate(times):
        fields = {**ANSWERED, "first_token_ms": first_token_ms}
        recent.add(records("1", (1, fields))[0], "answered")
        newest = sorted(times[max(0, number - 99) : number + 1])
        shown = recent.overview(now=1e9)["1"]
        assert shown["first_token_p50_ms"] == newest[math.ceil(0.5 * len(newest)) - 1]
        assert shown["first_token_p95_ms"] == newest[math.ceil(0.95 * len(newest)) - 1]
