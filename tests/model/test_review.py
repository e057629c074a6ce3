"""Review by people: what goes out, that it is blinded, what comes back, and its weight."""

import csv
import io
import json
import re

import pytest

from sluice.model.evaluation.results import Evaluation, Item
from sluice.model.evaluation.review.ratings import read_ratings
from sluice.model.evaluation.review.record import Rating, apply_review, majority, merge, summarize, unreviewed
from sluice.model.evaluation.review.selection import Reviewable, ReviewItem, select
from sluice.model.evaluation.review.sheet import FILLED, SHOWN, blind, defuse, review_key, write_sheet

KEY = b"k" * 32
RESULTS = {"suites": {"risky": {"high_risk": True}, "plain": {"high_risk": False, "judged": {"plain.answer": {}}}}}


def row(suite, item, answer="yes", **more):
    return {"suite": suite, "id": item, "item": item, "prompt": f"Q {item}", "answer": answer, "scores": {}, **more}


def reviewable(n=12, *, two=True, high_risk=True):
    items = [
        ReviewItem(
            "risky",
            f"i{number}",
            f"Q{number}",
            {"candidate": f"ours {number}", **({"baseline": f"theirs {number}"} if two else {})},
            high_risk,
        )
        for number in range(n)
    ]
    return Reviewable("e" * 64, tuple(items))


