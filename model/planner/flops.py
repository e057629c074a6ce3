"""Arithmetic of the matrix products. A multiply and an add are two FLOPs; element-wise work (norms, activations, the
depth-wise convolution of state spaces) is left out, as in the papers.
"""

from typing import Literal

import numpy as np

from sluice.model.architecture.config import LayerKind, TransformerConfig
from sluice.model.planner.base import Record
from sluice.model.planner.parameters import active_size, count_parameters
from sluice.model.planner.weights import StateSpaceShape, list_weights

LENGTHS = tuple(2**power for power in range(9, 18))
"""512 to 131,072: where attention's share is shown."""


class Flops(Record):
    """FLOPs of one sequence, and a token of it.

    In an encoder-decoder the tokens are the target's, and each brings its share of the source's arithmetic.
    """

    length: int
    source_length: int | None
    """encoder-decoder: of the source."""
    projections: int
    """Those of attention and cross-attention: queries, keys, values, output."""
    scores: int
    """Queries with keys and weights with values, of the pairs that are seen: what grows with the square."""
    feedforward: int
    router: int
    experts: int
    """Those of the experts that a token is routed to; choices dropped for capacity count as well."""
    state_space: int
    """Its projections."""
    scan: int
    head: int
    """A product whether or not it shares the embedding's weights; the embedding itself is a lookup."""
    sequence_forward: int
    sequence_training: int
    """Forward and backward: every product has two in the backward pass, so three times the forward pass."""
    forward: float
    """A token, as all below."""
    training: float
    attention_share: float
    """Share of `scores` in the forward pass."""
    forward_2n: int
    """The usual estimate: 2 x active parameters."""
    training_6n: int


class AttentionShare(Record):
    """Share of `scores` in the forward pass of a sequence of this length."""

    length: int
    forward: float
    """FLOPs a token."""
    share: float


def count_flops(
    config: TransformerConfig,
    length: int | None = None,
    source_length: int | None = None,
    *,
    pairs: Literal["visible", "all"] = "visible",
) -> Flops:
    """FLOPs of a sequence of `length` (unset: the context), which may exceed the context: this is only arithmetic.

    `pairs` "all" counts what a kernel does that computes what it masks, too; "visible" is the model's own arithmetic.
    `source_length` (unset: as `length`) is for an encoder-decoder.
    """
    length = length or config.context
    source = (source_length or length) if config.kind == "encoder-decoder" else None
    parts = dict.fromkeys(_PARTS, 0)
    for weight in list_weights(config):
        if weight.is_product:
            of_source = (weight.layer is not None and weight.layer[0] == "encoder") or (
                weight.component == "cross_attention" and weight.name.endswith((".key.weight", ".value.weight"))
            )
            tokens = source if of_source else length
            assert tokens is not None
            parts[_PART[weight.component]] += 2 * active_size(config, weight) * tokens
    parts["head"] += 2 * config.vocab_size * config.hidden_size * length
    causal = config.kind != "encoder"
    for kind in config.layer_kinds:
        if kind == "state_space":
            parts["scan"] += _scan(config, length, pairs)
        else:
            parts["scores"] += _scores(config, _pairs(config, kind, length, causal, pairs))
        if source is not None:
            parts["scores"] += _scores(config, length * source)
    for kind in config.encoder_kinds:
        assert source is not None
        parts["scores"] += _scores(config, _pairs(config, kind, source, False, pairs))
    forward, active = sum(parts.values()), count_parameters(config).active
    return Flops(
        length=length,
        source_length=source,
        **parts,
        sequence_forward=forward,
        sequence_training=3 * forward,
        forward=forward / length,
        training=3 * forward / length,
        attention_share=parts["scores"] / forward,
        forward_2n=2 * active,
        training_6n=6 * active,
    )


def attention_shares(config: TransformerConfig, lengths: tuple[int, ...] = LENGTHS) -> list[AttentionShare]:
    """Share of the forward pass that the pairs of tokens take, by length."""
    found = [count_flops(config, length) for length in lengths]
    return [AttentionShare(length=each.length, forward=each.forward, share=each.attention_share) for each in found]


_PARTS = ("projections", "scores", "feedforward", "router", "experts", "state_space", "scan", "head")
_PART = {
    "attention": "projections",
    "cross_attention": "projections",
    "feedforward": "feedforward",
    "router": "router",
    "experts": "experts",
    "state_space": "state_space",
    "head": "head",
}


def _scores(config: TransformerConfig, pairs: int) -> int:
    """Two products a pair and head: with the keys and with the values."""
    return 2 * 2 * pairs * config.heads * config.head_width


def _pairs(
    config: TransformerConfig, kind: LayerKind, length: int, causal: bool, pairs: Literal["visible", "all"]
) -> int:
    if pairs == "all":
        return length**2
    window = config.window if kind == "window" else None
    return visible_pairs(length, causal=causal, window=window, global_tokens=config.global_tokens)


def visible_pairs(length: int, *, causal: bool, window: int | None = None, global_tokens: int = 0) -> int:
    """Pairs of a query and a key that it sees, in one sequence. `global_tokens` have a meaning with a window only."""
    if window is None:
        return length * (length + 1) // 2 if causal else length**2
    query = np.arange(length, dtype=np.int64)
    last = query if causal else np.minimum(query + window - 1, length - 1)
    first = np.maximum(query - window + 1, 0)
    seen = last - first + 1
    # Global keys that the window does not reach, on its left and, without causality, on its right.
    seen += np.minimum(first, global_tokens)
    if not causal:
        seen += np.maximum(min(global_tokens, length) - 1 - last, 0)
    is_global = query < global_tokens
    seen[is_global] = query[is_global] + 1 if causal else length
    return int(seen.sum())


def _scan(config: TransformerConfig, length: int, pairs: Literal["visible", "all"]) -> int:
    """One layer: attention-like products within a chunk, and two products a token with the state (Dao and Gu, arXiv
    2405.21060, section 6).
    """
    assert config.state_space is not None
    state, sizes = config.state_space, StateSpaceShape.of(config.hidden_size, config.state_space)
    chunk = min(state.chunk, length)
    whole, rest = divmod(length, chunk)
    if pairs == "all":
        # The last chunk is filled up.
        chunks = whole + (rest > 0)
        within, length = chunks * chunk**2, chunks * chunk
    else:
        within = whole * chunk * (chunk + 1) // 2 + rest * (rest + 1) // 2
    attended = 2 * within * (state.groups * state.state_size + sizes.inner)
    return attended + 2 * 2 * length * sizes.inner * state.state_size
