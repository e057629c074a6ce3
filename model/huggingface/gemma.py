"""Gemma, Gemma 2 and Gemma 3 (text): scaled embeddings, norms stored less one, and from Gemma 2 on norms on both sides
of a sublayer, soft caps and windows.
"""

from typing import Any

from sluice.model.architecture.config import FeedForwardKind, TransformerConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.llama import (
    ATTENTION,
    COPIES,
    FEEDFORWARD,
    FIELDS,
    UNUSED,
    layered,
    read_layer_types,
    read_sizes,
    write_layer_types,
    write_sizes,
)
from sluice.model.huggingface.llama import weights as llama_weights
from sluice.model.huggingface.rotary import read_rope, read_rotary, write_rope, write_rotary
from sluice.model.huggingface.weights import WeightRow

_ACTIVATIONS: dict[str, FeedForwardKind] = {"gelu_pytorch_tanh": "geglu_tanh", "gelu": "geglu", "silu": "swiglu"}
# Releases of the first Gemma say gelu and mean its approximation.
_FIRST_ACTIVATIONS: dict[str, FeedForwardKind] = {**_ACTIVATIONS, "gelu": "geglu_tanh"}
_NORMS = {
    "attention_output_norm.weight": "post_attention_layernorm.weight",
    "feedforward_norm.weight": "pre_feedforward_layernorm.weight",
    "feedforward_output_norm.weight": "post_feedforward_layernorm.weight",
}
_FIELDS = {
    **FIELDS,
    "attention_soft_cap": "attn_logit_softcapping",
    "logit_soft_cap": "final_logit_softcapping",
    "attention_scale": "query_pre_attn_scalar",
}
_GLOBAL, _LOCAL = 1e6, 1e4


def weights(config: TransformerConfig) -> list[WeightRow]:
    """Table of weight names of Gemma 2 and 3."""
    return layered(config, ATTENTION | FEEDFORWARD | _NORMS)


def _read_shared(fields: Fields, kv_heads: int) -> dict[str, Any]:
    """Settings of all three."""
    if (value := fields.take("use_bidirectional_attention", None)) not in (None, False):
        raise ValueError(f"config.json: use_bidirectional_attention is {value!r}, but only False is supported")
    sizes = read_sizes(fields, kv_heads=kv_heads, head_size=256)
    return {
        **sizes,
        "context": fields.take("max_position_embeddings"),
        "attention_bias": "all" if fields.switch("attention_bias", False) else "none",
        "attention_dropout": fields.take("attention_dropout", 0.0, nullable=True) or 0.0,
        "embedding_scale": sizes["hidden_size"] ** 0.5,
        "norm_eps": fields.take("rms_norm_eps", 1e-6),
        "norm_plus_one": True,
        "tie_embeddings": fields.switch("tie_word_embeddings", True),
    }


def _write_shared(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_sizes(config),
        "attention_bias": config.attention_bias == "all",
        "attention_dropout": config.attention_dropout,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }


def read_gemma(fields: Fields) -> dict[str, Any]:
    ours = _read_shared(fields, kv_heads=16)
    ours["feedforward"] = fields.choice("hidden_act", _FIRST_ACTIVATIONS, "gelu_pytorch_tanh")
    # Earlier versions of transformers computed this one, later ones ignore it.
    older = fields.take("hidden_activation", None)
    if older is not None and _ACTIVATIONS.get(older) != ours["feedforward"]:
        raise ValueError(
            f"config.json: hidden_activation is {older!r}, which is not the activation of hidden_act: leave one out"
        )
    return {**ours, **read_rotary(fields, ours["context"], _LOCAL)}


def write_gemma(config: TransformerConfig) -> dict[str, Any]:
    activation = spelled(_FIRST_ACTIVATIONS, config.feedforward)
    return {**_write_shared(config), **write_rotary(config), "hidden_act": activation}


