"""A suite's run: what the model is asked, and what becomes of each of its answers."""

import math
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from suites.suite_fixtures import RuleModel, asked, sums, write_suite

from sluice.model.evaluation.evaluated import AnswerRequest, GeneratedAnswer, Message
from sluice.model.evaluation.suites.run import run_suite
from sluice.model.evaluation.suites.suite import load_suite
from sluice.model.evaluation.suites.suite_run import SuiteRun

TODAY = date(2026, 6, 1)


def adder(request: AnswerRequest) -> str:
    """Right on sums, whatever is around them."""
    left, right = re.findall(r"(\d+)\s*\+\s*(\d+)", asked(request))[-1]
    return f"The answer is {int(left) + int(right)}."


def run(folder: Path, model: RuleModel, rows: Any = None, **settings: Any) -> SuiteRun:
    return run_suite(model, load_suite(write_suite(folder, rows or sums(), **settings)), today=TODAY)


def values(found: SuiteRun, metric: str) -> list[float]:
    return [item.value for item in found.items if item.metric == metric]


def test_every_sample_is_one_row_with_its_properties(tmp_path: Path) -> None:
    rows = [{**row, "topic": "even"} for row in sums(3)]
    found = run(tmp_path, RuleModel(adder), rows, cluster="topic", metadata=["topic"], language="en", task="addition")
    assert values(found, "sums") == [1, 1, 1]
    assert {item.cluster for item in found.items} == {"even"} and len({item.item for item in found.items}) == 3
    assert found.items[0].metadata == {
        "task": "addition",
        "prompt_length": "under 100",
        "language": "en",
        "topic": "even",
    }
    assert found.answers[1] | {"item": ""} == {
        "suite": "sums",
        "id": "s1",
        "item": "",
        "prompt": "1 + 1 =",
        "targets": ["2"],
        "answer": "The answer is 2.",
        "finish_reason": "stop",
        "scores": {"numeric": 1.0},
    }
    assert found.entry["planned"] == {"sums": 3} and not found.entry["overdue"]
    assert {"version", "sha256", "source", "licence", "refresh_by", "prompts"} <= found.entry.keys()


def test_several_scorers_are_several_metrics(tmp_path: Path) -> None:
    found = run(tmp_path, RuleModel(adder), scorers=["numeric", "exact"])
    assert values(found, "sums.numeric") == [1] * 4 and values(found, "sums.exact") == [0] * 4
    assert found.entry["planned"] == {"sums.numeric": 4, "sums.exact": 4}


def test_failed_answers_stay_in_the_denominator_and_name_their_error(tmp_path: Path) -> None:
    def answer(request: AnswerRequest) -> str | GeneratedAnswer:
        return GeneratedAnswer("2", 0, "error", "time-out after 30 s") if "1 + 1" in asked(request) else adder(request)

    found = run(tmp_path, RuleModel(answer))
    assert values(found, "sums") == [1, 0, 1, 1]
    assert [item.metadata.get("error") for item in found.items] == [None, "time-out after 30 s", None, None]
    assert found.entry["failed"] == 1 and found.answers[1]["error"] == "time-out after 30 s"


@pytest.mark.parametrize("text", ["", "   ", "x" * 20_000, "9" * 20_000, "1/" * 10_000])
def test_a_model_that_never_stops_or_says_nothing_ends_in_a_score(tmp_path: Path, text: str) -> None:
    model = RuleModel(lambda request: GeneratedAnswer(text, 64, "length"))
    found = run(tmp_path, model, scorers=["numeric", "exact", "quasi_exact", "contains", "f1", "rouge_l"])
    assert all(item.value == 0 for item in found.items) and len(found.items) == 24
    assert found.entry["unfinished"] == 4


def test_settings_reach_every_request(tmp_path: Path) -> None:
    model = RuleModel(adder)
    run(tmp_path, model, max_tokens=7, stop=["\n", "Q:"])
    assert {(r.max_tokens, r.stop, r.temperature) for r in model.generated} == {(7, ("\n", "Q:"), 0.0)}
    assert model.generated[0].prompt == (Message("user", "0 + 0 ="),)


def test_an_item_is_never_its_own_example(tmp_path: Path) -> None:
    rows = [*sums(5), {"id": "again", "question": "3 + 3 =", "target": 6}]
    model = RuleModel(adder)
    run(tmp_path, model, rows, few_shot=3, chat=False, choice_prefix=" ")
    for request, row in zip(model.generated, rows, strict=True):
        *examples, last = str(request.prompt).split("\n\n")
        assert last == row["question"] and len(examples) == 3
        assert not any(example.startswith(last) for example in examples)
        assert all(re.fullmatch(r"(\d) \+ \1 = \d+", example) for example in examples)


def test_examples_of_a_conversation_are_its_earlier_turns_and_come_from_other_clusters(tmp_path: Path) -> None:
    rows = [{**row, "topic": str(place % 2)} for place, row in enumerate(sums(4))]
    model = RuleModel(adder)
    run(tmp_path, model, rows, few_shot=2, cluster="topic")
    prompt = model.generated[0].prompt
    assert [message.role for message in prompt] == ["user", "assistant"] * 2 + ["user"]  # type: ignore[union-attr]
    assert {message.content for message in prompt[:4:2]} == {"1 + 1 =", "3 + 3 ="}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="lower few_shot"):
        run(tmp_path, model, rows, few_shot=3, cluster="topic")


