"""Scorers on answers whose right scores are known, with the mistakes that others are known for."""

import math

import pytest

from sluice.model.evaluation.suites.calibration import expected_calibration_error, reliability
from sluice.model.evaluation.suites.perturbations import PERTURBATIONS, agreement
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import ChoiceLikelihood
from sluice.model.evaluation.suites.scorers import SCORERS
from sluice.model.evaluation.suites.scorers.choice import chosen, confidences
from sluice.model.evaluation.suites.scorers.numeric import final_number
from sluice.model.evaluation.suites.scorers.pass_at_k import pass_at_k
from sluice.model.evaluation.suites.scorers.retrieval import (
    citations,
    cites,
    recall_at_k,
    reciprocal_rank,
    sentences,
    supported,
)

CHOICES = ("Paris", "Rome", "Bonn", "A word")


def score(name: str, answer: object, *targets: str, key: int = 0, tolerance: float = 0.0) -> float | None:
    sample = SuiteSample("1", targets=targets, choices=CHOICES, key=key, tolerance=tolerance)
    return SCORERS[name].score(answer, sample)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("711", "11", False),
        ("11", "711", False),
        ("(42).", "42", True),
        ("$29.00", "29", True),
        ("-5", "5", False),
        ("−5", "-5", True),
        ("–5", "-5", True),
        ("-$5.00", "-5", True),
        ("between 5–7", "-7", False),
        ("GPT-5", "5", True),
        ("1,000", "1000", True),
        ("1 000", "1000", True),
        ("1.000.000", "1000000", True),
        ("1.000,5", "1000.5", True),
        ("1'000", "1000", True),
        ("1,00,000", "100000", True),
        ("3,50 €", "3.5", True),
        ("1.000", "1", True),
        ("3/4", "0.75", True),
        ("1 1/2", "1.5", True),
        ("1½", "1.5", True),
        ("1/0", "0", False),
        ("50%", "0.5", True),
        ("50 %", "50", True),
        ("50", "50%", True),
        ("0.5%", "0.5", False),
        ("0.5%", "0.5%", True),
        ("1.5×10^3", "1500", True),
        ("1.5e3", "1500", True),
        ("10³", "1000", True),
        ("10³", "103", False),
        ("４２", "42", True),
        ("٤٢", "42", True),
        ("Answer: 7 apples", "7", True),
        ("The answer is 7, found in 2 steps.", "7", True),
        ("3 + 4 = 7", "7", True),
        ("First 3, then 4, so 7", "7", True),
        ("10,20,30", "30", True),
        ("#### 12", "12", True),
        ("\\boxed{8}", "8", True),
        ("**42**", "42", True),
        ("- 5", "5", True),
        ("Seven.", "7", True),
        ("one may say so", "1", False),
        ("x2", "2", False),
        ("1.2.3", "1", False),
        ("7kg", "7", True),
        ("", "0", False),
        (" \n\t", "0", False),
        ("nan", "0", False),
        ("inf", "0", False),
        ("9" * 5_000, "9", False),
        ("1e999999999", "1", False),
        ("0.30000000000000004", "0.3", True),
        ("0.333", "1/3", False),
    ],
)
def test_a_number_is_right_where_it_is_the_number_that_the_answer_gives(answer: str, target: str, right: bool) -> None:
    assert score("numeric", answer, target) == right


def test_a_tolerance_is_relative() -> None:
    assert score("numeric", "0.333", "1/3", tolerance=0.01) == 1
    assert score("numeric", "0.33", "1/3", tolerance=0.001) == 0
    assert score("numeric", "0.001", "0", tolerance=0.5) == 0


def test_a_target_without_a_number_is_never_right() -> None:
    assert final_number("none") is None
    assert score("numeric", "none", "none") == 0


