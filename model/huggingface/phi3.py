"""Phi-3 and Phi-4-mini: Mistral with fused projections, partial rotation and LongRoPE."""

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
    padding_inside,
    read_common,
    without_derived_head,
    write_common,
)
from sluice.model.huggingface.rotary import write_rotary
from sluice.model.huggingface.weights import WeightRow

_ORIGINAL = 4096
_FUSED = {
    "self_attn.qkv_proj.weight": ("attention.query", "attention.key", "attention.value"),
    "mlp.gate_up_proj.weight": ("feedforward.gate", "feedforward.up"),
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    fused = {f"{part}.weight" for parts in _FUSED.values() for part in parts}
    apart = {mine: other for mine, other in (ATTENTION | FEEDFORWARD).items() if mine not in fused}
    rows = layered(config, apart)
    for layer in range(config.layers):
        for name, parts in _FUSED.items():
            ours = tuple(f"layers.{layer}.{part}.weight" for part in parts)
            rows.append(WeightRow(ours, (f"model.layers.{layer}.{name}",)))
    return rows


def read(fields: Fields) -> dict[str, Any]:
    ours = read_common(fields, kv_heads=None, eps=1e-5, fraction=1.0, original=_ORIGINAL)
    if (scaling := ours.get("rope_scaling")) is not None and scaling["kind"] != "longrope":
        raise ValueError(
            f"config.json: rope_type is {scaling['kind']!r}, but this family has only 'default' and 'longrope'"
        )
    if ours["head_size"] * ours["heads"] != ours["hidden_size"]:
        raise ValueError(f"config.json: head_dim is {ours['head_size']!r}, but only hidden_size / heads is supported")
    return {**ours, "window": fields.take("sliding_window", None)}


def write(config: TransformerConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    written = {
        **write_common(config),
        **write_rotary(config, partial=True),
        **padding_inside(config, 32000),
        "original_max_position_embeddings": _ORIGINAL if scaling is None else scaling.trained_context(config.context),
        "sliding_window": config.window,
    }
    return without_derived_head(written)


PHI3 = Family(
    "phi3",
    "Phi3ForCausalLM",
    read,
    write,
    weights,
    FIELDS,
    # Fields of Phi-4-mini's own code, which transformers' class does not read.
    without_effect=frozenset({"full_attn_mod", "interpolate_factor"}),
    unused=UNUSED,
    copies=COPIES,
)
