"""Ring buffers, and keys and values in 8 bits."""

from copy import deepcopy

import pytest
import torch
from cached_architectures import CONTEXT, WITH_KEYS, alone, built, source_of, tokens
from hypothesis import given, settings
from hypothesis import strategies as st

from sluice.model.architecture.cache import Cache
from sluice.model.architecture.cache_stores import Int8KVBuffer, RingBuffer

rings = st.builds(RingBuffer.create, st.integers(1, 6), st.integers(0, 4), st.integers(1, 16))


@settings(deadline=None)
@given(ring=rings, length=st.integers(0, 16))
def test_a_ring_holds_the_pinned_positions_and_the_last_of_the_others(ring: RingBuffer, length: int) -> None:
    expected = {*range(min(ring.pinned, length)), *range(max(ring.pinned, length - ring.turning), length)}
    held = ring.held(torch.tensor([length, 0]))
    assert held.shape == (2, ring.places)
    assert set(held[0].tolist()) - {-1} == expected
    assert held[1].tolist() == [-1] * ring.places
    for place, position in enumerate(held[0].tolist()):
        assert position == -1 or int(ring.place(torch.tensor(position))) == place


@settings(deadline=None)
@given(window=st.integers(1, 6), pinned=st.integers(0, 4), longest=st.integers(1, 16), data=st.data())
def test_a_token_overwrites_only_what_has_left_its_window(
    window: int, pinned: int, longest: int, data: st.DataObject
) -> None:
    ring, position = RingBuffer.create(window, pinned, longest), data.draw(st.integers(0, longest - 1))
    assert ring.places == min(longest, window + pinned)
    seen = {*range(min(pinned, position)), *range(max(0, position - window + 1), position)}
    assert seen <= set(ring.held(torch.tensor([position]))[0].tolist())
    assert seen | {position} == set(ring.held(torch.tensor([position + 1]))[0].tolist()) - {-1}


def int8(size: int) -> Int8KVBuffer:
    return Int8KVBuffer((1, 1, 1, size), "cpu")


@settings(max_examples=50, deadline=None)
@given(exponent=st.integers(-20, 20), size=st.integers(1, 40), seed=st.integers(0, 99))
def test_8_bits_are_off_by_half_a_scale_at_most(exponent: int, size: int, seed: int) -> None:
    vectors, x = int8(size), torch.randn(30, size, generator=torch.Generator().manual_seed(seed)) * 10.0**exponent
    codes, scale = vectors.encode(x)
    assert codes.dtype == torch.int8 and scale.shape == (30, 1)
    torch.testing.assert_close(scale[:, 0], x.abs().amax(dim=-1) / 127)
    # The division before rounding, and the product after, are themselves rounded.
    assert ((vectors.round_trip(x) - x).abs() <= scale * (0.5 + 127 * 2**-22)).all()


def test_8_bits_keep_zeros_and_do_not_hide_what_is_not_finite() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, torch.nan], [torch.inf, 1.0], [-torch.inf, torch.inf]])
    seen = int8(2).round_trip(x)
    assert not seen[0].any() and seen[1:].isnan().all()


@pytest.mark.parametrize("name", WITH_KEYS)
def test_8_bits_say_the_same_however_the_sequence_is_fed(name: str) -> None:
    model, ids = built(name), tokens(CONTEXT)
    answers = []
    # A source's keys and values are exact in the step that brings them: one token for all.
    first = 1 if model.config.kind == "encoder-decoder" else 9
    for pieces in ([first, CONTEXT - first], [1] * CONTEXT, [1, 5, 1, 9, 8]):
        cache = Cache(model.config, 1, quantized=True)
        sources = [source_of(model, [0])] + [{}] * (len(pieces) - 1)
        logits = [model(piece, cache=cache, **read) for piece, read in zip(ids.split(pieces, 1), sources, strict=True)]
        answers.append(torch.cat(logits, dim=1))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], atol=2e-5, rtol=1e-5)
    assert not torch.equal(answers[0], alone(model, ids))


@pytest.mark.parametrize("name", WITH_KEYS)
def test_logits_over_8_bits_are_near_and_name_the_same_token_where_the_margin_allows(name: str) -> None:
    model, ids = built(name), tokens(CONTEXT)
    exact = alone(model, ids)[0]
    found = model(ids, cache=Cache(model.config, 1, quantized=True), **source_of(model, [0]))[0]
    error = (found - exact).abs().amax(dim=-1)
    assert error.max() < 0.03 * exact.abs().max()
    best = exact.topk(2, dim=-1).values
    clear = best[:, 0] - best[:, 1] > 2 * error
    assert clear.sum() > CONTEXT / 2
    assert torch.equal(found.argmax(dim=-1)[clear], exact.argmax(dim=-1)[clear])


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("name", ["llama", "window", "hybrid", "t5"])
def test_a_cache_of_another_type_answers_in_the_models(name: str, quantized: bool) -> None:
    model, ids = built(name), tokens(9)
    cache = Cache(model.config, 1, dtype=torch.bfloat16, quantized=quantized)
    logits = [model(ids[:, :6], cache=cache, **source_of(model, [0])), *(
        model(ids[:, place : place + 1], cache=cache) for place in range(6, 9)
    )]  # fmt: skip
    expected = alone(model, ids)
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=0.05 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("name", ["llama", "windows in turn with all", "mixture", "hybrid", "t5"])
def test_a_model_of_bfloat16_says_with_its_cache_what_it_says_without(name: str) -> None:
    model, ids = deepcopy(built(name)).bfloat16(), tokens(12)
    cache = Cache(model.config, 1, dtype=torch.bfloat16)
    logits = [model(ids[:, :7], cache=cache, **source_of(model, [0])), *(
        model(ids[:, place : place + 1], cache=cache) for place in range(7, 12)
    )]  # fmt: skip
    expected = alone(model, ids)
    assert expected.dtype == logits[0].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=0.05 * float(expected.abs().max()), rtol=0)