CAPITALS = [
    {"id": 1, "question": "Capital of France?", "choices": ["Rome", "Paris"], "answer": 1},
    {"id": 2, "question": "Capital of Italy?", "choices": ["Rome", "Paris"], "answer": 0},
]


def test_choices_are_scored_and_calibrated(tmp_path: Path) -> None:
    likely = {"France": {"Paris": 0.1, "Rome": 3.0}, "Italy": {"Paris": 0.5, "Rome": 0.5}}
    model = RuleModel(nats=lambda r: next(v for k, v in likely.items() if k in asked(r))[r.continuation.strip()])
    found = run(tmp_path, model, CAPITALS, scorers=["choice_sum"], name="capitals", choice_prefix=" ")
    assert values(found, "capitals") == [1, 0]
    assert {request.continuation for request in model.scored} == {" Rome", " Paris"}
    assert [row["answer"] for row in found.answers] == ["Paris", None]
    calibration = found.entry["calibration"]["choice_sum"]
    assert found.entry["chance"] == {"capitals": 0.5}
    assert calibration["n"] == 2 and sum(each["n"] for each in calibration["bins"]) == 2


def test_a_choice_without_a_number_is_nan_and_no_right_answer(tmp_path: Path) -> None:
    found = run(tmp_path, RuleModel(nats=lambda r: math.nan), CAPITALS, scorers=["choice_sum", "choice_token"])
    assert all(math.isnan(item.value) for item in found.items) and len(found.items) == 4
    assert found.entry["calibration"]["choice_sum"] == {
        "expected_calibration_error": None,
        "n": 0,
        "bins": found.entry["calibration"]["choice_sum"]["bins"],
    }


def test_against_no_question_each_choice_is_scored_once_alone(tmp_path: Path) -> None:
    model = RuleModel(nats=lambda r: 1.0 if asked(r) == "Answer:" else 0.5 if "Rome" in r.continuation else 0.7)
    found = run(tmp_path, model, CAPITALS, scorers=["choice_gain"], alone_prompt="Answer:")
    assert values(found, "sums") == [0, 1]
    assert len(model.scored) == 6


def test_a_model_without_likelihoods_leaves_the_metric_without_rows(tmp_path: Path) -> None:
    model = RuleModel(lambda request: "B", can_score=False)
    prompt = "{question}\n{lettered_choices}"
    found = run(tmp_path, model, CAPITALS, scorers=["choice_sum", "choice_letter"], prompt=prompt)
    assert values(found, "sums.choice_letter") == [1, 0] and values(found, "sums.choice_sum") == []
    assert (
        found.entry["planned"]["sums.choice_sum"] == 2 and "likelihoods" in found.entry["unscored"]["sums.choice_sum"]
    )
    assert asked(model.generated[0]) == "Capital of France?\nA. Rome\nB. Paris"


def test_perturbed_prompts_are_scored_and_their_answers_compared(tmp_path: Path) -> None:
    rows = [{"id": n, "question": f"What is the sum {n} + 1?", "target": n + 1} for n in range(4)]
    model = RuleModel(lambda r: "?" if asked(r).isupper() or asked(r).islower() else adder(r))
    found = run(tmp_path, model, rows, perturbations=["case", "typos"])
    assert values(found, "sums") == [1] * 4
    assert values(found, "sums.case") == values(found, "sums.case_agreement") == [0] * 4
    assert values(found, "sums.typos") == values(found, "sums.typos_agreement") == [1] * 4
    assert found.answers[0]["perturbed"]["case"] == "?"


def test_drawn_answers_give_pass_at_k_and_a_spread_over_seeds(tmp_path: Path) -> None:
    def answer(request: AnswerRequest) -> str:
        return adder(request) if request.temperature and request.seed == 5 else "none"

    model = RuleModel(answer)
    found = run(tmp_path, model, sampling={"answers": 2, "seed": 5, "pass_at": [1, 2, 5]})
    assert values(found, "sums") == [0] * 4
    assert values(found, "sums.pass@1") == [0.5] * 4 and values(found, "sums.pass@2") == [1] * 4
    assert values(found, "sums.pass@5") == [] and found.entry["planned"]["sums.pass@5"] == 4
    assert found.entry["spread_over_seeds"]["means"] == [1, 0]
    assert found.entry["spread_over_seeds"]["standard_deviation"] == pytest.approx(math.sqrt(0.5), abs=1e-6)
    assert {request.seed for request in model.generated if request.temperature} == {5, 6}


def test_an_overdue_suite_says_so(tmp_path: Path) -> None:
    suite = load_suite(write_suite(tmp_path, sums(), refresh_by="2026-06-01"))
    assert not run_suite(RuleModel(adder), suite, today=date(2026, 6, 1)).entry["overdue"]
    assert run_suite(RuleModel(adder), suite, today=date(2026, 6, 2)).entry["overdue"]


def test_an_item_is_another_where_the_prompt_or_the_answer_is(tmp_path: Path) -> None:
    def ids(folder: str, rows: Any = None, **settings: Any) -> set[str]:
        return {item.item for item in run(tmp_path / folder, RuleModel(adder), rows, **settings).items}

    same = ids("a")
    assert ids("b") == same
    for place, changed in enumerate(({"max_tokens": 3}, {"stop": ["x"]}, {"prompt": "Q: {question}"}, {"chat": False})):
        assert not ids(str(place), **changed) & same
    assert not ids("c", [{**row, "target": -1} for row in sums()]) & same
