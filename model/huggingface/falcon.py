"""Falcon with rotary positions: parallel sublayers behind one norm or two, and one fused projection."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import PLAIN_ACTIVATIONS, Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.rotary import read_rotary, write_rotary
from sluice.model.huggingface.weights import WeightRow, both, copied

_TOP = {
    "embedding.weight": "transformer.word_embeddings.weight",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
}
_LINEAR = {
    "attention.output": "self_attention.dense",
    "feedforward.up": "mlp.dense_h_to_4h",
    "feedforward.down": "mlp.dense_4h_to_h",
}
_NORMS = {
    "sequential": {"attention_norm": "input_layernorm", "feedforward_norm": "post_attention_layernorm"},
    "parallel": {"attention_norm": "ln_attn", "feedforward_norm": "ln_mlp"},
    "parallel_one_norm": {"attention_norm": "input_layernorm"},
}
_FIELDS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_kv_heads",
    "context": "max_position_embeddings",
    "norm_eps": "layer_norm_epsilon",
    "intermediate_size": "ffn_hidden_size",
    "attention_bias": "bias",
    "feedforward_bias": "bias",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    rows = copied(_TOP)
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}.", f"transformer.h.{layer}."
        rows += copied(both(_LINEAR | _NORMS[config.sublayers]), ours, theirs)
        for kind in ("weight", "bias"):
            # The query heads that share a key and a value, then these two.
            parts = tuple(f"{ours}attention.{part}.{kind}" for part in ("query", "key", "value"))
            rows.append(WeightRow(parts, (f"{theirs}self_attention.query_key_value.{kind}",), groups=config.kv_heads))
    return rows


def read(fields: Fields) -> dict[str, Any]:
    fields.fixed("alibi", False)
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    context = fields.take("max_position_embeddings", 2048)
    is_new = fields.switch("new_decoder_architecture", False)
    parallel, multi_query = fields.switch("parallel_attn", True), fields.switch("multi_query", True)
    given, norms = fields.count("num_kv_heads", None), fields.take("num_ln_in_parallel_attn", None)
    if is_new and not parallel:
        raise ValueError("config.json: new_decoder_architecture with parallel_attn false is not supported")
    if norms not in ((None, 1, 2) if is_new else (None, 1)):
        raise ValueError(f"config.json: num_ln_in_parallel_attn is {norms!r}, but only 1 is supported here")
    bias, inner = fields.switch("bias", False), fields.take("ffn_hidden_size", None)
    kv_heads = heads if given is None else given
    if not is_new:
        if not multi_query and kv_heads != heads:
            raise ValueError(
                f"config.json: num_kv_heads is {given!r}, but only {heads}, the number of heads, is supported"
            )
        kv_heads = 1 if multi_query else heads
    parallel_kind = "parallel" if is_new and norms != 1 else "parallel_one_norm"
    return {
        "vocab_size": fields.take("vocab_size"),
        "hidden_size": hidden,
        "layers": fields.count("num_hidden_layers"),
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": hidden // heads,
        "intermediate_size": 4 * hidden if inner is None else inner,
        "context": context,
        "attention_bias": "all" if bias else "none",
        "attention_dropout": fields.take("attention_dropout", 0.0, nullable=True) or 0.0,
        "feedforward": fields.choice("activation", PLAIN_ACTIVATIONS, "gelu"),
        "feedforward_bias": bias,
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": fields.take("layer_norm_epsilon", 1e-5),
        "sublayers": parallel_kind if parallel else "sequential",
        "tie_embeddings": fields.switch("tie_word_embeddings", True),
        **read_rotary(fields, context, 10_000.0),
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    one, parallel = config.kv_heads == 1, config.sublayers != "sequential"
    is_new = parallel and ((config.kv_heads != config.heads and not one) or config.sublayers == "parallel")
    return {
        "activation": spelled(PLAIN_ACTIVATIONS, config.feedforward),
        "alibi": False,
        "attention_dropout": config.attention_dropout,
        "bias": config.feedforward_bias,
        "ffn_hidden_size": config.feedforward_width,
        "hidden_size": config.hidden_size,
        "layer_norm_epsilon": config.norm_eps,
        "max_position_embeddings": config.context,
        "multi_query": one or is_new,
        "new_decoder_architecture": is_new,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        # Read in the new architecture only.
        "num_kv_heads": config.kv_heads if is_new else config.heads,
        "num_ln_in_parallel_attn": (2 if config.sublayers == "parallel" else 1) if is_new else None,
        "parallel_attn": parallel,
        "tie_word_embeddings": config.tie_embeddings,
        "vocab_size": config.vocab_size,
        **write_rotary(config),
    }


FALCON = Family(
    "falcon",
    "FalconForCausalLM",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset({"apply_residual_connection_post_layernorm", "hidden_dropout"}),
    # Rotary frequencies that older checkpoints store as buffers.
    unused=(r"transformer\.h\.\d+\.self_attention\.maybe_rotary\.inv_freq",),
    copies={"lm_head.weight": "transformer.word_embeddings.weight"},
)
