"""The slot cache: whatever is cached, and beside whom, the logits are those of the sequence alone and uncached."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.architecture.cache import KVCache
from model.architecture.config import TransformerConfig
from model.architecture.transformer import Transformer, initialize
from model.config import ModelConfig

VOCAB, CONTEXT = 61, 24
CONFIG = TransformerConfig.from_settings(
    ModelConfig(hidden_size=32, layers=2, heads=4, kv_heads=2, context=CONTEXT), VOCAB
)


@pytest.fixture(scope="module")
def model() -> Transformer:
    built = Transformer(CONFIG)
    initialize(built, 0)
    return built.eval().requires_grad_(False)


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, VOCAB, (1, length), generator=torch.Generator().manual_seed(seed))


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(pieces=st.lists(st.integers(1, 6), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) <= CONTEXT))
def test_any_way_of_feeding_a_sequence_gives_the_uncached_logits(model: Transformer, pieces: list[int]) -> None:
    ids, cache = tokens(sum(pieces)), KVCache(CONFIG, 1)
    logits = torch.cat([model(piece, cache=cache) for piece in ids.split(pieces, dim=1)], dim=1)
    assert_same(logits, model(ids))
    assert cache.lengths.tolist() == [sum(pieces)]


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4), steps=st.integers(1, 6), data=st.data())
def test_slots_of_different_lengths_decode_as_each_alone(
    model: Transformer, lengths: list[int], steps: int, data: st.DataObject
) -> None:
    slots = torch.tensor(data.draw(st.permutations(range(6)))[: len(lengths)])
    cache = KVCache(CONFIG, 6)
    sequences = [tokens(length + steps, seed=row) for row, length in enumerate(lengths)]
    padded = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        padded[row, :length] = sequence[0, :length]
    logits = model(padded, cache=cache, slots=slots, counts=torch.tensor(lengths))
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        assert_same(logits[row, :length], model(sequence[:, :length])[0])
    for step in range(steps):
        fed = torch.stack([sequence[0, length + step] for sequence, length in zip(sequences, lengths, strict=True)])
        logits = model(fed[:, None], cache=cache, slots=slots)
        for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
            assert_same(logits[row, 0], model(sequence[:, : length + step + 1])[0, -1])
    untouched = [slot for slot in range(6) if slot not in slots.tolist()]
    assert cache.lengths[slots].tolist() == [length + steps for length in lengths]
    assert not cache.lengths[untouched].any()


def test_a_new_sequence_may_join_while_others_go_on(model: Transformer) -> None:
    cache, old, new = KVCache(CONFIG, 2), tokens(9, seed=1), tokens(5, seed=2)
    model(old[:, :8], cache=cache, slots=torch.tensor([1]))
    model(new[:, :4], cache=cache, slots=torch.tensor([0]))
    logits = model(torch.stack((new[0, 4:], old[0, 8:])), cache=cache)
    assert_same(logits[0, 0], model(new)[0, -1])
    assert_same(logits[1, 0], model(old)[0, -1])


def test_a_slot_that_held_nan_is_clean_after_reset(model: Transformer) -> None:
    cache, ids = KVCache(CONFIG, 2), tokens(6)
    model(tokens(20, seed=3).expand(2, -1), cache=cache)
    for tensor in (*cache.keys, *cache.values):
        tensor[1] = float("nan")
    cache.reset(torch.tensor([1]))
    assert cache.lengths.tolist() == [20, 0]
    model(ids[:, :5], cache=cache, slots=torch.tensor([1]))
    logits = model(torch.stack((ids[0, 5:], ids[0, 5:])), cache=cache)
    assert_same(logits[1, 0], model(ids)[0, -1])
    cache.reset()
    assert cache.lengths.tolist() == [0, 0]


def test_nan_in_one_slot_stays_in_that_slot(model: Transformer) -> None:
    cache, ids = KVCache(CONFIG, 2), tokens(6)
    model(ids[:, :5].expand(2, -1), cache=cache)
    cache.values[0][0] = float("nan")
    logits = model(ids[:, 5:].expand(2, -1), cache=cache)
    assert not logits[0].isfinite().any()
    assert_same(logits[1, 0], model(ids)[0, -1])


def test_a_sequence_longer_than_the_cache_is_refused_and_changes_nothing(model: Transformer) -> None:
    cache = KVCache(CONFIG, 1, max_length=8)
    model(tokens(7), cache=cache)
    with pytest.raises(ValueError, match=r"9 tokens .* max_length 8"):
        model(tokens(2), cache=cache)
    assert cache.lengths.tolist() == [7]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"slots": torch.tensor([0, 0])}, "twice"),
        ({"slots": torch.tensor([0, 3])}, "slot 3"),
        ({"slots": torch.tensor([0])}, "2 rows"),
        ({}, "2 rows"),
        ({"slots": torch.tensor([0, 1]), "counts": torch.tensor([2, 4])}, "counts"),
        ({"slots": torch.tensor([0, 1]), "positions": torch.zeros(2, 3, dtype=torch.int64)}, "positions"),
    ],
)
def test_a_misused_cache_says_how(model: Transformer, arguments: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model(tokens(3).expand(2, -1), cache=KVCache(CONFIG, 3), **arguments)


def test_slots_without_a_cache_are_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match="belong to a cache"):
        model(tokens(3), slots=torch.tensor([0]))


def test_a_cache_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match=f"max_length {CONTEXT + 1} .* {CONTEXT}"):
        KVCache(CONFIG, 1, max_length=CONTEXT + 1)
