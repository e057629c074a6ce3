"""Slot cache: whatever is cached, and beside other sequences, the logits are those of the sequence alone, uncached."""

from typing import Any

import pytest
import torch
from cached_architectures import (
    ARCHITECTURES,
    CONTEXT,
    SOURCE,
    VOCAB,
    WITH_KEYS,
    alone,
    built,
    shape,
    source_of,
    tokens,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.cache_stores import AttentionStore
from sluice.model.architecture.transformer import Transformer

every = pytest.mark.parametrize("name", ARCHITECTURES)
every_store = pytest.mark.parametrize(
    ("name", "quantized"), [*((name, False) for name in ARCHITECTURES), *((name, True) for name in WITH_KEYS)]
)
lists_of_pieces = st.lists(st.integers(1, 9), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) <= CONTEXT)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return built("llama")


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def fed(model: Transformer, ids: torch.Tensor, pieces: list[int], cache: Cache) -> torch.Tensor:
    """Logits of `ids` [1, seq], read piece by piece."""
    logits = []
    for number, piece in enumerate(ids.split(pieces, dim=1)):
        logits.append(model(piece, cache=cache, **({} if number else source_of(model, [0]))))
    return torch.cat(logits, dim=1)


@every
@settings(max_examples=4, deadline=None)
@given(pieces=lists_of_pieces)
@example(pieces=[1] * CONTEXT)
@example(pieces=[7, 1, 1, 9, 1, 5])
def test_any_way_of_feeding_a_sequence_gives_the_uncached_logits(name: str, pieces: list[int]) -> None:
    model, ids = built(name), tokens(sum(pieces))
    cache = Cache(model.config, 1)
    size_bytes = cache.size_bytes
    assert_same(fed(model, ids, pieces, cache), alone(model, ids))
    assert cache.lengths.tolist() == [sum(pieces)]
    assert cache.size_bytes == size_bytes


@every
def test_every_token_leaves_its_mark(name: str) -> None:
    """So that the laws here say something: their tolerance is far below what one token changes."""
    model, ids = built(name), tokens(6)
    expected = alone(model, ids)[0, -1]
    for place in range(6):
        other = ids.clone()
        other[0, place] = (other[0, place] + 1) % VOCAB
        assert (alone(model, other)[0, -1] - expected).abs().max() > 1e-2


@every
@settings(max_examples=5, deadline=None)
@given(lengths=st.lists(st.integers(1, 16), min_size=1, max_size=4), steps=st.integers(1, 6), data=st.data())
def test_slots_of_different_lengths_decode_as_each_alone(
    name: str, lengths: list[int], steps: int, data: st.DataObject
) -> None:
    model = built(name)
    slots = torch.tensor(data.draw(st.permutations(range(6)))[: len(lengths)])
    cache = Cache(model.config, 6)
    sequences = [tokens(length + steps, seed=row) for row, length in enumerate(lengths)]
    whole = [alone(model, sequence, seed)[0] for seed, sequence in enumerate(sequences)]
    padded = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        padded[row, :length] = sequence[0, :length]
    sources = source_of(model, list(range(len(lengths))))
    logits = model(padded, cache=cache, slots=slots, counts=torch.tensor(lengths), **sources)
    for row, length in enumerate(lengths):
        assert_same(logits[row, :length], whole[row][:length])
    for step in range(steps):
        ids = torch.stack([sequence[0, length + step] for sequence, length in zip(sequences, lengths, strict=True)])
        logits = model(ids[:, None], cache=cache, slots=slots)
        for row, length in enumerate(lengths):
            assert_same(logits[row, 0], whole[row][length + step])
    untouched = [slot for slot in range(6) if slot not in slots.tolist()]
    assert cache.lengths[slots].tolist() == [length + steps for length in lengths]
    assert not cache.lengths[untouched].any()


