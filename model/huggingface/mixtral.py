"""Mixtral: Llama's attention, and a mixture of experts in place of each feed-forward network."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.mixture_config import MixtureConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.llama import ATTENTION, COPIES, FIELDS, UNUSED, layered, read_common, write_common
from sluice.model.huggingface.weights import WeightRow

_ROUTER = {"feedforward.router.weight": "block_sparse_moe.gate.weight"}
_EXPERTS = {
    "feedforward.gate": "block_sparse_moe.experts.{}.w1.weight",
    "feedforward.up": "block_sparse_moe.experts.{}.w3.weight",
    "feedforward.down": "block_sparse_moe.experts.{}.w2.weight",
}
_FIELDS = {
    **FIELDS,
    "mixture.experts": "num_local_experts",
    "mixture.per_token": "num_experts_per_tok",
    "mixture.balance_weight": "router_aux_loss_coef",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    return layered(config, ATTENTION | _ROUTER, _EXPERTS)


def read(fields: Fields) -> dict[str, Any]:
    mixture = {
        "experts": fields.take("num_local_experts", 8),
        "per_token": fields.take("num_experts_per_tok", 2),
        "balance_weight": fields.take("router_aux_loss_coef", 0.001),
        "z_weight": 0.0,
    }
    ours = read_common(fields, kv_heads=8, eps=1e-5, theta=1e6)
    return {**ours, "window": fields.take("sliding_window", None), "mixture": mixture}


def write(config: TransformerConfig) -> dict[str, Any]:
    mixture = config.mixture or MixtureConfig.model_validate({"experts": 8})
    # null as in the published config.json; but transformers' YaRN fails on it.
    derived = config.head_width * config.heads == config.hidden_size and config.rope_scaling is None
    return {
        **write_common(config),
        "head_dim": None if derived else config.head_width,
        "intermediate_size": mixture.intermediate_size or config.feedforward_width,
        "num_experts_per_tok": mixture.per_token,
        "num_local_experts": mixture.experts,
        "router_aux_loss_coef": mixture.balance_weight,
        "sliding_window": config.window,
    }


MIXTRAL = Family(
    "mixtral",
    "MixtralForCausalLM",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset({"output_router_logits"}),
    unused=UNUSED,
    copies=COPIES,
)
