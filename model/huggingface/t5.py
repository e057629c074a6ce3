"""T5 and T5 1.1: encoder-decoder with relative positions, RMSNorm, no biases, unscaled scores."""

from typing import Any

from sluice.model.architecture.config import GATED, FeedForwardKind, TransformerConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.weights import WeightRow, copied

_CONTEXT = 512
"""Context in training: relative positions set no limit, and most config.json have no field for one."""
_PROJECTIONS: dict[str, FeedForwardKind] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    # transformers uses the tanh approximation under this name.
    "gated-gelu": "geglu_tanh",
    "gated-silu": "swiglu",
}
_ACTIVATIONS: dict[FeedForwardKind, str] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "geglu_tanh": "gelu_new",
    "swiglu": "silu",
}
"""`dense_act_fn` of each."""

_TOP = {
    "embedding.weight": "shared.weight",
    "encoder.norm.weight": "encoder.final_layer_norm.weight",
    "norm.weight": "decoder.final_layer_norm.weight",
    "head.weight": "lm_head.weight",
    "encoder.relative.weight": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "relative.weight": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
}
_ATTENTION = {
    "query.weight": "q.weight",
    "key.weight": "k.weight",
    "value.weight": "v.weight",
    "output.weight": "o.weight",
}
_GATED = {"gate.weight": "wi_0.weight", "up.weight": "wi_1.weight", "down.weight": "wo.weight"}
_PLAIN = {"up.weight": "wi.weight", "down.weight": "wo.weight"}
_FIELDS = {
    "hidden_size": "d_model",
    "layers": "num_layers",
    "encoder_layers": "num_layers",
    "heads": "num_heads",
    "kv_heads": "num_heads",
    "head_size": "d_kv",
    "context": "n_positions",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_distance": "relative_attention_max_distance",
    "norm_eps": "layer_norm_epsilon",
    "intermediate_size": "d_ff",
    "dropout": "dropout_rate",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    rows = copied(_TOP)
    for layer in range(len(config.encoder_kinds)):
        rows += _block(config, f"encoder.layers.{layer}.", f"encoder.block.{layer}.", feedforward=1)
    for layer in range(config.layers):
        ours, theirs = f"layers.{layer}.", f"decoder.block.{layer}."
        rows += _block(config, ours, theirs, feedforward=2)
        rows += copied({"cross_attention_norm.weight": "layer.1.layer_norm.weight"}, ours, theirs)
        rows += copied(_ATTENTION, f"{ours}cross_attention.", f"{theirs}layer.1.EncDecAttention.")
    return rows


def _block(config: TransformerConfig, ours: str, theirs: str, *, feedforward: int) -> list[WeightRow]:
    """Self-attention, and the feed-forward network in the block's layer of that number."""
    last = f"{theirs}layer.{feedforward}."
    names = _GATED if config.feedforward in GATED else _PLAIN
    return [
        *copied({"attention_norm.weight": "layer.0.layer_norm.weight"}, ours, theirs),
        *copied(_ATTENTION, f"{ours}attention.", f"{theirs}layer.0.SelfAttention."),
        *copied({"feedforward_norm.weight": "layer_norm.weight"}, ours, last),
        *copied(names, f"{ours}feedforward.", f"{last}DenseReluDense."),
    ]


def read(fields: Fields) -> dict[str, Any]:
    fields.fixed("is_encoder_decoder", True)
    fields.fixed("is_decoder", False)
    hidden, heads = fields.count("d_model"), fields.take("num_heads")
    layers, decoder_layers = fields.count("num_layers"), fields.count("num_decoder_layers", None)
    dropout = fields.take("dropout_rate", 0.1)
    tied = fields.switch("tie_word_embeddings", True)
    # Newer config.json set it for every T5 and let the weights decide; there the scale has a field of its own.
    scaled = fields.switch("scale_decoder_outputs", tied)
    feedforward = fields.choice("feed_forward_proj", _PROJECTIONS, "relu")
    # Both follow from it, but transformers takes another value where config.json has one.
    fields.fixed("dense_act_fn", _ACTIVATIONS[feedforward])
    fields.fixed("is_gated_act", feedforward in GATED)
    return {
        "kind": "encoder-decoder",
        "vocab_size": fields.take("vocab_size"),
        "hidden_size": hidden,
        "encoder_layers": layers,
        "layers": layers if decoder_layers is None else decoder_layers,
        "heads": heads,
        "kv_heads": heads,
        "head_size": fields.take("d_kv", 64),
        "context": fields.take("n_positions", _CONTEXT),
        "attention_scale": 1.0,
        "positions": "relative",
        "relative_buckets": fields.take("relative_attention_num_buckets", 32),
        "relative_distance": fields.take("relative_attention_max_distance", 128),
        "norm_eps": fields.take("layer_norm_epsilon", 1e-6),
        "feedforward": feedforward,
        "intermediate_size": fields.take("d_ff"),
        "tie_embeddings": tied if fields.own_head is None else not fields.own_head,
        "logit_scale": hidden**-0.5 if scaled else 1.0,
        "dropout": dropout,
        "attention_dropout": dropout,
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    positions = {} if config.context == _CONTEXT else {"n_positions": config.context}
    return {
        "d_ff": config.feedforward_width,
        "d_kv": config.head_width,
        "d_model": config.hidden_size,
        "dropout_rate": config.dropout,
        "feed_forward_proj": spelled(_PROJECTIONS, config.feedforward),
        "is_encoder_decoder": True,
        "layer_norm_epsilon": config.norm_eps,
        "num_decoder_layers": config.layers,
        "num_heads": config.heads,
        "num_layers": config.encoder_layers or config.layers,
        "relative_attention_max_distance": config.relative_distance,
        "relative_attention_num_buckets": config.relative_buckets,
        "scale_decoder_outputs": config.logit_scale != 1.0,
        "tie_word_embeddings": config.tie_embeddings,
        "vocab_size": config.vocab_size,
        **positions,
    }


T5 = Family(
    "t5",
    "T5ForConditionalGeneration",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset({"classifier_dropout", "gradient_checkpointing", "initializer_factor", "output_past"}),
    # A table that checkpoints of the first version contain for cross-attention, which has no positions.
    unused=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    copies={
        "lm_head.weight": "shared.weight",
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
    },
)