@every
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_rows_may_continue_with_pieces_of_different_lengths(name: str, data: st.DataObject) -> None:
    """Each step pads to its longest piece; a row may have none."""
    model, ids = built(name), [tokens(CONTEXT, seed=row) for row in range(2)]
    cache, done = Cache(model.config, 2), [0, 0]
    whole = [alone(model, sequence, seed)[0] for seed, sequence in enumerate(ids)]
    for step in range(data.draw(st.integers(1, 6))):
        room = CONTEXT - max(done)
        counts = data.draw(st.tuples(*[st.integers(0, min(room, 7))] * 2).filter(any), label="counts")
        padded = torch.full((2, max(counts)), 3)
        for row, count in enumerate(counts):
            padded[row, :count] = ids[row][0, done[row] : done[row] + count]
        sources = source_of(model, [0, 1]) if step == 0 else {}
        logits = model(padded, cache=cache, counts=torch.tensor(counts), **sources)
        for row, count in enumerate(counts):
            assert_same(logits[row, :count], whole[row][done[row] : done[row] + count])
            done[row] += count
        if max(done) == CONTEXT:
            break
    assert cache.lengths.tolist() == done


@every
def test_a_new_sequence_may_join_while_others_go_on(name: str) -> None:
    model = built(name)
    cache, old, new = Cache(model.config, 2), tokens(9, seed=1), tokens(5, seed=2)
    model(old[:, :8], cache=cache, slots=torch.tensor([1]), **source_of(model, [1]))
    model(new[:, :4], cache=cache, slots=torch.tensor([0]), **source_of(model, [2]))
    logits = model(torch.stack((new[0, 4:], old[0, 8:])), cache=cache)
    assert_same(logits[0, 0], alone(model, new, 2)[0, -1])
    assert_same(logits[1, 0], alone(model, old, 1)[0, -1])


@every
def test_a_slot_that_held_nan_is_clean_after_reset(name: str) -> None:
    model, ids = built(name), tokens(6)
    cache = Cache(model.config, 2)
    model(tokens(20, seed=3).expand(2, -1), cache=cache, **source_of(model, [3, 3]))
    for store in (*cache.stores, *cache.source_stores):
        for view in store.held(1, 20):
            view.fill_(float("nan") if view.is_floating_point() else 1)
    cache.reset(torch.tensor([1]))
    assert cache.lengths.tolist() == [20, 0]
    model(ids[:, :5], cache=cache, slots=torch.tensor([1]), **source_of(model, [0]))
    logits = model(torch.stack((ids[0, 5:], ids[0, 5:])), cache=cache)
    assert_same(logits[1, 0], alone(model, ids)[0, -1])
    cache.reset()
    assert cache.lengths.tolist() == [0, 0]
    assert not any(tensor.any() for tensor in cache.tensors)


@every_store
def test_a_sequence_that_moves_to_another_slot_goes_on_as_before(name: str, quantized: bool) -> None:
    model, ids = built(name), tokens(15)
    cache, still = (Cache(model.config, 3, quantized=quantized) for _ in range(2))
    for each in (cache, still):
        # Padding behind the real tokens, and more tokens in the target than in the source.
        counts = torch.tensor([14, 3, 14])
        model(ids[:, :14].expand(3, -1), cache=each, counts=counts, **source_of(model, [0, 1, 2]))
    cache.move(2, 0)
    assert cache.lengths.tolist() == [14, 3, 0]
    cache.move(1, 2)
    assert cache.lengths.tolist() == [14, 0, 3]
    assert not any(tensor[1].any() for tensor in cache.tensors)
    moved = model(ids[:, 14:].expand(2, -1), cache=cache, slots=torch.tensor([0, 2]))
    assert torch.equal(moved, model(ids[:, 14:].expand(2, -1), cache=still, slots=torch.tensor([2, 1])))


