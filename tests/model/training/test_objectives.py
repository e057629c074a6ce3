"""Corrupting tokens: how much, what with, always alike, and nothing lost."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.data.packing.shards import PADDING
from sluice.model.architecture.config import ModelConfig
from sluice.model.config import PretrainConfig
from sluice.model.training.batches.objectives import (
    Objective,
    check_objective,
    corrupt_spans,
    mask_tokens,
    span_counts,
    uniform,
)

VOCABULARY, EOS, SPECIAL = 300, 0, frozenset({0, 1, 2, 3})
MASK = VOCABULARY
PINNED = [[0.21579411943622728, 0.5711282570993877]]


def rows_of(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).integers(VOCABULARY, size=(rows, length))


def plain() -> np.ndarray:
    return np.isin(np.arange(VOCABULARY), list(SPECIAL), invert=True)


def masked(tokens: np.ndarray, first: int = 0, seed: int = 5, fraction: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(first, first + len(tokens))
    return mask_tokens(tokens, numbers, plain(), mask_id=MASK, fraction=fraction, seed=seed)


def objective(name: Any, **settings_: Any) -> Objective:
    return Objective(name, VOCABULARY, EOS, seed=5, special=SPECIAL, **settings_)


def test_draws_are_uniform_and_independent() -> None:
    draws = uniform(np.arange(500), 200, seed=1, purpose="mask")
    assert draws.min() >= 0 and draws.max() < 1
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    # Chi squared with 19 degrees of freedom: 43.8 is its 99.9th percentile.
    assert ((counts - draws.size / 20) ** 2 / (draws.size / 20)).sum() < 43.8
    other = uniform(np.arange(500), 200, seed=1, purpose="fate")
    for another in (other, uniform(np.arange(500), 200, seed=2, purpose="mask"), draws[:, ::-1], draws[::-1]):
        assert abs(np.corrcoef(draws.ravel(), another.ravel())[0, 1]) < 5 / draws.size**0.5
    # Pinned: a resumed run must draw alike under any version of any library.
    assert uniform(np.array([7]), 2, seed=1, purpose="mask").tolist() == PINNED


def test_bert_masks_15_percent_80_10_10() -> None:
    tokens = rows_of(400, 256)
    ids, chosen = masked(tokens)
    assert abs(chosen.sum() / plain()[tokens].sum() - 0.15) < 0.001
    found, stood = ids[chosen], tokens[chosen]
    number = chosen.sum()
    # Five standard deviations of a share.
    for share, expected in (((found == MASK).mean(), 0.8), ((found == stood).mean(), 0.1 + 0.1 / 296)):
        assert abs(share - expected) < 5 * (expected * (1 - expected) / number) ** 0.5
    put = found[(found != MASK) & (found != stood)]
    assert plain()[put].all() and len(np.unique(put)) > 250
    assert np.array_equal(ids[~chosen], tokens[~chosen])


@settings(deadline=None)
@given(rows=st.integers(1, 5), length=st.integers(1, 60), seed=st.integers(0, 50), fraction=st.floats(0.01, 0.9))
def test_special_tokens_are_never_masked_and_some_token_is(rows: int, length: int, seed: int, fraction: float) -> None:
    tokens = rows_of(rows, length, seed) % 8
    _, chosen = masked(tokens, seed=seed, fraction=fraction)
    available = plain()[tokens].sum(axis=1)
    assert plain()[tokens[chosen]].all()
    assert np.array_equal(chosen.sum(axis=1) > 0, available > 0)
    assert (np.abs(chosen.sum(axis=1) - fraction * available) <= np.where(fraction * available < 0.5, 1, 0.5)).all()


@settings(deadline=None)
@given(cut=st.integers(1, 7), first=st.integers(0, 10**9))
def test_a_row_is_corrupted_alike_whoever_reads_it(cut: int, first: int) -> None:
    tokens = rows_of(8, 40)
    numbers = np.arange(first, first + 8)
    for name in ("masked", "span"):
        whole = objective(name).batch(np.pad(tokens, ((0, 0), (0, 1))), None, numbers, 40)
        part = objective(name).batch(np.pad(tokens[cut:], ((0, 0), (0, 1))), None, numbers[cut:], 40)
        assert torch.equal(whole.ids[cut:], part.ids) and torch.equal(whole.targets[cut:], part.targets)


def test_each_visit_of_a_row_is_corrupted_anew() -> None:
    tokens = rows_of(8, 40)
    assert not np.array_equal(masked(tokens)[1], masked(tokens, first=8)[1])
    assert not np.array_equal(masked(tokens)[1], masked(tokens, seed=6)[1])


def spans_of(tokens: np.ndarray, fraction: float = 0.15, mean_span: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.arange(len(tokens))
    return corrupt_spans(
        tokens, numbers, last_id=VOCABULARY + 99, eos=EOS, fraction=fraction, mean_span=mean_span, seed=5
    )


def restored(source: list[int], target: list[int], first_sentinel: int) -> list[int]:
    """The tokens that source and target hold between them."""
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token >= first_sentinel:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    found: list[int] = []
    for token in source:
        found += spans.pop(token) if token >= first_sentinel else [token]
    assert not spans
    return found


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(4, 120),
    fraction=st.floats(0.05, 0.6),
    mean_span=st.floats(1.0, 8.0),
    seed=st.integers(0, 20),
)
def test_source_and_target_give_back_the_tokens(length: int, fraction: float, mean_span: float, seed: int) -> None:
    tokens = rows_of(3, length, seed)
    source, target = spans_of(tokens, fraction, mean_span)
    noise, spans = span_counts(length, fraction, mean_span)
    assert source.shape == (3, length - noise + spans) and target.shape == (3, noise + spans + 1)
    for row, read, said in zip(tokens, source, target, strict=True):
        assert restored(read.tolist(), said.tolist(), VOCABULARY) == row.tolist()
        assert said[-1] == EOS and read[0] < VOCABULARY
        # From the end of the vocabulary down, in both.
        expected = [VOCABULARY + 99 - span for span in range(spans)]
        assert [each for each in read if each >= VOCABULARY] == expected
        assert [each for each in said if each >= VOCABULARY] == expected


def test_spans_are_t5s_15_percent_of_mean_length_3() -> None:
    assert span_counts(512, 0.15, 3.0) == (77, 26)
    _, target = spans_of(rows_of(300, 512))
    inside = (target < VOCABULARY)[:, :-1]
    lengths = np.diff(np.flatnonzero(~np.pad(inside.ravel(), (0, 1)))) - 1
    assert abs(lengths.mean() - 77 / 26) < 1e-9 and lengths.min() == 1 and lengths.max() > 8
    # Spans stand anywhere: each place but the first is hidden about as often as another.
    source, _ = spans_of(rows_of(300, 512))
    assert 0.5 < (source[:, 10:200] >= VOCABULARY).mean() / (source[:, 200:400] >= VOCABULARY).mean() < 2


def test_causal_rows_are_the_tokens_and_the_next_ones() -> None:
    tokens = rows_of(3, 17)
    batch = objective("causal").batch(tokens, None, np.arange(3), 16)
    assert batch.mask is None and batch.documents is None
    assert np.array_equal(batch.ids, tokens[:, :-1]) and np.array_equal(batch.targets, tokens[:, 1:])
    short = objective("causal").batch(tokens, None, np.arange(3), 4)
    assert short.ids.shape == (12, 4)
    assert torch.equal(short.targets.reshape(3, 16), batch.targets)


def test_packed_documents_are_kept_apart_and_padding_is_nobodys() -> None:
    tokens = rows_of(1, 9) % 90 + 10
    documents = np.array([[4, 4, 4, 7, 7, 7, 7, PADDING, PADDING]])
    tokens[documents == PADDING] = EOS
    isolated = objective("causal", isolate=True).batch(tokens, documents, np.arange(1), 8)
    assert isolated.documents is not None and isolated.documents.tolist() == documents[:, :-1].tolist()
    assert isolated.mask is not None and isolated.mask.tolist() == [[True, True, False, True, True, True, False, False]]
    together = objective("causal").batch(tokens, documents, np.arange(1), 8)
    assert together.documents is None and torch.equal(together.mask, isolated.mask)
    # An encoder looks to the right too, so padding stays apart even where documents do not.
    masked_rows = objective("masked").batch(tokens, documents, np.arange(1), 8)
    assert masked_rows.documents is not None and masked_rows.documents.tolist() == [[0] * 7 + [PADDING]]
    assert masked_rows.mask is not None and not masked_rows.mask[0, 7] and masked_rows.tokens == 1


@pytest.mark.parametrize(
    ("kind", "layout", "chosen", "message"),
    [
        ("encoder", "concatenated", {}, "set the objective to masked"),
        ("decoder", "concatenated", {"objective": "span"}, "set the objective to causal"),
        ("decoder", "concatenated", {"mask_fraction": 0.3}, "mask_fraction 0.3 has no effect"),
        ("encoder", "concatenated", {"objective": "masked", "mean_span": 2.0}, "mean_span 2.0 has no effect"),
        ("encoder-decoder", "best_fit", {"objective": "span"}, r"pack\.layout best_fit to concatenated"),
        ("encoder-decoder", "concatenated", {"objective": "span", "isolate_documents": True}, "isolate_documents"),
        ("encoder-decoder", "concatenated", {"objective": "span", "mean_span": 1.0}, "154 spans, .* 100 sentinels"),
        ("encoder-decoder", "concatenated", {"objective": "span", "mask_fraction": 0.98, "mean_span": 200.0}, None),
    ],
)
def test_what_does_not_go_together_is_refused(kind: Any, layout: str, chosen: dict[str, Any], message: Any) -> None:
    model = ModelConfig(kind=kind, context=1024)
    if message is None:
        check_objective(PretrainConfig(**chosen), model, layout)
        return
    with pytest.raises(ValueError, match=message):
        check_objective(PretrainConfig(**chosen), model, layout)


def test_a_target_longer_than_the_context_is_refused() -> None:
    config = PretrainConfig(objective="span", mask_fraction=0.5, mean_span=1.0)
    with pytest.raises(ValueError, match="targets of 33 tokens, longer than the context 32"):
        check_objective(config, ModelConfig(kind="encoder-decoder", context=32), "concatenated")
