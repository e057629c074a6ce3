"""The n-gram baseline is the textbook's: parity with a slow implementation, and probabilities that sum to one."""

import lzma
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.evaluation.baselines import NgramModel, xz_bits_per_byte

TEXTS = [
    "the gate holds the candidate, the gate rejects the candidate, the gate promotes the champion",
    "a champion is a candidate that the gate promoted; the champion serves until the next candidate",
    "naïve café: the gate reads bytes, not characters",
]


class SlowKneserNey:
    """Interpolated modified Kneser-Ney by dictionaries, straight from Chen and Goodman (1999)."""

    def __init__(self, texts, order):
        self.order = order
        counts = Counter()
        for text in map(str.encode, texts):
            padded = b"\x00" * order + text
            counts.update(padded[i : i + order + 1] for i in range(len(text)))
        self.by_length = {order + 1: counts}
        for length in range(order, 0, -1):
            self.by_length[length] = Counter(gram[1:] for gram in self.by_length[length + 1])
        self.discounts = {length: self._discounts(grams) for length, grams in self.by_length.items()}
        self.after = {length: defaultdict(dict) for length in self.by_length}
        for length, grams in self.by_length.items():
            for gram, count in grams.items():
                self.after[length][gram[:-1]][gram[-1]] = count

    @staticmethod
    def _discounts(grams):
        n = [sum(count == times for count in grams.values()) for times in (1, 2, 3, 4)]
        if 0 in n:
            return [0.5, 1.0, 1.5]
        y = n[0] / (n[0] + 2 * n[1])
        raw = [k - (k + 1) * y * n[k] / n[k - 1] for k in (1, 2, 3)]
        return [min(max(value, 0.01), k) for k, value in zip((1, 2, 3), raw, strict=True)]

    def probability(self, context, byte, length=None):
        length = self.order + 1 if length is None else length
        if length == 0:
            return 1 / 256
        shorter = self.probability(context[1:], byte, length - 1)
        followers = self.after[length].get(context)
        if followers is None:
            return shorter
        total = sum(followers.values())
        discount = {b: self.discounts[length][min(c, 3) - 1] for b, c in followers.items()}
        own = (followers[byte] - discount[byte]) / total if byte in followers else 0.0
        return own + sum(discount.values()) / total * shorter

    def probabilities(self, text):
        padded = b"\x00" * self.order + text
        return [self.probability(padded[i : i + self.order], padded[i + self.order]) for i in range(len(text))]


@pytest.mark.parametrize("order", [0, 1, 3, 5, 7])
def test_agrees_with_the_slow_implementation(order):
    fast, slow = NgramModel.train(TEXTS, order), SlowKneserNey(TEXTS, order)
    for text in (TEXTS[0].encode(), b"the champion rejects \xff\x00 bytes nobody saw", b"z"):
        np.testing.assert_allclose(fast.probabilities(text), slow.probabilities(text), rtol=1e-12)


def test_agrees_where_the_discounts_are_estimated():
    generator = np.random.default_rng(0)
    letters, share = np.frombuffer(b"abcdefgh", np.uint8), np.arange(1, 9) / 36
    texts = [generator.choice(letters, size=300, p=share).tobytes().decode() for _ in range(3)]
    slow = SlowKneserNey(texts, 3)
    assert slow.discounts[4] != [0.5, 1.0, 1.5] != slow.discounts[3]
    text = generator.choice(letters, size=200).tobytes()
    np.testing.assert_allclose(NgramModel.train(texts, 3).probabilities(text), slow.probabilities(text), rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=4), st.binary(max_size=8), st.integers(0, 5))
def test_probabilities_of_the_next_byte_sum_to_one(texts, context, order):
    model = NgramModel.train(texts, order)
    after = [model.probabilities(context + bytes([byte]))[-1] for byte in range(256)]
    assert sum(after) == pytest.approx(1.0, abs=1e-9)
    assert min(after) > 0


def test_a_document_begins_anew_and_bits_add_up():
    model = NgramModel.train(TEXTS, 5)
    assert model.bits("the gate") == pytest.approx(-np.log2(model.probabilities(b"the gate")).sum())
    assert model.bits(TEXTS[0] + TEXTS[1]) != pytest.approx(model.bits(TEXTS[0]) + model.bits(TEXTS[1]))
    whole = (model.bits("the gate") + model.bits("a champion")) / 18
    assert model.bits_per_byte(["the gate", "a champion"]) == pytest.approx(whole)


def test_more_context_helps_on_text_that_has_some():
    figures = [NgramModel.train(TEXTS[:1], order).bits_per_byte([TEXTS[1][:60]]) for order in (0, 1, 2)]
    assert figures[2] < figures[0] < 8


def test_xz_counts_what_the_tool_would_write_and_priming_helps():
    texts = [text * 20 for text in TEXTS]
    joined = "".join(texts).encode()
    assert xz_bits_per_byte(texts) == 8 * len(lzma.compress(joined, preset=9)) / len(joined)
    assert xz_bits_per_byte([TEXTS[0]], primed_by=[TEXTS[0]] * 3) < xz_bits_per_byte([TEXTS[0]])


def test_without_text_or_with_an_order_too_long_it_says_so():
    with pytest.raises(ValueError, match="no text to count"):
        NgramModel.train([""])
    with pytest.raises(ValueError, match="order 8 must lie between 0 and 7"):
        NgramModel.train(TEXTS, 8)
    with pytest.raises(ValueError, match="no text to compress"):
        xz_bits_per_byte([])