class AllocatedBytes(TorchDispatchMode):
    """Bytes of all tensors that operations made, views excepted."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        inputs = {each.untyped_storage().data_ptr() for each in tree_leaves(args) if isinstance(each, torch.Tensor)}
        made = [each for each in tree_leaves(found) if isinstance(each, torch.Tensor)]
        self.total += sum(each.nbytes for each in made if each.untyped_storage().data_ptr() not in inputs)
        return found


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 3]])
@pytest.mark.parametrize("quantized", [False, True])
def test_a_step_costs_what_its_rows_hold_and_not_what_their_slots_could(
    model: Transformer, order: list[int], quantized: bool
) -> None:
    made = []
    for room in (8, CONTEXT):
        cache = Cache(model.config, 4, room, quantized=quantized)
        slots, ids = torch.tensor(order), tokens(7).expand(len(order), -1)
        model(ids[:, :6], cache=cache, slots=slots)
        with torch.no_grad(), AllocatedBytes() as allocated:
            model(ids[:, 6:], cache=cache, slots=slots)
        made.append(allocated.total)
    assert made[0] == made[1]


@every_store
def test_nan_in_one_slot_stays_in_that_slot(name: str, quantized: bool) -> None:
    model, ids = built(name), tokens(6)
    cache, sound = (Cache(model.config, 2, quantized=quantized) for _ in range(2))
    for each in (cache, sound):
        model(ids[:, :5].expand(2, -1), cache=each, **source_of(model, [0, 0]))
    for tensor in cache.tensors:
        if tensor.is_floating_point():
            tensor[0] = float("nan")
    logits = model(ids[:, 5:].expand(2, -1), cache=cache)
    # A window of one keeps nothing of what was before.
    assert name == "window of one" or not logits[0].isfinite().any()
    assert_same(logits[1], model(ids[:, 5:].expand(2, -1), cache=sound)[1])


@pytest.mark.parametrize("name", ["window", "window, global tokens", "windows in turn with all", "hybrid"])
def test_what_a_window_or_a_state_keeps_does_not_grow_with_the_sequence(name: str) -> None:
    config = shape(name)
    held = config.window + config.global_tokens
    for layer, kind in enumerate(config.layer_kinds):
        sizes = [
            sum(tensor.nbytes for tensor in Cache(config, 1, length).stores[layer].tensors)
            for length in (held, held + 1, CONTEXT)
        ]
        assert (sizes[0] == sizes[1] == sizes[2]) == (kind != "attention")


@every_store
def test_the_size_is_that_of_as_many_sequences(name: str, quantized: bool) -> None:
    config = shape(name)
    one, three = (Cache(config, slots, 5, quantized=quantized).size_bytes for slots in (1, 3))
    assert three == 3 * one > 0


@pytest.mark.parametrize("name", ["llama", "window", "window, global tokens"])
@pytest.mark.parametrize("length", [2, 5, 11])
def test_a_decoding_step_of_neighbouring_slots_copies_nothing_and_needs_no_mask(name: str, length: int) -> None:
    model, slots = built(name), torch.tensor([1, 2])
    cache = Cache(model.config, 4)
    store, kind = cache.stores[0], model.config.layer_kinds[0]
    assert isinstance(store, AttentionStore) and kind != "state_space"
    model(tokens(length).expand(2, -1), cache=cache, slots=slots)
    step = cache.begin(2, 1, slots)
    new = torch.full((2, 1, model.config.kv_heads, model.config.head_width), 7.0)
    keys, _ = step.extend(0, new, new)
    assert keys.untyped_storage().data_ptr() == store.keys.parts[0].untyped_storage().data_ptr()
    seen = step.mask(kind)
    assert seen is step.mask(kind)
    assert seen.plain and not seen.causal
    held = seen.key_positions[0].tolist()
    assert keys.shape[1] == len(held) == len({*held}) and min(held) >= 0
    assert torch.equal(keys[:, held.index(length)], new[:, 0])


@pytest.mark.parametrize("name", ["encoder-decoder", "t5"])
def test_padding_of_a_source_changes_nothing(name: str) -> None:
    model, ids = built(name), tokens(6).expand(2, -1)
    short = source_of(model, [0, 1])["source"]
    padded = torch.cat((short, torch.full((2, 2), 5)), dim=1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, SOURCE:] = False
    cache = Cache(model.config, 2, source_length=SOURCE + 2)
    model(ids[:, :3], cache=cache, source=padded, source_mask=mask)
    logits = model(ids[:, 3:], cache=cache)
    assert_same(logits, model(ids, source=short)[:, 3:])


def test_sources_of_different_lengths_go_on_together() -> None:
    model, ids = built("t5"), tokens(6)
    cache, sources = Cache(model.config, 3), [tokens(length, seed=length) for length in (4, 9)]
    for slot, source in zip((2, 0), sources, strict=True):
        model(ids[:, :3], cache=cache, slots=torch.tensor([slot]), source=source)
    logits = model(ids[:, 3:].expand(2, -1), cache=cache, slots=torch.tensor([2, 0]))
    for row, source in enumerate(sources):
        assert_same(logits[row], model(ids, source=source)[0, 3:])


def test_a_source_replaces_a_longer_one_that_was_not_begun() -> None:
    model, ids, short, long = built("t5"), tokens(4), tokens(4, seed=4), tokens(9, seed=9)
    cache = Cache(model.config, 2)
    model(ids.expand(2, -1), cache=cache, source=long.expand(2, -1), counts=torch.tensor([0, 3]))
    model(ids[:, :3], cache=cache, slots=torch.tensor([0]), source=short)
    logits = model(ids[:, 3:].expand(2, -1), cache=cache)
    for row, source in enumerate((short, long)):
        assert_same(logits[row], model(ids, source=source)[0, 3:])


def test_a_misused_source_says_how() -> None:
    model, ids = built("t5"), tokens(3)
    cache, source = Cache(model.config, 1, source_length=5), tokens(5)
    with pytest.raises(ValueError, match="slot 0 has no source"):
        model(ids, cache=cache)
    with pytest.raises(ValueError, match=r"source of 6 tokens .* source_length 5"):
        model(ids, cache=cache, source=tokens(6))
    model(ids, cache=cache, source=source)
    with pytest.raises(ValueError, match=r"slot 0 .* reset"):
        model(ids, cache=cache, source=source)
    cache.reset()
    with pytest.raises(ValueError, match="slot 0 has no source"):
        model(ids, cache=cache)
    assert cache.lengths.tolist() == [0]


@every
def test_a_sequence_longer_than_the_cache_is_refused_and_changes_nothing(name: str) -> None:
    model = built(name)
    cache = Cache(model.config, 1, max_length=8)
    model(tokens(7), cache=cache, **source_of(model, [0]))
    before = [tensor.clone() for tensor in cache.tensors]
    with pytest.raises(ValueError, match=r"9 tokens .* max_length 8"):
        model(tokens(2), cache=cache)
    assert cache.lengths.tolist() == [7]
    assert all(torch.equal(old, new) for old, new in zip(before, cache.tensors, strict=True))


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
        model(tokens(3).expand(2, -1), cache=Cache(model.config, 3), **arguments)


def test_padding_beyond_the_cache_is_named(model: Transformer) -> None:
    cache = Cache(model.config, 2)
    model(tokens(20).expand(2, -1), cache=cache, counts=torch.tensor([20, 1]))
    said = r"^slot 0 holds 20 tokens, and a row of 6, padding included, makes 26: longer than .* max_length 24; .*apart"
    with pytest.raises(ValueError, match=said):
        model(tokens(6).expand(2, -1), cache=cache, counts=torch.tensor([1, 6]))
    assert cache.lengths.tolist() == [20, 1]


@pytest.mark.parametrize(
    ("slots", "said"),
    [
        (torch.tensor([-1]), "slot -1 is not one of 0 to 1"),
        (torch.tensor([0, 2]), "slot 2 is not one of 0 to 1"),
        (torch.tensor([True, False]), "slots of type bool must be int32 or int64"),
    ],
)
def test_a_reset_of_a_slot_that_is_none_is_refused_and_empties_nothing(
    model: Transformer, slots: torch.Tensor, said: str
) -> None:
    cache = Cache(model.config, 2)
    model(tokens(3).expand(2, -1), cache=cache)
    with pytest.raises(ValueError, match=f"^{said}$"):
        cache.reset(slots)
    assert cache.lengths.tolist() == [3, 3]


@pytest.mark.parametrize("slots", [0, -1])
def test_a_cache_without_slots_is_refused(slots: int) -> None:
    with pytest.raises(ValueError, match=f"^slots {slots} must be at least 1$"):
        Cache(shape("llama"), slots)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_cache_that_would_truncate_is_refused(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=f"^dtype {name} must be a floating-point type, as the model's weights are$"):
        Cache(shape("llama"), 1, dtype=dtype)


def test_slots_without_a_cache_are_refused(model: Transformer) -> None:
    with pytest.raises(ValueError, match="belong to a cache"):
        model(tokens(3), slots=torch.tensor([0]))


def test_a_cache_that_the_model_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match=f"max_length {CONTEXT + 1} .* {CONTEXT}"):
        Cache(shape("llama"), 1, max_length=CONTEXT + 1)
    with pytest.raises(ValueError, match=f"source_length 0 .* {CONTEXT}"):
        Cache(shape("t5"), 1, source_length=0)
    with pytest.raises(ValueError, match="source_length 5 has no effect"):
        Cache(shape("llama"), 1, source_length=5)
    with pytest.raises(ValueError, match="quantized has no effect"):
        Cache(shape("state space"), 1, quantized=True)
    with pytest.raises(ValueError, match=r"encoder .* no cache"):
        Cache(shape("llama").model_copy(update={"kind": "encoder"}), 1)
