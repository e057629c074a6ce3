"""OLMo 2: Llama with norms of what the sublayers give, and of all query or key heads together."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.llama import (
    ATTENTION,
    COPIES,
    FEEDFORWARD,
    FIELDS,
    UNUSED,
    layered,
    read_common,
    without_derived_head,
    write_common,
)
from sluice.model.huggingface.weights import WeightRow

_NORMS = {
    "attention_norm.weight": "post_attention_layernorm.weight",
    "feedforward_norm.weight": "post_feedforward_layernorm.weight",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    return layered(config, ATTENTION | FEEDFORWARD | _NORMS)


def read(fields: Fields) -> dict[str, Any]:
    return {
        **read_common(fields, kv_heads=None, eps=1e-5),
        "attention_bias": "all" if fields.switch("attention_bias", False) else "none",
        "norm_position": "output",
        "qk_norm": True,
        "qk_norm_over": "all_heads",
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    return without_derived_head({**write_common(config), "attention_bias": config.attention_bias == "all"})


OLMO2 = Family("olmo2", "Olmo2ForCausalLM", read, write, weights, FIELDS, unused=UNUSED, copies=COPIES)
