"""The comparison with lm-eval: the same likelihoods and answers, and a page that has its table."""

from pathlib import Path

import pytest

from benchmarks import evaluation
from benchmarks.markers import read_table

PAGE = Path(__file__).parents[2] / "docs/evaluation.md"


def test_both_agree_and_the_page_has_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "SHAPES", {"1 M": evaluation.SHAPES["1 M"]})
    rows = evaluation.read_questions()
    assert len(rows) == 273
    table = evaluation.measure(rows[:4], 1)
    assert [row["continuation"] for row in table] == list(evaluation.FORMATS)
    assert all(row["largest_difference"] < 1e-3 and row["same_answers"] == 1.0 for row in table)
    head = evaluation.as_markdown(table, 4, 1).splitlines()[0]
    assert read_table(PAGE, "mmlu-speed").splitlines()[0] == head


def test_options_of_a_question_are_its_continuations() -> None:
    row = {"asked": "Which?\nA. one\nB. two\nC. three\nD. four\nAnswer:", "choices": list("ABCD")}
    texts = evaluation.requests([row], "the answer's text")
    assert [each.continuation for each in texts] == [" one", " two", " three", " four"]
    assert texts[0].prompt == "Which?\nAnswer:"
    assert [each.continuation for each in evaluation.requests([row], "a letter")] == [" A", " B", " C", " D"]
    assert evaluation.chosen(texts, [3.0, 1.0, 2.0, 4.0]) == {0: 1}
