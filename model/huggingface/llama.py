"""Llama and families that differ from it by a few fields: Mistral, Qwen2, Qwen3. Mixtral shares its attention."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import GATED_ACTIVATIONS, Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.rotary import read_rotary, write_rotary
from sluice.model.huggingface.weights import WeightRow, copied

TOP = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
COPIES = {"lm_head.weight": "model.embed_tokens.weight"}
# Buffers of older checkpoints.
UNUSED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)

ATTENTION = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.query.bias": "self_attn.q_proj.bias",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.key.bias": "self_attn.k_proj.bias",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.value.bias": "self_attn.v_proj.bias",
    "attention.output.weight": "self_attn.o_proj.weight",
    "attention.output.bias": "self_attn.o_proj.bias",
    "attention.query_norm.weight": "self_attn.q_norm.weight",
    "attention.key_norm.weight": "self_attn.k_norm.weight",
    "feedforward_norm.weight": "post_attention_layernorm.weight",
}
FEEDFORWARD = {
    "feedforward.gate.weight": "mlp.gate_proj.weight",
    "feedforward.gate.bias": "mlp.gate_proj.bias",
    "feedforward.up.weight": "mlp.up_proj.weight",
    "feedforward.up.bias": "mlp.up_proj.bias",
    "feedforward.down.weight": "mlp.down_proj.weight",
    "feedforward.down.bias": "mlp.down_proj.bias",
}

FIELDS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "context": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "window": "sliding_window",
    "pattern": "layer_types",
}


def layered(
    config: TransformerConfig, layer: Mapping[str, str], experts: Mapping[str, str] = MappingProxyType({})
) -> list[WeightRow]:
    """Table of weight names of a family that names embedding, head and layers as Llama does. `layer` are the names
    within a layer, of one weight each; `experts` are stacks of ours, and the name of an expert's with its number as {}.
    """
    rows = copied(TOP)
    for number in range(config.layers):
        ours, theirs = f"layers.{number}.", f"model.layers.{number}."
        rows += copied(layer, ours, theirs)
        for mine, other in experts.items():
            assert config.mixture is not None
            names = tuple(theirs + other.format(expert) for expert in range(config.mixture.experts))
            rows.append(WeightRow((ours + mine,), names))
    return rows


def weights(config: TransformerConfig) -> list[WeightRow]:
    """Table of weight names of all four families."""
    return layered(config, ATTENTION | FEEDFORWARD)


def read_common(
    fields: Fields,
    *,
    kv_heads: int | None,
    head_size: int | None = None,
    eps: float = 1e-6,
    theta: float = 10_000.0,
    fraction: float | None = None,
    original: int | None = None,
    tied: bool = False,
) -> dict[str, Any]:
    """Settings that the families share; arguments are transformers' defaults for absent fields (None: as many as heads,
    hidden_size / heads, whole heads that rotate, or the context).
    """
    context = fields.take("max_position_embeddings")
    return {
        **read_sizes(fields, kv_heads=kv_heads, head_size=head_size),
        "context": context,
        "norm_eps": fields.take("rms_norm_eps", eps),
        "feedforward": fields.choice("hidden_act", GATED_ACTIVATIONS, "silu"),
        "tie_embeddings": fields.switch("tie_word_embeddings", tied),
        "attention_dropout": fields.take("attention_dropout", 0.0),
        **read_rotary(fields, context, theta, fraction=fraction, original=original),
    }


def read_sizes(fields: Fields, *, kv_heads: int | None, head_size: int | None = None) -> dict[str, Any]:
    """Sizes under the names that most families use; arguments as in `read_common`."""
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    groups = fields.take("num_key_value_heads", kv_heads, nullable=True)
    given = fields.take("head_dim", head_size)
    return {
        "vocab_size": fields.take("vocab_size"),
        "hidden_size": hidden,
        "layers": fields.count("num_hidden_layers"),
        "heads": heads,
        "kv_heads": heads if groups is None else groups,
        "head_size": hidden // heads if given is None else given,
        "intermediate_size": fields.take("intermediate_size"),
    }


def write_common(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_sizes(config),
        "attention_dropout": config.attention_dropout,
        "hidden_act": spelled(GATED_ACTIVATIONS, config.feedforward),
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        **write_rotary(config),
    }


def write_sizes(config: TransformerConfig) -> dict[str, Any]:
    return {
        "head_dim": config.head_width,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.feedforward_width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "vocab_size": config.vocab_size,
    }


def padding_inside(config: TransformerConfig, default: int) -> dict[str, Any]:
    """A padding token for a class of transformers whose default one makes its embedding fail in a small vocabulary."""
    return {} if default < config.vocab_size else {"pad_token_id": None}


def without_derived_head(written: dict[str, Any]) -> dict[str, Any]:
    """Fields without a head_dim that follows from the width, for families that use one only if it is present."""
    derived = written["head_dim"] * written["num_attention_heads"] == written["hidden_size"]
    return {name: value for name, value in written.items() if name != "head_dim" or not derived}


def read_llama(fields: Fields) -> dict[str, Any]:
    ours = read_common(fields, kv_heads=None)
    if ours["hidden_size"] % ours["heads"]:
        # transformers' own rule for this family, whatever head_dim is.
        raise ValueError(
            f"config.json: hidden_size {ours['hidden_size']} is no multiple of num_attention_heads {ours['heads']}"
        )
    ours["attention_bias"] = "all" if fields.switch("attention_bias", False) else "none"
    ours["feedforward_bias"] = fields.switch("mlp_bias", False)
    return ours


def write_llama(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_common(config),
        "attention_bias": config.attention_bias == "all",
        "mlp_bias": config.feedforward_bias,
    }


def read_mistral(fields: Fields) -> dict[str, Any]:
    return {**read_common(fields, kv_heads=8), "window": fields.take("sliding_window", 4096, nullable=True)}


def write_mistral(config: TransformerConfig) -> dict[str, Any]:
    return {**write_common(config), "sliding_window": config.window}


def _read_windows(fields: Fields, layers: int) -> dict[str, Any]:
    """Qwen's choice, layer by layer, of full attention or a window."""
    given = fields.take("sliding_window", 4096, nullable=True)
    window = given if fields.switch("use_sliding_window", False) else None
    first, types = fields.take("max_window_layers", 28), fields.take("layer_types", None)
    if types is None:
        types = ["sliding_attention" if window and i >= first else "full_attention" for i in range(layers)]
    if window is None and isinstance(types, list) and "sliding_attention" in types:
        raise ValueError("config.json: layer_types has 'sliding_attention', but use_sliding_window is not true")
    return read_layer_types(types, layers, window)


