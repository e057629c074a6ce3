"""GPT-2: learned positions, LayerNorm and biases everywhere; its linear layers are stored [in, out]."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import PLAIN_ACTIVATIONS, Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.weights import WeightRow, both, copied

_TOP = {
    "embedding.weight": "transformer.wte.weight",
    "position_embedding.weight": "transformer.wpe.weight",
    "norm.weight": "transformer.ln_f.weight",
    "norm.bias": "transformer.ln_f.bias",
    "head.weight": "lm_head.weight",
}
_NORMS = both({"attention_norm": "ln_1", "feedforward_norm": "ln_2"})
_LINEAR = both({"attention.output": "attn.c_proj", "feedforward.up": "mlp.c_fc", "feedforward.down": "mlp.c_proj"})
_FUSED = ("query", "key", "value")
# The one that the published models use comes first.
_ACTIVATIONS = {"gelu_new": PLAIN_ACTIVATIONS["gelu_new"], **PLAIN_ACTIVATIONS}
_FIELDS = {
    "hidden_size": "n_embd",
    "layers": "n_layer",
    "heads": "n_head",
    "kv_heads": "n_head",
    "context": "n_positions",
    "norm_eps": "layer_norm_epsilon",
    "intermediate_size": "n_inner",
    "dropout": "resid_pdrop",
    "attention_dropout": "attn_pdrop",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    rows = copied(_TOP)
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}.", f"transformer.h.{layer}."
        rows += copied(_NORMS, ours, theirs)
        rows += copied(_LINEAR, ours, theirs, transposed=True)
        for kind in ("weight", "bias"):
            parts = tuple(f"{ours}attention.{part}.{kind}" for part in _FUSED)
            rows.append(WeightRow(parts, (f"{theirs}attn.c_attn.{kind}",), transposed=True))
    return rows


def read(fields: Fields) -> dict[str, Any]:
    fields.fixed("add_cross_attention", False)
    fields.fixed("scale_attn_by_inverse_layer_idx", False)
    fields.fixed("reorder_and_upcast_attn", False)
    hidden, heads = fields.count("n_embd"), fields.count("n_head")
    inner = fields.take("n_inner", None)
    dropout, embedding_dropout = fields.take("resid_pdrop", 0.1), fields.take("embd_pdrop", 0.1)
    if dropout != embedding_dropout:
        raise ValueError(
            f"config.json: embd_pdrop is {embedding_dropout!r}, but only resid_pdrop's {dropout!r} is supported"
        )
    return {
        "vocab_size": fields.take("vocab_size"),
        "hidden_size": hidden,
        "layers": fields.take("n_layer"),
        "heads": heads,
        "kv_heads": heads,
        "head_size": hidden // heads,
        "context": fields.take("n_positions"),
        "attention_scale": None if fields.switch("scale_attn_weights", True) else 1.0,
        "attention_bias": "all",
        "positions": "learned",
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": fields.take("layer_norm_epsilon", 1e-5),
        "feedforward": fields.choice("activation_function", _ACTIVATIONS, "gelu_new"),
        "intermediate_size": 4 * hidden if inner is None else inner,
        "feedforward_bias": True,
        "tie_embeddings": fields.switch("tie_word_embeddings", True),
        "dropout": dropout,
        "attention_dropout": fields.take("attn_pdrop", 0.1),
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    return {
        "activation_function": spelled(_ACTIVATIONS, config.feedforward),
        "attn_pdrop": config.attention_dropout,
        "embd_pdrop": config.dropout,
        "layer_norm_epsilon": config.norm_eps,
        "n_embd": config.hidden_size,
        "n_head": config.heads,
        "n_inner": None if config.feedforward_width == 4 * config.hidden_size else config.feedforward_width,
        "n_layer": config.layers,
        "n_positions": config.context,
        "resid_pdrop": config.dropout,
        "scale_attn_weights": config.attention_scale != 1.0,
        "tie_word_embeddings": config.tie_embeddings,
        "vocab_size": config.vocab_size,
    }


GPT2 = Family(
    "gpt2",
    "GPT2LMHeadModel",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset(
        {
            "gradient_checkpointing",
            "n_ctx",
            "n_special",
            "predict_special_tokens",
            "summary_activation",
            "summary_first_dropout",
            "summary_proj_to_labels",
            "summary_type",
            "summary_use_proj",
        }
    ),
    # Masks that older checkpoints store as buffers.
    unused=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",),
    # The published checkpoints contain the model without its head.
    renamed={r"^(?=(h\.\d+|wte|wpe|ln_f)\.)": "transformer."},
    copies={"lm_head.weight": "transformer.wte.weight"},
)