def filled(items, **cells):
    """CSV of the items with these cells in each row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*SHOWN, *FILLED])
    writer.writeheader()
    for item in items:
        two = len(item.order) == 2
        values = {"rater": "r1", "rating_1": "pass", "rating_2": "pass" * two, "better": "tie" * two, **cells}
        writer.writerow({**dict.fromkeys(SHOWN, ""), "id": item.id, **values})
    return text.getvalue()


def test_high_risk_comes_first_and_of_the_rest_what_is_disputed():
    answers = [
        row("plain", "agreed", scores={"exact": 1.0, "answer": 0.75}),
        row("plain", "scorers disagree", scores={"exact": 0.0, "answer": 1.0}),
        row("plain", "judge failed", judge_error="no JSON", scores={"exact": 1.0}),
        row("plain", "flipped", flipped=True),
        row("plain", "baseline disputed", scores={"exact": 1.0, "other": None}),
        row("risky", "calm", scores={"exact": 1.0}),
    ]
    baseline = [row("plain", "baseline disputed", "no", scores={"exact": 1.0, "answer": 0.0})]
    found = select(RESULTS, answers, baseline)
    assert [(each.item, each.high_risk) for each in found] == [
        ("calm", True),
        ("scorers disagree", False),
        ("judge failed", False),
        ("flipped", False),
        ("baseline disputed", False),
    ]
    assert found[-1].answers == {"candidate": "yes", "baseline": "no"} and found[0].answers == {"candidate": "yes"}


def test_ids_say_nothing_and_the_order_follows_the_key_alone():
    items = blind(reviewable(60), KEY)
    assert items == blind(reviewable(60), KEY)
    assert all(re.fullmatch(r"r[0-9a-f]{20}", each.id) for each in items) and len({each.id for each in items}) == 60
    first = sum(each.order[0] == "candidate" for each in items)
    assert 15 < first < 45
    other = {each.item.item: each.order for each in blind(reviewable(60), b"o" * 32)}
    assert any(other[each.item.item] != each.order for each in items)
    again = {each.id for each in blind(Reviewable("f" * 64, reviewable(60).items), KEY)}
    assert again.isdisjoint(each.id for each in items)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_sheet_names_no_model_and_no_person(tmp_path, suffix):
    items = (
        ReviewItem(
            "risky", "i1", "Mail jane@example.org?", {"candidate": 'ours\n"quoted", 1', "baseline": "theirs"}, True
        ),
    )
    (blinded,) = blind(Reviewable("e" * 64, items), KEY)
    path = tmp_path / f"sheet{suffix}"
    write_sheet(path, [blinded])
    text = path.read_text(encoding="utf-8-sig")
    assert not re.search("candidate|baseline|champion|i1|risky|jane", text) and "<EMAIL>" in text
    found = json.loads(text) if suffix == ".jsonl" else next(csv.DictReader(io.StringIO(text, newline="")))
    assert list(found) == [*SHOWN, *FILLED]
    shown = {"candidate": 'ours\n"quoted", 1', "baseline": "theirs"}
    assert [found["answer_1"], found["answer_2"]] == [shown[name] for name in blinded.order]


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u00a0=cmd|'/c calc'!A1", "\uff1d1"]
)
def test_no_cell_is_a_formula(tmp_path, cell):
    assert defuse(cell) == f"'{cell}"
    items = (ReviewItem("s", "i", cell, {"candidate": cell}, True),)
    path = tmp_path / "sheet.csv"
    write_sheet(path, blind(Reviewable("e", items), KEY))
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    assert all(not value.lstrip().startswith(tuple("=+-@\uff1d")) for value in rows[1])
    assert defuse("a = b") == "a = b" and defuse("") == ""


def test_ratings_come_back_to_their_models(tmp_path):
    items = blind(reviewable(), KEY)
    path = tmp_path / "sheet.csv"
    path.write_text(filled(items, rating_1="Pass ", rating_2="fail", better="first"), encoding="utf-8-sig")
    for rating, blinded in zip(read_ratings(path, items), items, strict=True):
        assert rating.passed == {blinded.order[0]: True, blinded.order[1]: False} and rating.better == blinded.order[0]
    path.write_text(filled(items).replace(",", ";"))
    assert len(read_ratings(path, items)) == 12
    assert all(each.better == "tie" for each in read_ratings(path, items))


def test_a_single_answer_needs_one_rating(tmp_path):
    items = blind(reviewable(two=False), KEY)
    path = tmp_path / "sheet.csv"
    path.write_text(filled(items, rating_1="fail"))
    assert [each.passed for each in read_ratings(path, items)] == [{"candidate": False}] * 12
    path.write_text(filled(items, better="first"))
    with pytest.raises(ValueError, match="there is one answer: leave rating_2 and better empty"):
        read_ratings(path, items)


def test_lines_that_nobody_filled_in_are_left_out(tmp_path):
    items = blind(reviewable(), KEY)
    path = tmp_path / "sheet.jsonl"
    write_sheet(path, items)
    assert read_ratings(path, items) == []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3] |= {"rater": "r2", "rating_1": "pass", "rating_2": "fail", "better": "second"}
    path.write_text("\n".join(map(json.dumps, rows)))
    (found,) = read_ratings(path, items)
    assert (found.rater, found.item) == ("r2", items[3].item.item)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ({"id": "rffff"}, "id rffff is none of this evaluation's"),
        ({"id": ""}, "id without a value"),
        ({"rater": ""}, "rater is a short id"),
        ({"rater": "jane@example.org"}, "rater is a short id"),
        ({"rater": "=1+1"}, "rater is a short id"),
        ({"rating_1": "good"}, "rating_1 is good: write pass or fail"),
        ({"rating_2": ""}, "rating_2 is empty"),
        ({"rating_1": "1"}, "rating_1 is 1"),
        ({"better": "candidate"}, "better is candidate: write first, second, tie"),
        ({"better": ""}, "better is empty"),
    ],
)
def test_a_wrong_line_is_named_with_its_reason(tmp_path, cells, said):
    items = blind(reviewable(), KEY)
    path = tmp_path / "sheet.csv"
    path.write_text(filled(items[:1]) + filled(items[1:2], **cells).partition("\n")[2])
    with pytest.raises(ValueError, match=re.escape(f"{path}:3: {said}")):
        read_ratings(path, items)


def test_lines_are_counted_across_cells_with_line_breaks(tmp_path):
    items = blind(reviewable(), KEY)
    path = tmp_path / "sheet.csv"
    path.write_text(filled(items[:1], prompt="a\nb\nc") + filled(items[1:2], better="x").partition("\n")[2])
    with pytest.raises(ValueError, match=re.escape(f"{path}:5: better is x")):
        read_ratings(path, items)


def test_all_wrong_lines_are_named_up_to_ten(tmp_path):
    items = blind(reviewable(30), KEY)
    path = tmp_path / "sheet.csv"
    path.write_text(filled(items, better="x"))
    with pytest.raises(ValueError) as error:
        read_ratings(path, items)
    assert str(error.value).count(": better is x") == 10 and "and 20 more lines" in str(error.value)


def test_a_second_rating_of_one_rater_is_refused_and_of_another_one_taken(tmp_path):
    items = blind(reviewable(), KEY)
    path = tmp_path / "sheet.csv"
    line = filled(items[:1]).partition("\n")[2]
    path.write_text(filled(items[:1]) + line)
    with pytest.raises(ValueError, match=rf":3: r1 rated {items[0].id} on line 2 already"):
        read_ratings(path, items)
    path.write_text(filled(items[:1]) + filled(items[:1], rater="r2").partition("\n")[2])
    assert [each.rater for each in read_ratings(path, items)] == ["r1", "r2"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"id,prompt\nx,y\n", ":1: no column rater"),
        ("a.csv", b"", ":1: no column id"),
        ("a.csv", "id\n\xe9".encode("latin-1"), "is not UTF-8"),
        ("a.jsonl", b"{", ":1: no JSON"),
        ("a.jsonl", b"\n[1]", ":2: no JSON object"),
        ("a.jsonl", b'{"id": "r"}', ":1: no field rater"),
        (
            "a.jsonl",
            b'{"id": 1, "rater": "r", "rating_1": "pass", "rating_2": "", "better": ""}',
            ":1: id is 1: write text",
        ),
        ("a.xlsx", b"", "a review is .csv or .jsonl"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)):
        read_ratings(path, [])
    with pytest.raises(ValueError, match="cannot be read"):
        read_ratings(tmp_path / "missing.csv", [])


def rating(item, passed, rater="r1", better="tie", suite="risky"):
    return Rating(suite, item, rater, {"candidate": passed, "baseline": True}, better)


def test_what_was_imported_before_may_come_again_but_not_differ():
    earlier = [rating("i0", True)]
    assert merge(earlier, [rating("i0", True), rating("i1", False)]) == [rating("i0", True), rating("i1", False)]
    with pytest.raises(ValueError, match="r1 rated item i0 of risky otherwise in an earlier import"):
        merge(earlier, [rating("i0", False)])


def test_agreement_and_preference_are_summarized():
    ratings = [rating(f"i{n}", n % 2 == 0, better="candidate" if n < 9 else "baseline") for n in range(12)]
    ratings += [rating(f"i{n}", n % 2 == 0, "r2") for n in range(11)] + [rating("i11", True, "r2")]
    found = summarize(reviewable(), ratings)
    assert (found["required"], found["reviewed"], found["raters"], found["rated_twice"]) == (12, 12, 2, 24)
    assert 0.8 < found["alpha"] < 1 and found["alpha_interval"][0] < found["alpha"]
    assert found["win_rate"] == pytest.approx((9 + 6) / 24)
    empty = summarize(reviewable(), [])
    assert (empty["required"], empty["reviewed"], empty["alpha"], empty["win_rate"]) == (12, 0, None, None)
    json.dumps([found, empty], allow_nan=False)


def test_most_raters_decide_and_a_draw_does_not_pass():
    ratings = [
        rating("i", True),
        rating("i", True, "r2"),
        rating("i", False, "r3"),
        rating("j", True),
        rating("j", False, "r2"),
    ]
    assert majority(ratings, "candidate") == {("risky", "i"): True, ("risky", "j"): False}


def evaluation():
    items = {
        "plain.answer": tuple(Item("plain.answer", f"p{n}", 1.0) for n in range(4)),
        "plain.exact": tuple(Item("plain.exact", f"p{n}", 1.0) for n in range(4)),
        "risky": tuple(Item("risky", f"i{n}", 1.0, cluster=f"c{n}") for n in range(12)),
    }
    planned = {metric: len(rows) for metric, rows in items.items()}
    return Evaluation({**RESULTS, "hashes": {}, "planned": planned}, items)


def test_a_person_outranks_a_judge_and_no_other_scorer():
    found = apply_review(evaluation(), reviewable(), [rating("p1", False, suite="plain")])
    assert [item.value for item in found.items["plain.answer"]] == [1, 0, 1, 1]
    assert found.items["plain.answer"][1].metadata["scored_by"] == "person"
    assert found.items["plain.exact"] == evaluation().items["plain.exact"]


def test_high_risk_waits_for_a_person():
    assert "12 of 12" not in (unreviewed({"suites": {}}) or "") and unreviewed({"suites": {}}) is None
    assert "all items of high risk (risky)" in unreviewed(evaluation().results)
    some = apply_review(evaluation(), reviewable(), [rating(f"i{n}", True) for n in range(11)])
    assert "1 of 12 items of high risk (risky) are not reviewed" in unreviewed(some.results)
    assert some.planned("risky.review") == 12 and len(some.items["risky.review"]) == 11
    done = apply_review(evaluation(), reviewable(), [rating(f"i{n}", n > 0) for n in range(12)])
    assert unreviewed(done.results) is None
    assert [(item.value, item.cluster) for item in done.items["risky.review"][:2]] == [(0, "c0"), (1, "c1")]
    baseline = apply_review(evaluation(), reviewable(), [rating(f"i{n}", False) for n in range(12)], "baseline")
    assert all(item.value == 1 for item in baseline.items["risky.review"])


def test_a_suite_of_high_risk_without_answers_stays_unreviewed():
    assert unreviewed(apply_review(evaluation(), Reviewable("e", ()), [rating("p", True, suite="plain")]).results)
    untouched = evaluation()
    assert apply_review(untouched, reviewable(high_risk=False), []) is untouched


def test_the_key_is_made_once_and_a_damaged_one_is_refused(tmp_path):
    key = review_key(tmp_path / "keys")
    assert len(key) == 32 and review_key(tmp_path / "keys") == key
    (tmp_path / "keys" / "review.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="has 5 bytes instead of 32"):
        review_key(tmp_path / "keys")