def read_layer_types(types: Any, layers: int, window: Any) -> dict[str, Any]:
    """Our window and pattern, for a value of layer_types."""
    kinds = {"full_attention": "attention", "sliding_attention": "window"}
    if not isinstance(types, list) or len(types) != layers or not set(types) <= kinds.keys():
        raise ValueError(
            f"config.json: layer_types is {types!r}, but must name 'full_attention' or 'sliding_attention' for each of "
            f"{layers} layers"
        )
    if "sliding_attention" not in types:
        return {}
    return {"window": window, "pattern": None if len(set(types)) == 1 else tuple(kinds[each] for each in types)}


def write_layer_types(config: TransformerConfig) -> list[str]:
    return ["sliding_attention" if kind == "window" else "full_attention" for kind in config.layer_kinds]


def _write_windows(config: TransformerConfig) -> dict[str, Any]:
    slides = "window" in config.layer_kinds
    return {
        "layer_types": write_layer_types(config),
        "sliding_window": config.window if slides else None,
        "use_sliding_window": slides,
    }


def read_qwen2(fields: Fields) -> dict[str, Any]:
    # Present in published Qwen2.5 configurations; meant for the vision models.
    fields.fixed("use_mrope", allowed=False)
    ours = read_common(fields, kv_heads=32)
    return {**ours, **_read_windows(fields, ours["layers"]), "attention_bias": "qkv"}


def write_qwen2(config: TransformerConfig) -> dict[str, Any]:
    return without_derived_head({**write_common(config), **_write_windows(config)})


def read_qwen3(fields: Fields) -> dict[str, Any]:
    ours = read_common(fields, kv_heads=32, head_size=128)
    ours["attention_bias"] = "all" if fields.switch("attention_bias", False) else "none"
    return {**ours, **_read_windows(fields, ours["layers"]), "qk_norm": True}


def write_qwen3(config: TransformerConfig) -> dict[str, Any]:
    return {**write_common(config), **_write_windows(config), "attention_bias": config.attention_bias == "all"}


LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    read_llama,
    write_llama,
    weights,
    FIELDS,
    without_effect=frozenset({"max_sequence_length", "pretraining_tp"}),
    unused=UNUSED,
    copies=COPIES,
)
MISTRAL = Family(
    "mistral", "MistralForCausalLM", read_mistral, write_mistral, weights, FIELDS, unused=UNUSED, copies=COPIES
)
QWEN2 = Family("qwen2", "Qwen2ForCausalLM", read_qwen2, write_qwen2, weights, FIELDS, unused=UNUSED, copies=COPIES)
QWEN3 = Family("qwen3", "Qwen3ForCausalLM", read_qwen3, write_qwen3, weights, FIELDS, unused=UNUSED, copies=COPIES)
