"""Signals and rules: each rule drops what it is for and leaves technical prose alone."""

from dataclasses import asdict

import pytest

from data.config import RefineConfig
from data.document import Document
from data.filters import RULES, MeasureSignals, SignalFilter, measure

PROSE = (
    "# Making queries\n\nOnce you have created your models, the library gives you an interface that lets you create, "
    "retrieve, update and delete objects. This document explains how to use it, and what it costs.\n\n"
    "    for entry in Entry.objects.all():\n        print(entry.headline)\n        print(entry.headline)\n\n"
    "- The first argument is `#id` or `...`, and the second is a callable that returns the value to be stored.\n"
    "- Returns: the number of rows that have been changed by the statement."
)


def reason(text: str, **settings: float) -> str | None:
    config, signals = RefineConfig.model_validate(settings), asdict(measure(text))
    return next((rule.reason for rule in RULES if rule.breach(signals, config)), None)


def test_technical_prose_passes_every_rule():
    assert reason(PROSE) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("Only a few words here.", "too_few_words"),
        (PROSE + "\x00\x01" * 20, "control_characters"),
        ("a b c d to of " * 20, "short_words"),
        ("the and internationalisation_of_subsystems " * 30, "long_words"),
        (PROSE + " # # # # # # # # # #", "symbols"),
        ("the of " + "125 | 1039 " * 40 + "words", "few_alphabetic_words"),
        ("Lorem ipsum dolor sit amet consectetur adipiscing elit sed " * 8, "few_stop_words"),
        (PROSE + "\n\nThe same line of boilerplate stands here again and again." * 12, "duplicate_lines"),
        ("the value of " * 3 + "and ".join(["some words to read "] * 30), "repeated_ngram"),
    ],
)
def test_each_rule_drops_what_it_is_for(text: str, expected: str):
    assert reason(text) == expected


def test_bounds_come_from_the_settings():
    assert reason(PROSE, min_words=1000) == "too_few_words"
    assert reason(PROSE, max_words=10) == "too_many_words"
    assert reason("Only a few words of the text.", min_words=2, min_stop_words=0) is None


def test_code_is_not_measured_as_prose():
    code = "\n".join(f"    }} ) ; # {n} ... {{" for n in range(200))
    assert measure(f"{PROSE}\n\n{code}").symbol_word_ratio == measure(PROSE).symbol_word_ratio
    assert measure(f"{PROSE}\n\n{code}").words == measure(PROSE).words


def test_the_blocks_run_as_a_datatrove_pipeline_and_keep_reason_and_comparison():
    class Kept:
        def __init__(self) -> None:
            self.documents: list[Document] = []

        def __enter__(self) -> "Kept":
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, document: Document, rank: int = 0) -> None:
            self.documents.append(document)

    dropped = Kept()
    rule = next(rule for rule in RULES if rule.reason == "too_few_words")
    block = SignalFilter(rule, RefineConfig(), dropped)
    documents = [Document(text=PROSE, id="long"), Document(text="Few words.", id="short")]
    kept = list(block(MeasureSignals()(iter(documents))))
    assert [document.id for document in kept] == ["long"]
    assert dropped.documents[0].metadata["reason"] == "too_few_words"
    assert dropped.documents[0].metadata["comparison"] == "words 2 < 40"
    assert block.stats["dropped_too_few_words"].total == 1
