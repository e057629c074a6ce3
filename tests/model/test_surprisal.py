"""Surprisal by token: sums, whole characters, and a page that shows hostile text as text."""

import math
from collections.abc import Sequence

import pytest

from sluice.core.progress import Progress, no_progress
from sluice.model.evaluation.evaluated import Continuation, ContinuationRequest, GeneratedAnswer
from sluice.model.evaluation.surprisal import TokenSurprisal, render_surprisal, surprisal, whole_characters

TOKENS = [
    TokenSurprisal(text, nats * math.log(2)) for text, nats in (("<b>", 1.0), ("", 3.0), ("ü", 2.5), (" &", 40.0))
]


class Scored:
    """A model that finds every character of a text as likely as one of two."""

    model_hash, can_score = "0" * 64, True

    def score(self, requests: Sequence[ContinuationRequest], progress: Progress = no_progress) -> list[Continuation]:
        assert all(request.whole and request.prompt == "" for request in requests)
        return [
            Continuation(1.0, (math.log(2),) * len(each.continuation), tuple(each.continuation), 1, True)
            for each in requests
        ]

    def generate(self, requests: object, progress: Progress = no_progress) -> list[GeneratedAnswer]:
        raise AssertionError


def test_a_token_s_surprisal_is_in_nats_and_bits() -> None:
    found = surprisal(Scored(), "abc")
    assert [(each.text, each.bits) for each in found] == [("a", 1.0), ("b", 1.0), ("c", 1.0)]
    assert found[0].nats == math.log(2)
    with pytest.raises(ValueError, match="an empty text"):
        surprisal(Scored(), "")


def test_parts_of_a_character_are_one_and_shades_end_with_the_last() -> None:
    joined = whole_characters(TOKENS)
    assert [(each.text, round(each.bits, 6), each.level) for each in joined] == [
        ("<b>", 1.0, 0),
        ("ü", 5.5, 2),
        (" &", 40.0, 7),
    ]
    assert TokenSurprisal("x", math.nan).level is None


def test_the_page_escapes_the_text_and_names_its_sums() -> None:
    page = render_surprisal([*TOKENS, TokenSurprisal("?", math.nan)], "<script>.txt")
    assert '<span class="s0" title="1.00 bits, 0.69 nats">&lt;b&gt;</span>' in page
    assert '<span class="s2" title="5.50 bits, 3.81 nats">ü</span>' in page
    assert "<script>" not in page and "no number" in page
    assert "4 tokens, 7 bytes, 32.2 nats, 46.5 bits,\n6.643 bits per byte" in render_surprisal(TOKENS, "a")
    assert page == render_surprisal([*TOKENS, TokenSurprisal("?", math.nan)], "<script>.txt")
