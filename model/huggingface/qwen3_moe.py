"""Qwen3-MoE: Qwen3's attention, and a mixture of experts in place of each feed-forward network."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.llama import (
    ATTENTION,
    COPIES,
    FIELDS,
    UNUSED,
    layered,
    read_common,
    without_derived_head,
    write_common,
)
from sluice.model.huggingface.weights import WeightRow

_ROUTER = {"feedforward.router.weight": "mlp.gate.weight"}
_EXPERTS = {f"feedforward.{part}": f"mlp.experts.{{}}.{part}_proj.weight" for part in ("gate", "up", "down")}
_FIELDS = {
    **FIELDS,
    "mixture.experts": "num_experts",
    "mixture.per_token": "num_experts_per_tok",
    "mixture.intermediate_size": "moe_intermediate_size",
    "mixture.normalize": "norm_topk_prob",
    "mixture.balance_weight": "router_aux_loss_coef",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    return layered(config, ATTENTION | _ROUTER, _EXPERTS)


def read(fields: Fields) -> dict[str, Any]:
    # Dense layers between the mixtures.
    fields.fixed("decoder_sparse_step", 1)
    if (dense := fields.take("mlp_only_layers", None)) not in (None, []):
        raise ValueError(f"config.json: mlp_only_layers is {dense!r}, but only [] is supported")
    slides, window = fields.switch("use_sliding_window", False), fields.take("sliding_window", 4096, nullable=True)
    experts = fields.take("num_local_experts", None)
    ours = read_common(fields, kv_heads=4)
    ours["mixture"] = {
        "experts": fields.take("num_experts", 128) if experts is None else experts,
        "per_token": fields.take("num_experts_per_tok", 8),
        "intermediate_size": fields.take("moe_intermediate_size", 768),
        "normalize": fields.switch("norm_topk_prob", False),
        "balance_weight": fields.take("router_aux_loss_coef", 0.001),
        "z_weight": 0.0,
    }
    ours["attention_bias"] = "all" if fields.switch("attention_bias", False) else "none"
    return {**ours, "window": window if slides else None, "qk_norm": True}


def write(config: TransformerConfig) -> dict[str, Any]:
    mixture = config.mixture or MixtureConfig.model_validate({"experts": 8})
    written = {
        **write_common(config),
        "attention_bias": config.attention_bias == "all",
        "moe_intermediate_size": mixture.intermediate_size or config.feedforward_width,
        "norm_topk_prob": mixture.normalize,
        "num_experts": mixture.experts,
        "num_experts_per_tok": mixture.per_token,
        "router_aux_loss_coef": mixture.balance_weight,
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    }
    return without_derived_head(written)


QWEN3_MOE = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset({"max_window_layers", "output_router_logits"}),
    unused=UNUSED,
    copies=COPIES,
)
