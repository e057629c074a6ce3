"""Retrieval over sections: the ranking, the questions, and answers that cite and support."""

from datetime import date
from pathlib import Path

import pytest
from evaluation_fixtures import document_text
from suites.suite_fixtures import RuleModel, asked, write_suite

from sluice.model.evaluation.suites.requests import question
from sluice.model.evaluation.suites.retrieval import rank, read_passages, retrieval_suite
from sluice.model.evaluation.suites.run import run_suite
from sluice.model.evaluation.suites.suite import load_suite

DOCUMENTS = [(f"d{number}", document_text(number)) for number in range(8)]
TODAY = date(2026, 12, 1)


def test_bm25_ranks_by_rare_shared_words_and_keeps_the_order_of_ties() -> None:
    texts = ["the cache stores the token", "the queue drops it", "the the the", "我爱北京天安门"]
    assert rank(["token cache", "the queue", "天安门", "unknown words", "?"], texts, 2) == [
        [0, 1],
        [1, 2],
        [3, 0],
        [0, 1],
        [0, 1],
    ]


def test_passages_are_sections_with_a_heading_of_their_own() -> None:
    passages = read_passages(
        [*DOCUMENTS, ("x", "# A\n\nshort"), ("y", f"## Notes\n\n{'word ' * 40}"), ("z", f"## notes\n\n{'other ' * 40}")]
    )
    assert len(passages) == len({each.question for each in passages}) == 32
    assert not any(each.question.casefold() == "notes" for each in passages)
    assert read_passages(DOCUMENTS[::-1]) == read_passages(DOCUMENTS)


def test_an_answer_that_cites_the_section_and_says_what_it_says_is_right() -> None:
    suite = retrieval_suite(DOCUMENTS, seed=1, questions=16)
    assert suite is not None
    samples = {question(suite.settings, sample): sample for sample in suite.samples}
    assert len({sample.cluster for sample in suite.samples[:8]}) == 8

    def answer(request: object) -> str:
        sample = samples[asked(request)]  # type: ignore[arg-type]
        places = [source["id"] for source in sample.fields["shown"]]
        wanted = sample.fields["relevant"][0]
        if wanted not in places:
            return "I do not know."
        text = sample.fields["shown"][places.index(wanted)]["text"]
        return f"{text.split('.')[0]} [{places.index(wanted) + 1}]. And the moon is made of cheese."

    found = run_suite(RuleModel(answer), suite, today=TODAY)  # type: ignore[arg-type]
    values = {metric: [i.value for i in found.items if i.metric == metric] for metric in found.entry["planned"]}
    assert set(values) == {
        "retrieval.cited_source",
        "retrieval.supported_sentences",
        "retrieval.recall@1",
        "retrieval.recall@5",
        "retrieval.mrr",
    }
    assert all(len(each) == 16 for each in values.values())
    assert 0 < sum(values["retrieval.recall@1"]) <= sum(values["retrieval.mrr"]) <= 16
    shown = [s.fields["relevant"][0] in [each["id"] for each in s.fields["shown"]] for s in suite.samples]
    assert values["retrieval.cited_source"] == [float(each) for each in shown]
    assert values["retrieval.supported_sentences"] == [0.5 if each else 0.0 for each in shown]
    assert not found.entry["overdue"]


def test_too_few_sections_are_no_suite() -> None:
    assert retrieval_suite(DOCUMENTS[:1], seed=1) is None


def test_a_suite_may_bring_rankings_of_its_own(tmp_path: Path) -> None:
    row = {
        "id": 1,
        "question": "?",
        "shown": [{"id": "a", "text": "Yes it is."}],
        "relevant": ["a"],
        "ranked": ["b", "a"],
    }
    path = write_suite(tmp_path, [row], scorers=["cited_source"], recall_at=[1, 2])
    found = run_suite(RuleModel(lambda request: "Yes [1]."), load_suite(path), today=TODAY)
    assert {item.metric: item.value for item in found.items} == {
        "sums": 1,
        "sums.recall@1": 0,
        "sums.recall@2": 1,
        "sums.mrr": 0.5,
    }
    for change in ({"ranked": "a"}, {"relevant": []}, {"ranked": [1]}):
        path = write_suite(tmp_path, [{**row, **change}], scorers=["cited_source"], recall_at=[1])
        with pytest.raises(ValueError, match=r"line 1: .* give a list of ids"):
            load_suite(path)
