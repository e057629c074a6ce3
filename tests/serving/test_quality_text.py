"""Differences of two answers that show in their text alone."""

import pytest

from sluice.serving.evidence import Pairs
from sluice.serving.quality.text import AnswerText, TextTotals, language, repeats

ENGLISH = "The package is installed with the usual command, and the settings are read from a file."
GERMAN = "Das Paket wird mit dem üblichen Befehl installiert, und die Einstellungen stehen in einer Datei."


def counted(champion: AnswerText | str, challenger: AnswerText | str, times: int = 1) -> dict[str, Pairs]:
    totals = TextTotals()
    arms = [each if isinstance(each, AnswerText) else AnswerText(each, "stop") for each in (champion, challenger)]
    for _ in range(times):
        totals.add("Installation", *arms)
    return totals.pairs


@pytest.mark.parametrize(
    ("kind", "challenger"),
    [
        ("empty", AnswerText("  \n", "stop")),
        ("cut", AnswerText(ENGLISH, "length")),
        ("repeated", AnswerText("and then the " * 8, "stop")),
        ("refused", AnswerText("I'm sorry, but I cannot help with that question about your installation.", "stop")),
        ("longer", AnswerText(ENGLISH + " " + ENGLISH.replace("package", "file"), "stop")),
        ("shorter", AnswerText("See the manual.", "stop")),
    ],
)
def test_a_difference_is_counted_for_the_arm_that_shows_it(kind: str, challenger: AnswerText) -> None:
    assert counted(ENGLISH, challenger)[kind] == Pairs(challenger=1)
    assert counted(challenger, ENGLISH)[kind] == Pairs(champion=1)
    assert counted(ENGLISH, ENGLISH)[kind] == Pairs(neither=1)


def test_an_answer_in_another_language_than_the_champions() -> None:
    found = counted(ENGLISH, GERMAN, times=3)
    assert found["language"] == Pairs(challenger=2), "the first answer tells the champion's language"
    assert "language" not in counted(ENGLISH, "Ja."), "too short to tell"


def test_the_language_of_a_long_prompt_counts_before_the_champions() -> None:
    totals = TextTotals()
    totals.add(GERMAN, AnswerText(ENGLISH, "stop"), AnswerText(GERMAN, "stop"))
    assert totals.pairs["language"] == Pairs(champion=1)


def test_surprisal_is_compared_with_the_champions_earlier_answers() -> None:
    totals = TextTotals()
    for _ in range(10):
        totals.add_surprisals(1.0, 9.0)
    assert "surprising" not in totals.pairs, "too few to know a quantile"
    totals.add_surprisals(1.0, 1.6)
    totals.add_surprisals(1.0, 1.4)
    assert totals.pairs["surprising"] == Pairs(neither=1, challenger=1)


@pytest.mark.parametrize("text", ["-" * 60, "| a | b |\n|---|---|\n", ENGLISH, "no no no no", "    " * 20 + "x", ""])
def test_rules_tables_and_short_repeats_are_no_loop(text: str) -> None:
    assert not repeats(text)


@pytest.mark.parametrize("text", ["the the the the the the the ", f"{ENGLISH[:20]} " + "ab" * 40, "多多多多" * 10])
def test_loops_are_found(text: str) -> None:
    assert repeats(text)


def test_code_and_short_text_have_no_language() -> None:
    assert language("import os\n\ndef main() -> None:\n    print(os.getcwd())\n    return None\n") == ""
    assert (language("OK"), language(GERMAN), language(ENGLISH)) == ("", "de", "en")