def _read_second(fields: Fields, *, cap: float | None, period: int) -> dict[str, Any]:
    """Settings that Gemma 2 and 3 share; every layer of `period` but the last is a window by default."""
    ours = _read_shared(fields, kv_heads=4)
    layers = ours["layers"]
    if ours["hidden_size"] % ours["heads"]:
        # transformers' own rule, whatever head_dim is.
        raise ValueError(
            f"config.json: hidden_size {ours['hidden_size']} is no multiple of num_attention_heads {ours['heads']}"
        )
    types = fields.take("layer_types", None)
    if types is None:
        types = ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(layers)]
    return {
        **ours,
        **read_layer_types(types, layers, fields.take("sliding_window", 4096, nullable=True)),
        "attention_scale": fields.count("query_pre_attn_scalar", 256) ** -0.5,
        "feedforward": fields.choice("hidden_activation", _ACTIVATIONS, "gelu_pytorch_tanh"),
        "logit_soft_cap": fields.take("final_logit_softcapping", cap, nullable=True),
        "norm_position": "sandwich",
    }


def _write_second(config: TransformerConfig) -> dict[str, Any]:
    scale = config.attention_scale or config.head_width**-0.5
    return {
        **_write_shared(config),
        "final_logit_softcapping": config.logit_soft_cap,
        "hidden_activation": spelled(_ACTIVATIONS, config.feedforward),
        "layer_types": write_layer_types(config),
        "query_pre_attn_scalar": max(1, round(scale**-2)),
        "sliding_window": config.window or 4096,
    }


def read_gemma2(fields: Fields) -> dict[str, Any]:
    ours = _read_second(fields, cap=30.0, period=2)
    ours["attention_soft_cap"] = fields.take("attn_logit_softcapping", 50.0, nullable=True)
    return {**ours, **read_rotary(fields, ours["context"], _LOCAL)}


def write_gemma2(config: TransformerConfig) -> dict[str, Any]:
    return {
        **_write_second(config),
        **write_rotary(config),
        "attn_logit_softcapping": config.attention_soft_cap,
    }


def read_gemma3(fields: Fields) -> dict[str, Any]:
    fields.refuse("attn_logit_softcapping", "transformers does not compute it in this family")
    ours = _read_second(fields, cap=None, period=fields.count("sliding_window_pattern", 6))
    return {**ours, "qk_norm": True, **_read_two_ropes(fields, ours)}


def _read_two_ropes(fields: Fields, ours: dict[str, Any]) -> dict[str, Any]:
    """Rotary settings of full attention and of windows: an object each in rope_parameters, or older fields."""
    context = ours["context"]
    thetas = fields.take("rope_theta", _GLOBAL), fields.take("rope_local_base_freq", _LOCAL)
    given = fields.take("rope_parameters", None) or {}
    kinds = ("full_attention", "sliding_attention")
    if not isinstance(given, dict) or not given.keys() <= set(kinds):
        raise ValueError(f"config.json: rope_parameters is {given!r}, but must have {kinds[0]} and {kinds[1]} only")
    full, sliding = (given.get(kind) or {} for kind in kinds)
    full = {**full, **(fields.take("rope_scaling", None) or {})}
    every = read_rope("rope_parameters.full_attention", full, context, {"rope_theta": thetas[0]})
    windows = read_rope("rope_parameters.sliding_attention", sliding, context, {"rope_theta": thetas[1]})
    if "window" not in ours or windows == every:
        return every
    if "rope_scaling" in windows:
        raise ValueError(
            f"config.json: rope_parameters.sliding_attention is {sliding!r}, but only rope_type 'default' is supported"
        )
    return {**every, "window_rope_theta": windows["rope_theta"]}


def write_gemma3(config: TransformerConfig) -> dict[str, Any]:
    context = config.context
    if config.rope_scaling is not None and config.rope_scaling.kind == "dynamic":
        context = config.rope_scaling.trained_context(context)
    return {
        **_write_second(config),
        "max_position_embeddings": context,
        "rope_parameters": {
            "full_attention": write_rope(*config.rope_of("attention"), config.context),
            "sliding_attention": write_rope(*config.rope_of("window"), config.context),
        },
    }


GEMMA = Family(
    "gemma",
    "GemmaForCausalLM",
    read_gemma,
    write_gemma,
    llama_weights,
    _FIELDS,
    unused=UNUSED,
    copies=COPIES,
)
GEMMA2 = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    read_gemma2,
    write_gemma2,
    weights,
    _FIELDS,
    without_effect=frozenset({"hidden_act"}),
    unused=UNUSED,
    copies=COPIES,
)
GEMMA3 = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    read_gemma3,
    write_gemma3,
    weights,
    _FIELDS,
    # Written beside layer_types by transformers, which does not read it.
    without_effect=frozenset({"hidden_act", "_sliding_window_pattern"}),
    unused=UNUSED,
    copies=COPIES,
)
