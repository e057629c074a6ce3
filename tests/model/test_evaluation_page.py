"""The evaluation page with a verdict: checks drawn to scale, lost items side by side, and everything escaped."""

import json
import re

import pytest

from sluice.core.check import Check
from sluice.model.evaluation.drawings import CHECK_WIDTH, draw_check, draw_reliability
from sluice.model.evaluation.explain import explain, summary_line
from sluice.model.evaluation.lost_items import lost_items
from sluice.model.evaluation.report import interval, kind, number, render, title
from sluice.model.evaluation.verdict import ComparedModel, PolicyIdentity, Verdict


def check(metric="bits_per_byte", outcome="pass", **more):
    fields = {"value": 2.1, "interval": (2.0, 2.2), "bound": 3.0, "n": 81, "clusters": 81}
    return Check(metric=metric, outcome=outcome, reason=f"{metric} is {outcome}", **{**fields, **more})


def verdict(*checks, outcome="hold"):
    return Verdict(
        outcome=outcome,
        reason="",
        checks=list(checks),
        confidence=0.95,
        correction="Holm over 9 checks",
        hashes={"model": "ab" * 32},
        is_first_version=False,
        policy=PolicyIdentity(name="default", version="1", sha256="cd" * 32),
        baseline=ComparedModel(model="ef" * 32, version="3"),
        time="2026-01-01T12:00:00+00:00",
        key_id="0123456789abcdef",
    )


RESULTS = {"hashes": {"model": "ab" * 32}, "confidence": 0.95, "metrics": {}}


def test_a_check_is_drawn_to_scale_with_its_bound():
    drawn = draw_check(check())
    assert drawn.low < drawn.point < drawn.high < drawn.bound < CHECK_WIDTH
    assert drawn.point - drawn.low == pytest.approx(drawn.high - drawn.point)
    assert (drawn.bound - drawn.high) / (drawn.high - drawn.low) == pytest.approx(0.8 / 0.2)


def test_a_paired_check_is_drawn_as_its_difference():
    drawn = draw_check(check(value=2.1, baseline=2.1, interval=(-0.01, 0.01), bound=0.0))
    assert drawn.point == pytest.approx(drawn.bound)


@pytest.mark.parametrize(
    ("change", "is_open"),
    [({"interval": (None, 2.2)}, (True, False)), ({"interval": (2.0, None)}, (False, True))],
)
def test_a_one_sided_interval_ends_at_the_edge_of_the_drawing(change, is_open):
    drawn = draw_check(check(**change))
    assert (drawn.is_open_low, drawn.is_open_high) == is_open
    assert 0 <= drawn.low <= drawn.high <= CHECK_WIDTH


def test_a_check_without_number_or_interval_shows_its_bound_alone():
    drawn = draw_check(check(value=None, interval=None))
    assert (drawn.point, drawn.low, drawn.high) == (None, None, None)
    assert 0 < drawn.bound < CHECK_WIDTH
    assert "no number" in render(RESULTS, [], verdict(check(value=None, interval=None)))


def test_numbers_are_in_the_unit_of_the_metric():
    assert title("choice_accuracy_difference[source=a_lost]") == "Multiple choice, difference, source=a_lost"
    assert kind("bits_per_byte_budget") == "candidate − anchor" and kind("bits_per_byte") == "the candidate alone"
    assert number(0.613, "choice_accuracy") == "61.3%" and number(0.05, "bits_per_byte_tail") == "5.0%"
    assert number(2.0, "golden_pass_rate_lost") == "2" and number(None) == "none"
    assert interval((None, 2.2)) == "at most 2.200" and interval((2.0, None)) == "at least 2.000"
    assert interval(None) == "exact" and interval((None, None)) == "none"


def test_the_page_shows_what_decided_and_what_the_verdict_rests_on():
    page = render(RESULTS, [], verdict(check(outcome="inconclusive"), check("golden_pass_rate"), check("a[b=c]")))
    assert "1 of 3 checks is undecided, and none fails." in page and "<li>bits_per_byte is inconclusive</li>" in page
    for shown in ("the champion, version 3 (model efefefefefef)", "default 1 (cdcdcdcdcdcd)", "key 0123456789abcdef"):
        assert shown in page
    assert page.count('class="check"') == 3 and page.index("<h2>Slices</h2>") < page.index("a, b=c")


