"""GPT-NeoX and Pythia: parallel sublayers, partial rotation, LayerNorm and biases everywhere."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import PLAIN_ACTIVATIONS, Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.rotary import read_rotary, write_rotary
from sluice.model.huggingface.weights import WeightRow, both, copied

_TOP = {
    "embedding.weight": "gpt_neox.embed_in.weight",
    "norm.weight": "gpt_neox.final_layer_norm.weight",
    "norm.bias": "gpt_neox.final_layer_norm.bias",
    "head.weight": "embed_out.weight",
}
_LAYER = both(
    {
        "attention_norm": "input_layernorm",
        "attention.output": "attention.dense",
        "feedforward_norm": "post_attention_layernorm",
        "feedforward.up": "mlp.dense_h_to_4h",
        "feedforward.down": "mlp.dense_4h_to_h",
    }
)
_ACTIVATIONS = {**PLAIN_ACTIVATIONS, "gelu_fast": PLAIN_ACTIVATIONS["gelu_new"]}
_FIELDS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "rope_theta": "rotary_emb_base",
    "rope_fraction": "rotary_pct",
    "dropout": "hidden_dropout",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    rows = copied(_TOP)
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}.", f"gpt_neox.layers.{layer}."
        rows += copied(_LAYER, ours, theirs)
        for kind in ("weight", "bias"):
            parts = tuple(f"{ours}attention.{part}.{kind}" for part in ("query", "key", "value"))
            rows.append(WeightRow(parts, (f"{theirs}attention.query_key_value.{kind}",), groups=config.heads))
    return rows


def read(fields: Fields) -> dict[str, Any]:
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    context = fields.take("max_position_embeddings")
    return {
        "vocab_size": fields.take("vocab_size"),
        "hidden_size": hidden,
        "layers": fields.count("num_hidden_layers"),
        "heads": heads,
        "kv_heads": heads,
        "head_size": hidden // heads,
        "intermediate_size": fields.take("intermediate_size"),
        "context": context,
        "attention_bias": "all" if fields.switch("attention_bias", True) else "none",
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": fields.take("layer_norm_eps", 1e-5),
        "sublayers": "parallel" if fields.switch("use_parallel_residual", True) else "sequential",
        "feedforward": fields.choice("hidden_act", _ACTIVATIONS, "gelu"),
        "feedforward_bias": True,
        "tie_embeddings": fields.switch("tie_word_embeddings", False),
        "dropout": fields.take("hidden_dropout", 0.0),
        "attention_dropout": fields.take("attention_dropout", 0.0),
        **read_rotary(fields, context, 10_000.0, fraction=0.25, names=("rotary_emb_base", "rotary_pct")),
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    return {
        "attention_bias": config.attention_bias == "all",
        "attention_dropout": config.attention_dropout,
        "hidden_act": spelled(_ACTIVATIONS, config.feedforward),
        "hidden_dropout": config.dropout,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.feedforward_width,
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "tie_word_embeddings": config.tie_embeddings,
        "use_parallel_residual": config.sublayers == "parallel",
        "vocab_size": config.vocab_size,
        **write_rotary(config, partial=True),
    }


GPT_NEOX = Family(
    "gpt_neox",
    "GPTNeoXForCausalLM",
    read,
    write,
    weights,
    _FIELDS,
    head="embed_out.weight",
    # Masks that older checkpoints store as buffers.
    unused=(r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias)",),
    renamed={r"^lm_head\.": "embed_out."},
    copies={"embed_out.weight": "gpt_neox.embed_in.weight"},
)
