"""Precision and recall a kind on a labelled set: synthetic values in the ways they are written, hard negatives among
them from real documentation, and some that the rules are known to miss or to take wrongly.

A label is `⟦KIND|value⟧`. A `¦` is taken out first: it keeps scanners from taking an invented token for a leak.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from sluice.data.privacy import KINDS, MaskedSpan, find, mask

_LABEL = re.compile(r"⟦([A-Z_]+)\|(.*?)⟧", re.DOTALL)
LINES = (Path(__file__).parent / "labelled_privacy.jsonl").read_text(encoding="utf-8").splitlines()


def unlabelled(line: str) -> tuple[str, list[MaskedSpan]]:
    """The text of a line, and what is to be found in it."""
    rest = json.loads(line)["text"].replace("¦", "")
    text, labels = "", []
    while label := _LABEL.search(rest):
        text += rest[: label.start()]
        labels.append(MaskedSpan(label[1], len(text), len(text) + len(label[2])))
        text += label[2]
        rest = rest[label.end() :]
    return text + rest, labels


@pytest.fixture(scope="module")
def outcome() -> dict[str, Counter[str]]:
    """By kind: values that are labelled, found, and both. Only an exact range is right."""
    counts = {kind: Counter[str]() for kind in KINDS}
    for text, labels in map(unlabelled, LINES):
        found = find(text)
        for name, items in (("labelled", labels), ("found", found), ("right", set(labels) & set(found))):
            for item in items:
                counts[item.kind][name] += 1
    return counts


@pytest.mark.parametrize("kind", KINDS)
def test_precision_and_recall(kind: str, outcome: dict[str, Counter[str]]):
    counts = outcome[kind]
    precision, recall = counts["right"] / counts["found"], counts["right"] / counts["labelled"]
    print(f"{kind}: precision {precision:.3f}, recall {recall:.3f} of {counts['labelled']}")
    assert counts["labelled"] >= 50
    assert precision >= 0.95
    assert recall >= 0.95


def test_a_quarter_of_the_set_are_negatives():
    assert sum(not unlabelled(line)[1] for line in LINES) >= 100


def test_no_value_that_is_found_is_left():
    for text, _ in map(unlabelled, LINES):
        masked, counts = mask(text)
        values = {text[start:end] for _, start, end in find(text)}
        assert not [value for value in values if value in masked]
        assert not [value for value in values if value in repr(counts)]
