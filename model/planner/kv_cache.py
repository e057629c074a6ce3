"""Bytes of the cache of one sequence: keys and values, their windows, int8, and the state of state space layers."""

from typing import Literal

from sluice.model.architecture.config import TransformerConfig
from sluice.model.planner.base import Record
from sluice.model.planner.weights import StateSpaceShape

CacheDtype = Literal["fp32", "bf16", "int8"]
HeadSharing = Literal["MHA", "GQA", "MQA"]
_BYTES: dict[CacheDtype, int] = {"fp32": 4, "bf16": 2, "int8": 1}
_SCALE_BYTES = 4


class CacheSize(Record):
    """Size of the cache of one sequence."""

    sharing: HeadSharing
    kv_heads: int
    dtype: CacheDtype
    token_bytes: int
    """Added by one more token, beyond every window."""
    context_bytes: int
    """For a sequence that fills the context."""


def head_sharing(config: TransformerConfig) -> HeadSharing:
    """Every head has its own keys and values (MHA), groups share them, or all do (MQA)."""
    return "MHA" if config.kv_heads == config.heads else "MQA" if config.kv_heads == 1 else "GQA"


def cache_sizes(config: TransformerConfig) -> list[CacheSize]:
    """In each type, by the configuration's own sharing of heads, and for comparison its MHA and MQA."""
    if not config.has_attention:
        variants = [config]
    else:
        kv_heads = sorted({config.heads, config.kv_heads, 1}, reverse=True)
        variants = [config.model_copy(update={"kv_heads": count}) for count in kv_heads]
    return [
        CacheSize(
            sharing=head_sharing(each),
            kv_heads=each.kv_heads,
            dtype=dtype,
            token_bytes=sum(kind == "attention" for kind in each.layer_kinds) * _token_bytes(each, dtype),
            context_bytes=cache_bytes(each, each.context, dtype),
        )
        for each in variants
        for dtype in _BYTES
    ]


def cache_bytes(config: TransformerConfig, length: int, dtype: CacheDtype, source_length: int | None = None) -> int:
    """Cache of one sequence of `length` tokens; an encoder-decoder's also holds keys and values of its source (unset:
    as long). An encoder has no cache: 0.
    """
    if config.kind == "encoder":
        return 0
    total, token_bytes = 0, _token_bytes(config, dtype)
    for kind in config.layer_kinds:
        match kind:
            case "attention":
                total += length * token_bytes
            case "window":
                assert config.window is not None
                total += min(length, config.window + config.global_tokens) * token_bytes
            case "state_space":
                # The state itself is float32 in every type, since it sums over the whole sequence.
                assert config.state_space is not None
                state, sizes = config.state_space, StateSpaceShape.of(config.hidden_size, config.state_space)
                total += sizes.channels * (state.conv_width - 1) * (4 if dtype == "fp32" else 2)
                total += 4 * sizes.inner * state.state_size
    if config.kind == "encoder-decoder":
        # And a byte a token for the padding mask.
        total += (source_length or length) * (config.layers * token_bytes + 1)
    return total


def _token_bytes(config: TransformerConfig, dtype: CacheDtype) -> int:
    """One token in one layer: a key and a value per head; with int8 each has a float32 scale."""
    scale = _SCALE_BYTES if dtype == "int8" else 0
    return 2 * config.kv_heads * (config.head_width * _BYTES[dtype] + scale)
