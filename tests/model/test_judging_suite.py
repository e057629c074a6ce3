"""A judge beside a suite's scorers: rows, errors, what the answers and results say of it, and its kept replies."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from sluice.model.evaluation.evaluated import GeneratedAnswer
from sluice.model.evaluation.judging.judge import LabelledAnswer
from sluice.model.evaluation.judging.rubric import JudgedAnswer, Rubric
from sluice.model.evaluation.judging.suite import add_compared, add_judged
from sluice.model.evaluation.prompt_texts import evaluation_prompts
from sluice.model.evaluation.review.selection import is_disputed
from sluice.model.evaluation.suites.cache import AnswerCache, CachedModel
from sluice.model.evaluation.suites.run import run_suite
from sluice.model.evaluation.suites.suite import Judging, Suite, load_suite

RUBRIC = Rubric(name="helpful", version=1, instructions="Score 1 for a good answer.")


class Model:
    """Replies by a function of the last message."""

    can_score = False

    def __init__(self, reply, model_hash="m"):
        self.reply, self.model_hash, self.asked = reply, model_hash, 0

    def generate(self, requests, progress=None):
        self.asked += len(requests)
        found = [self.reply(request.prompt[-1].content) for request in requests]
        return [each if isinstance(each, GeneratedAnswer) else GeneratedAnswer(each, 1, "stop") for each in found]


def judge(text):
    return json.dumps({"score": float("right" in text.partition(" answer\n")[2])})


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    import hashlib

    rows = [{"id": f"q{n}", "question": f"Q{n}", "target": "right 0", "topic": f"t{n // 2}"} for n in range(60)]
    data = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "s.jsonl").write_text(data)
    (tmp_path / "s.yaml").write_text(
        "name: s\nversion: 1\nsource: test\nlicence: MIT\ncreated: 2026-01-01\nrefresh_by: 2027-01-01\ndata: s.jsonl\n"
        f"sha256: {hashlib.sha256(data.encode()).hexdigest()}\nscorers: [exact]\ncluster: topic\nmetadata: [topic]\n"
    )
    return load_suite(tmp_path / "s.yaml")


def labelled(n=100):
    texts = [f"{'right' if number % 2 else 'wrong'} {number}" for number in range(n)]
    return [LabelledAnswer(JudgedAnswer(text, "Q", text), "right" in text) for text in texts]


def answering(text):
    number = int(text.removeprefix("Q"))
    return (
        GeneratedAnswer("", 0, "error", "broke") if number == 59 else f"{'right' if number < 30 else 'wrong'} {number}"
    )


def run(suite, reply=judge, labels=None):
    labels = labelled() if labels is None else labels
    done = run_suite(Model(answering), suite, today=date(2026, 6, 1))
    add_judged(done, replace(suite, judging=Judging(RUBRIC, tuple(labels))), reply and Model(reply, "j"))
    return done, done.entry["scorers"]


def test_a_judge_is_a_metric_of_the_suite(suite, tmp_path):
    done, scorers = run(suite)
    rows = [item for item in done.items if item.metric == "s.helpful"]
    assert len(rows) == done.entry["planned"]["s.helpful"] == 60
    assert sum(item.value for item in rows) == 30 and rows[59].value == 0 and rows[59].metadata["error"] == "broke"
    assert rows[2].cluster == "t1" and rows[2].metadata["topic"] == "t1"
    assert scorers["judge-helpful"]["kappa_low"] >= 0.6 and scorers["judge-helpful"]["planned"] == 59
    assert done.entry["judged"] == {"s.helpful": "judge-helpful"}
    assert done.entry["prompts"]["rubric-helpful"] == RUBRIC.sha256
    (tmp_path / "results.json").write_text(json.dumps({"suites": {"s": done.entry}}))
    golden = {"id": "g", "kind": "chat", "prompt": "Hi", "answer": "Hello", "failed": []}
    (tmp_path / "golden.json").write_text(json.dumps([golden]))
    texts = evaluation_prompts(tmp_path)
    assert json.loads(texts.pop("golden")) == [{"id": "g", "kind": "chat", "prompt": "Hi"}]
    assert texts["s"] == "{question}" and "Score 1 for a good answer." in texts["s.rubric.helpful"] and len(texts) == 2
    # The list of right answers says no to "right 1", the judge says yes.
    assert [is_disputed(row) for row in done.answers[:3]] == [False, True, True]


def test_a_judge_that_fails_too_often_has_no_rows(suite):
    done, scorers = run(suite, lambda text: "{}" if "right 1" in text else judge(text))
    assert not [item for item in done.items if item.metric == "s.helpful"] and done.entry["planned"]["s.helpful"] == 60
    assert scorers["judge-helpful"]["conclusive"] is False
    assert "no field score" in done.answers[1]["judge_error"] and is_disputed(done.answers[1])


def test_a_judge_without_labels_has_no_kappa(suite):
    _, scorers = run(suite, labels=[])
    assert scorers["judge-helpful"]["kappa_low"] is None and scorers["judge-helpful"]["decides"] is False


def test_a_judge_s_replies_are_kept_as_a_model_s_answers_are(suite, tmp_path):
    done, counts = [], []
    for _ in range(2):
        server = Model(judge, "a" * 64)
        with AnswerCache(tmp_path / "cache", server.model_hash) as cache:
            kept = CachedModel(server.model_hash, False, lambda server=server: server, cache)
            found = run_suite(Model(answering), suite, today=date(2026, 6, 1))
            add_judged(found, replace(suite, judging=Judging(RUBRIC, tuple(labelled()))), kept)
        done.append((found.items, found.answers, found.entry))
        counts.append(server.asked)
    assert done[0] == done[1] and counts[0] == 159 and counts[1] == 0


def test_without_a_judge_the_metric_has_no_rows(suite):
    done, _ = run(suite, None)
    assert not [item for item in done.items if item.metric == "s.helpful"]
    assert done.entry["planned"]["s.helpful"] == 60 and "set SLUICE_JUDGE_URL" in done.entry["unscored"]["s.helpful"]


def judged_suite(suite, tmp_path, judge):
    path = tmp_path / "s.yaml"
    path.write_text(path.read_text() + f"judge: {json.dumps(judge)}\n")
    return path


def test_a_suite_names_its_rubric_and_pins_its_labels(suite, tmp_path):
    import hashlib

    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        '{"prompt": "Q", "answer": "a", "passed": true}\n\n{"prompt": "Q", "answer": "b", "passed": false}\n'
    )
    pin = hashlib.sha256(labels.read_bytes()).hexdigest()
    path = judged_suite(suite, tmp_path, {"rubric": "answer", "labels": "labels.jsonl", "labels_sha256": pin})
    found = load_suite(path).judging
    assert found.rubric.name == "answer" and [each.passed for each in found.labelled] == [True, False]
    assert {each.answer.cluster for each in found.labelled} == {"Q"}
    labels.write_text(labels.read_text() + "\n")
    with pytest.raises(ValueError, match=r"labels\.jsonl: its sha256 is"):
        load_suite(path)
    for text, said in (
        ('{"prompt": "Q", "answer": "a", "passed": 1}', "line 1: passed is no true or false"),
        ('{"prompt": "Q"}', "line 1: answer is no text"),
        ("[1]", "line 1: prompt is no text"),
        ("{", "line 1: not JSON"),
        ("", "has no labelled answers"),
    ):
        labels.write_text(text)
        with pytest.raises(ValueError, match=said):
            load_suite(path)


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"rubric": "nothing"}, "nothing is no rubric: name a YAML file, or one of answer, better, refusal"),
        ({"rubric": "better"}, "rubric better is of kind pair: name one of kind score"),
        ({"rubric": "answer", "compare": "refusal"}, "rubric refusal is of kind score: name one of kind pair"),
        ({"rubric": "answer", "labels": "l.jsonl"}, "labels and labels_sha256 belong together"),
        ({"rubric": "answer", "labels": "l.jsonl", "labels_sha256": "0" * 64}, "l.jsonl cannot be read"),
    ],
)
def test_a_wrong_judge_is_refused(suite, tmp_path, judge, said):
    with pytest.raises(ValueError, match=said):
        load_suite(judged_suite(suite, tmp_path, judge))


def test_answers_are_compared_with_the_baseline_s_in_both_orders(suite):
    first = Model(lambda text: json.dumps({"better": "first"}) if "first answer" in text else judge(text))
    pair = Rubric(name="pair", version=1, kind="pair", instructions="Prefer the right answer.")

    def fair(text):
        if "first answer" not in text:
            return judge(text)
        ours, theirs = text.split("second answer")
        return json.dumps({"better": "first" if "right" in ours else "second" if "right" in theirs else "tie"})

    compared = replace(suite, judging=Judging(RUBRIC, tuple(labelled()), pair))
    baseline = run_suite(Model(lambda text: f"never {text}"), suite, today=date(2026, 6, 1))
    for asked, flipped, won in ((first, 59, 0.5), (Model(fair), 0, (30 + 29 / 2) / 59)):
        done = run_suite(Model(answering), suite, today=date(2026, 6, 1))
        add_judged(done, compared, asked)
        add_compared(done, compared, asked, baseline.answers, own="baseline")
        entry = done.entry["compared"]
        assert (entry["pairs"], entry["flipped"], entry["win_rate"]) == (59, flipped, pytest.approx(won))
        assert entry["win_rate_interval"][0] < won < entry["win_rate_interval"][1]
        assert sum(bool(row.get("flipped")) for row in done.answers) == flipped
        assert (entry["prefers_own"] is None) == (flipped == 59)
        assert done.entry["prompts"]["rubric-pair"] == pair.sha256
        json.dumps(entry, allow_nan=False)