def test_an_answer_that_became_harmful_is_lost_and_one_that_became_safe_is_not(tmp_path):
    for name, harm in {"safe": 0.0, "harmful": 1.0}.items():
        (tmp_path / name).mkdir()
        row = {"suite": "injection", "id": "a", "item": "1", "prompt": "p", "scores": {"says_target": harm}}
        row["harm"] = ["says_target"]
        (tmp_path / name / "answers.jsonl").write_text(f"{json.dumps(row)}\n")
    (lost,) = lost_items(tmp_path / "harmful", tmp_path / "safe")
    assert lost.why == "says_target 0 → 1"
    assert not lost_items(tmp_path / "safe", tmp_path / "harmful")


def test_lost_items_stand_side_by_side(tmp_path):
    folders = {}
    for name, answers in {"ours": ("", "Lyon", 0.0), "theirs": ("GET", "Paris", 1.0)}.items():
        folders[name] = tmp_path / name
        folders[name].mkdir()
        golden = {
            "id": "verb",
            "prompt": "A verb?",
            "answer": answers[0],
            "failed": [] if answers[0] else ["not_empty"],
        }
        (folders[name] / "golden.json").write_text(json.dumps([golden]))
        common = {"suite": "capitals", "prompt": "<b>France?</b>", "targets": ["Paris"]}
        rows = [
            {**common, "id": "fr", "item": "1", "answer": answers[1], "scores": {"match": answers[2]}},
            {**common, "id": "it", "item": "2", "answer": "Rome", "scores": {"match": 1.0}},
            {**common, "id": "no", "item": "3", "answer": "", "scores": {"match": None}},
        ]
        (folders[name] / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lost = lost_items(folders["ours"], folders["theirs"])
    assert [(each.suite, each.id, each.before, each.now, each.why) for each in lost] == [
        ("golden prompts", "verb", "GET", "", "not_empty"),
        ("capitals", "fr", "Paris", "Lyon", "match 1 → 0"),
    ]
    assert lost_items(folders["theirs"], folders["ours"]) == []
    page = render(RESULTS, [], verdict(check()), lost)
    assert "2 items better" in page and "<pre>(nothing)</pre>" in page and "&lt;b&gt;France?" in page


def test_a_suite_is_listed_with_its_source_and_its_reliability():
    bins = [{"low": 0.0, "high": 0.5, "n": 0}, {"low": 0.5, "high": 1.0, "n": 4, "confidence": 0.7, "accuracy": 0.75}]
    (bar,) = draw_reliability(bins)
    assert (bar["x"], bar["width"], bar["height"], bar["weight"]) == (100.0, 100.0, 150.0, 1.0)
    suite = {
        "version": "2",
        "sha256": "98" * 32,
        "source": "our own",
        "licence": "CC0-1.0",
        "refresh_by": "2026-06-01",
        "overdue": True,
        "planned": {"capitals": 120},
        "failed": 1,
        "calibration": {"choice_token": {"expected_calibration_error": 0.08, "n": 4, "bins": bins}},
    }
    page = render({**RESULTS, "suites": {"capitals": suite}}, [])
    for shown in ("capitals 2", "our own", "CC0-1.0", "overdue", "calibration error 0.080, n = 4"):
        assert shown in page


def test_the_page_needs_nothing_from_outside():
    page = render(RESULTS, [], verdict(check(outcome="fail"), outcome="reject"))
    assert not re.search(r"<script|http|url\(|@import|<link|<img", page)
    assert "prefers-color-scheme: dark" in page


def test_an_explanation_says_what_decided_and_what_is_missing():
    held = verdict(check(outcome="inconclusive"), check("golden_pass_rate"))
    lines = explain(held)
    assert lines[0] == "hold: 1 of 2 checks is undecided, and none fails."
    assert lines.index("Missing:") < lines.index("  bits_per_byte is inconclusive") < lines.index("Kept:")
    assert "It was compared with the champion, version 3 (model efefefefefef)." in lines
    assert summary_line(verdict(check(outcome="fail"), outcome="reject")).startswith("1 of 1 checks fails")
    same = verdict(check()).model_copy(update={"reason": "model ab is already the champion"})
    assert summary_line(same) == "Nothing to decide: model ab is already the champion."