@pytest.mark.parametrize(
    ("name", "answer", "target", "right"),
    [
        ("exact", " Paris\n", "Paris", True),
        ("exact", "paris", "Paris", False),
        ("exact", "711", "11", False),
        ("exact", "ＡＢＣ", "ABC", True),
        ("exact", "Café", "Café", True),
        ("exact", "x²", "x2", False),
        ("exact", "", "", True),
        ("quasi_exact", "The Paris.", "paris", True),
        ("quasi_exact", "A", "A", True),
        ("quasi_exact", "", "A", False),
        ("quasi_exact", "?", "!", False),
        ("quasi_exact", "?", "?", True),
        ("contains", "It is Paris, of course", "paris", True),
        ("contains", "711", "11", False),
        ("contains", "Parisian", "Paris", False),
        ("contains", "", "Paris", False),
        ("contains", "anything", "", False),
        ("contains", "这是巴黎吗", "巴黎", True),
        ("contains", "New, then York", "New York", False),
    ],
)
def test_exact_quasi_exact_and_contains(name: str, answer: str, target: str, right: bool) -> None:
    assert score(name, answer, target) == right


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        ("A", "A", 1.0),
        ("the", "A", 0.0),
        ("Paris Paris Paris Paris Paris", "Paris", 1 / 3),
        ("the Paris", "Paris", 1.0),
        ("in Paris", "Paris", 2 / 3),
        ("我爱北京", "北京", 2 / 3),
        ("北京", "南京", 0.5),
        ("", "Paris", 0.0),
        ("", "", 1.0),
        ("?", "?", 1.0),
        ("?", "Paris", 0.0),
        ("PARIS!", "paris", 1.0),
        ("naïve", "naïve", 1.0),
    ],
)
def test_f1_counts_each_shared_word_as_often_as_both_have_it(answer: str, target: str, expected: float) -> None:
    assert score("f1", answer, target) == pytest.approx(expected)


def test_the_nearest_of_several_targets_counts() -> None:
    assert score("f1", "Rome", "Paris", "Rome") == score("rouge_l", "Rome", "Paris", "Rome") == 1
    assert score("exact", "Rome", "Paris", "Rome") == score("numeric", "3", "2", "3") == 1


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        # The F-measures of rouge-score 0.1.2 for the same pairs.
        ("the cat sat on the mat", "the cat is on the mat", 0.8333333333333334),
        ("police killed the gunman", "the gunman killed police", 0.5),
        ("The quick brown fox jumps over the lazy dog", "A lazy dog jumps", 0.3076923076923077),
        ("", "a cat", 0.0),
        # Where that finds no word at all.
        ("我爱北京天安门", "我爱天安门", 10 / 12),
        ("Ünïcode", "ünïcode", 1.0),
        ("...", "...", 0.0),
    ],
)
def test_rouge_l(answer: str, target: str, expected: float) -> None:
    assert score("rouge_l", answer, target) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("B", 1),
        ("(B)", 1),
        ("**B**", 1),
        ("B. Rome", 1),
        ("The answer is B.", 1),
        ("A good answer is B", 1),
        ("Answer: (C)", 2),
        ("I think it is (D).", 3),
        ("Rome", 1),
        ("a word", 3),
        ("(A) or (B)", None),
        ("A simple question", None),
        ("E", None),
        ("", None),
        ("Ａ", 0),
    ],
)
def test_a_generated_answer_names_a_choice_by_its_letter_or_its_text(answer: str, named: int | None) -> None:
    for key in range(len(CHOICES)):
        assert score("choice_letter", answer, key=key) == (named == key)


def likelihoods(*nats: float, sizes: tuple[int, ...] = (1, 1), alone: tuple[float, ...] = (0.0, 0.0)) -> tuple:
    return tuple(
        ChoiceLikelihood(value, tokens=size, characters=size, bytes=2 * size, nats_alone=without)
        for value, size, without in zip(nats, sizes, alone, strict=True)
    )


def test_a_choice_is_scored_by_token_character_byte_or_against_no_question() -> None:
    long_is_right = likelihoods(6.0, 4.0, sizes=(3, 1), alone=(5.0, 2.5))
    assert {name: score(name, long_is_right) for name in SCORERS if SCORERS[name].reads == "choices"} == {
        "choice_sum": 0,
        "choice_token": 1,
        "choice_character": 1,
        "choice_byte": 1,
        "choice_gain": 1,
    }


def test_tied_and_nan_choices_are_never_right() -> None:
    tied = likelihoods(1.0, 1.0)
    assert score("choice_sum", tied, key=0) == score("choice_sum", tied, key=1) == 0
    assert score("choice_sum", likelihoods(1.0, 1.0 + 1e-9), key=0) == 0
    assert math.isnan(score("choice_sum", likelihoods(math.nan, 5.0), key=1) or 0)
    assert score("choice_sum", likelihoods(math.inf, math.inf), key=0) == 0
    assert score("choice_sum", likelihoods(5.0, math.inf), key=0) == 1
    assert chosen([]) is None


def test_an_empty_choice_divides_by_nothing() -> None:
    assert score("choice_token", likelihoods(0.0, 1.0, sizes=(0, 1)), key=0) == 1


