"""Granite: Llama with four multipliers, of embeddings, scores, updates of the stream and logits."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.llama import (
    COPIES,
    FIELDS,
    UNUSED,
    read_common,
    weights,
    without_derived_head,
    write_common,
)

_FIELDS = {
    **FIELDS,
    "attention_scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}


def read(fields: Fields) -> dict[str, Any]:
    return {
        **read_common(fields, kv_heads=None),
        "attention_bias": "all" if fields.switch("attention_bias", False) else "none",
        "feedforward_bias": fields.switch("mlp_bias", False),
        "attention_scale": fields.take("attention_multiplier", 1.0),
        "embedding_scale": fields.take("embedding_multiplier", 1.0),
        "residual_scale": fields.take("residual_multiplier", 1.0),
        "logit_scale": 1 / fields.positive("logits_scaling", 1.0),
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    # The divisor is a whole number if the scale is the inverse of one, since rounding twice may miss it.
    divisor, whole = 1 / config.logit_scale, float(round(1 / config.logit_scale))
    written = {
        **write_common(config),
        "attention_bias": config.attention_bias == "all",
        "attention_multiplier": config.attention_scale or config.head_width**-0.5,
        "embedding_multiplier": config.embedding_scale,
        "logits_scaling": whole if whole and 1 / whole == config.logit_scale else divisor,
        "mlp_bias": config.feedforward_bias,
        "residual_multiplier": config.residual_scale,
    }
    return without_derived_head(written)


GRANITE = Family("granite", "GraniteForCausalLM", read, write, weights, _FIELDS, unused=UNUSED, copies=COPIES)
