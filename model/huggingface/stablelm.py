"""StableLM: Llama with LayerNorm and partial rotation, and in some releases parallel sublayers behind one norm."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import GATED_ACTIVATIONS, Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.llama import ATTENTION, COPIES, FEEDFORWARD, FIELDS, TOP, UNUSED, read_sizes, write_sizes
from sluice.model.huggingface.rotary import read_rotary, write_rotary
from sluice.model.huggingface.weights import WeightRow, copied

_FIELDS = {**FIELDS, "norm_eps": "layer_norm_eps", "rope_fraction": "partial_rotary_factor"}
_BIASES = {
    "attention_norm.bias": "input_layernorm.bias",
    "feedforward_norm.bias": "post_attention_layernorm.bias",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    rows = copied({**TOP, "norm.bias": "model.norm.bias"})
    for layer in range(config.layers):
        rows += copied(ATTENTION | FEEDFORWARD | _BIASES, f"layers.{layer}.", f"model.layers.{layer}.")
    return rows


def read(fields: Fields) -> dict[str, Any]:
    fields.fixed("qk_layernorm", False)
    context, sizes = fields.take("max_position_embeddings"), read_sizes(fields, kv_heads=32)
    if sizes["head_size"] * sizes["heads"] != sizes["hidden_size"]:
        raise ValueError(f"config.json: head_dim is {sizes['head_size']!r}, but only hidden_size / heads is supported")
    return {
        **sizes,
        "context": context,
        "attention_bias": "qkv" if fields.switch("use_qkv_bias", False) else "none",
        "attention_dropout": fields.take("attention_dropout", 0.0),
        "feedforward": fields.choice("hidden_act", GATED_ACTIVATIONS, "silu"),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": fields.take("layer_norm_eps", 1e-5),
        "sublayers": "parallel_one_norm" if fields.switch("use_parallel_residual", False) else "sequential",
        "tie_embeddings": fields.switch("tie_word_embeddings", False),
        **read_rotary(fields, context, 10_000.0, fraction=0.25),
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    sizes = write_sizes(config)
    if config.head_width * config.heads == config.hidden_size:
        del sizes["head_dim"]
    return {
        **sizes,
        "attention_dropout": config.attention_dropout,
        "hidden_act": spelled(GATED_ACTIVATIONS, config.feedforward),
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tie_embeddings,
        "use_parallel_residual": config.sublayers == "parallel_one_norm",
        "use_qkv_bias": config.attention_bias == "qkv",
        **write_rotary(config, partial=True),
    }


STABLELM = Family("stablelm", "StableLmForCausalLM", read, write, weights, _FIELDS, unused=UNUSED, copies=COPIES)