def test_confidences_are_a_distribution_over_the_choices() -> None:
    assert confidences([0.0, math.log(3)]) == pytest.approx([0.75, 0.25])
    assert confidences([1e6, 0.0]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("right", "answers", "k", "greedy", "expected"),
    [
        (1, 2, 5, False, None),
        (2, 2, 5, False, None),
        (0, 0, 1, False, None),
        (1, 2, 1, False, 0.5),
        (2, 10, 5, False, 7 / 9),
        (0, 10, 5, False, 0.0),
        (8, 10, 5, False, 1.0),
        (0, 1, 100, True, 0.0),
        (1, 1, 100, True, 1.0),
    ],
)
def test_pass_at_k(right: int, answers: int, k: int, greedy: bool, expected: float | None) -> None:
    found = pass_at_k(right, answers, k, is_greedy=greedy)
    assert found == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_fifty_of_164_solved_greedily_are_30_5_percent_at_any_k(k: int) -> None:
    solved = [pass_at_k(int(problem < 50), 1, k, is_greedy=True) for problem in range(164)]
    assert round(100 * sum(value or 0.0 for value in solved) / 164, 1) == 30.5


@pytest.mark.parametrize(("right", "answers", "k"), [(3, 2, 1), (-1, 2, 1), (1, 2, 0)])
def test_pass_at_k_refuses_what_cannot_be(right: int, answers: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@"):
        pass_at_k(right, answers, k)


def test_confidence_one_falls_into_the_last_bin() -> None:
    table = reliability([1.0, 0.95, 0.0], [True, False, False])
    assert [each.n for each in table] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert table[-1].confidence == pytest.approx(0.975) and table[-1].accuracy == 0.5
    assert expected_calibration_error(table) == pytest.approx(2 / 3 * 0.475)


def test_calibration_without_answers_is_none_and_bad_confidences_are_refused() -> None:
    assert expected_calibration_error(reliability([], [])) is None
    assert expected_calibration_error(reliability([0.5, 0.5], [True, False])) == 0
    for bad in (1.0001, -0.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            reliability([bad], [True])


def test_recall_and_reciprocal_rank() -> None:
    assert recall_at_k(["a", "b", "c"], ["b", "z"], 2) == 0.5
    assert recall_at_k(["a", "b"], ["b"], 1) == 0
    assert recall_at_k(["a"], [], 1) is None and reciprocal_rank(["a"], []) is None
    assert reciprocal_rank(["a", "b"], ["b"]) == 0.5 and reciprocal_rank(["a"], ["b"]) == 0


def test_a_citation_is_of_a_shown_and_relevant_source() -> None:
    assert citations("So it is [1]. And [2, 3][1], a[0] and [x].") == [1, 2, 3, 0]
    assert cites("It is so [2].", ["a", "b"], {"b"}) == 1
    assert cites("It is so [1].", ["a", "b"], {"b"}) == 0
    assert cites("It is so [2][7].", ["a", "b"], {"b"}) == 0
    assert cites("It is so.", ["a", "b"], {"b"}) == 0


def test_sentences_of_an_answer_are_found_in_the_source_or_not() -> None:
    source = "The cache stores the token 5 times. The queue drops it."
    assert sentences("One [1]. Two!\n...\n三。四") == ["One .", "Two!", "三。", "四"]
    assert supported("The cache stores the token 5 times [1]. The moon is made of cheese.", source) == 0.5
    assert supported("the cache stores the token five times", source) == 1
    assert supported("times token the stores cache", source) == 0
    assert supported("", source) == supported("[1]", source) == 0


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation_changes_a_prompt_and_is_the_same_every_time(name: str) -> None:
    text = "What does the following program print?\nWrite one number."
    changed = PERTURBATIONS[name](text, "seed")
    assert changed != text and changed == PERTURBATIONS[name](text, "seed")
    assert sorted(changed.casefold().replace(" ", "").replace("\n", "")) == sorted(
        text.casefold().replace(" ", "").replace("\n", "")
    )


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("text", ["", "3 + 4 =", "aaaa", "北京"])
def test_a_prompt_without_words_is_perturbed_without_error(name: str, text: str) -> None:
    changed = PERTURBATIONS[name](text, "seed")
    assert "".join(changed.split()).casefold() == "".join(text.split()).casefold()


def test_agreement_is_of_answers_right_or_wrong() -> None:
    assert agreement(["Paris.", "Rome", "", "7"], ["paris", "Bonn", "?", "7"]) == [1, 0, 1, 1]
