"""FLOPs: what torch counts in the model itself, and pairs of tokens as the mask allows them."""

from itertools import pairwise

import pytest
import torch
from architecture_fixtures import CONTEXT, DECODERS, ENCODER_DECODERS, ENCODERS, shape, shapes, tokens
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from sluice.model.architecture.attention_mask import AttentionMask
from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.transformer import Transformer
from sluice.model.planner.flops import attention_shares, count_flops, visible_pairs

NAMED = {**DECODERS, **ENCODERS, **ENCODER_DECODERS}
ROWS, SOURCE = 2, 9


def counted(config: TransformerConfig, length: int, *, backward: bool) -> int:
    """Torch's count for ROWS sequences on the kernel that computes every pair."""
    model = Transformer(config)
    model.kernel = "reference"
    beside = {"source": tokens(ROWS, SOURCE)} if config.kind == "encoder-decoder" else {}
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        logits = model(tokens(ROWS, length), **beside)
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


def expected(config: TransformerConfig, length: int, *, backward: bool) -> int:
    flops = count_flops(config, length, SOURCE if config.kind == "encoder-decoder" else None, pairs="all")
    return ROWS * (flops.sequence_training if backward else flops.sequence_forward)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("backward", [False, True])
def test_products_are_those_that_torch_counts(name: str, backward: bool) -> None:
    config = shape(NAMED[name])
    if backward:
        # RMSNorm's own backward pass multiplies a matrix with a vector, which is no product of the model's.
        config = config.model_copy(update={"norm": "layer", "qk_norm": False})
    assert counted(config, 21, backward=backward) == expected(config, 21, backward=backward) > 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
# From two tokens on: of one, torch computes some products as element-wise ones.
@given(config=shapes(), length=st.integers(2, CONTEXT))
def test_products_of_every_combination(config: TransformerConfig, length: int) -> None:
    event(config.kind)
    assert counted(config, length, backward=False) == expected(config, length, backward=False)


@given(
    length=st.integers(1, 70),
    causal=st.booleans(),
    window=st.none() | st.integers(1, 80),
    global_tokens=st.integers(0, 80),
)
def test_pairs_are_those_that_the_mask_allows(
    length: int, causal: bool, window: int | None, global_tokens: int
) -> None:
    global_tokens = global_tokens if window else 0
    seen = AttentionMask.self_attention(length, causal=causal, window=window, global_tokens=global_tokens)
    pairs = visible_pairs(length, causal=causal, window=window, global_tokens=global_tokens)
    assert pairs == int(seen.allowed.expand(1, 1, length, length).sum())


@given(config=shapes(), length=st.integers(1, 200))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_laws_of_the_count(config: TransformerConfig, length: int) -> None:
    flops, every = count_flops(config, length), count_flops(config, length, pairs="all")
    assert flops.sequence_forward <= every.sequence_forward
    assert flops.sequence_training == 3 * flops.sequence_forward
    assert flops.forward * length == pytest.approx(flops.sequence_forward)
    assert 0 <= flops.attention_share < 1
    assert (flops.attention_share == 0) == (not config.has_attention)
    assert count_flops(config, length + 1).sequence_forward > flops.sequence_forward


def test_6n_is_near_for_a_short_context_and_far_for_a_long_one() -> None:
    # The shape of LLaMA 7B with a tied head: 6N counts the embedding, which is a lookup, but then also is the head.
    config = TransformerConfig(
        vocab_size=32_000,
        hidden_size=4_096,
        layers=32,
        heads=32,
        kv_heads=32,
        intermediate_size=11_008,
        context=2_048,
    )
    short, long = count_flops(config, 128), count_flops(config, 131_072)
    assert short.training == pytest.approx(short.training_6n, rel=0.01)
    assert long.training > 3 * long.training_6n
    shares = attention_shares(config)
    assert [each.length for each in shares][0::8] == [512, 131_072]
    assert all(first.share < then.share for first, then in pairwise(shares))
    # Kaplan's 2 n_layer n_ctx d_attn a product and token (arXiv 2001.08361, table 1), halved by causality.
    assert long.scores / long.length == pytest.approx(2 * 32 * 131_072 * 4_096, rel=1e-4)


def test_a_window_makes_the_scores_linear() -> None:
    config = shape(DECODERS["window"])
    one, two = (count_flops(config, length).scores for length in (1_000, 2_000))
    assert two / one == pytest.approx(2, rel=0.01)
