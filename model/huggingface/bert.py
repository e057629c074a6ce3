"""BERT with its masked-token head: post-norm, learned positions, segments, biases everywhere."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import PLAIN_ACTIVATIONS, Family
from sluice.model.huggingface.fields import Fields, spelled
from sluice.model.huggingface.weights import WeightRow, both, copied

_TOP = {
    "embedding.weight": "bert.embeddings.word_embeddings.weight",
    "position_embedding.weight": "bert.embeddings.position_embeddings.weight",
    "type_embedding.weight": "bert.embeddings.token_type_embeddings.weight",
    "head_bias": "cls.predictions.bias",
    **both(
        {
            "embedding_norm": "bert.embeddings.LayerNorm",
            "head_transform.dense": "cls.predictions.transform.dense",
            "head_transform.norm": "cls.predictions.transform.LayerNorm",
        }
    ),
}
_LAYER = both(
    {
        "attention.query": "attention.self.query",
        "attention.key": "attention.self.key",
        "attention.value": "attention.self.value",
        "attention.output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feedforward.up": "intermediate.dense",
        "feedforward.down": "output.dense",
        "feedforward_norm": "output.LayerNorm",
    }
)
_FIELDS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "norm_eps": "layer_norm_eps",
    "token_types": "type_vocab_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    rows = copied(_TOP)
    for layer in range(config.layers):
        rows += copied(_LAYER, f"layers.{layer}.", f"bert.encoder.layer.{layer}.")
    return rows


def read(fields: Fields) -> dict[str, Any]:
    fields.fixed("add_cross_attention", False)
    fields.fixed("is_decoder", False)
    fields.fixed("position_embedding_type", "absolute")
    fields.fixed("tie_word_embeddings", True)
    hidden, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    return {
        "kind": "encoder",
        "vocab_size": fields.take("vocab_size"),
        "hidden_size": hidden,
        "layers": fields.take("num_hidden_layers"),
        "heads": heads,
        "kv_heads": heads,
        "head_size": hidden // heads,
        "context": fields.take("max_position_embeddings"),
        "attention_bias": "all",
        "positions": "learned",
        "norm": "layer",
        "norm_position": "post",
        "norm_bias": True,
        "norm_eps": fields.take("layer_norm_eps", 1e-12),
        "feedforward": fields.choice("hidden_act", PLAIN_ACTIVATIONS, "gelu"),
        "intermediate_size": fields.take("intermediate_size"),
        "feedforward_bias": True,
        "embedding_norm": True,
        "token_types": fields.take("type_vocab_size", 2),
        "head_transform": True,
        "tie_embeddings": True,
        "dropout": fields.take("hidden_dropout_prob", 0.1),
        "attention_dropout": fields.take("attention_probs_dropout_prob", 0.1),
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    return {
        "attention_probs_dropout_prob": config.attention_dropout,
        "hidden_act": spelled(PLAIN_ACTIVATIONS, config.feedforward),
        "hidden_dropout_prob": config.dropout,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.feedforward_width,
        "layer_norm_eps": config.norm_eps,
        "max_position_embeddings": config.context,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "tie_word_embeddings": True,
        "type_vocab_size": config.token_types,
        "vocab_size": config.vocab_size,
    }


BERT = Family(
    "bert",
    "BertForMaskedLM",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset({"classifier_dropout", "gradient_checkpointing"}),
    # Weights of pretraining's second task, and a buffer of older checkpoints.
    unused=(
        r"bert\.pooler\.dense\.(weight|bias)",
        r"cls\.seq_relationship\.(weight|bias)",
        r"bert\.embeddings\.position_ids",
    ),
    renamed={r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"},
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)
