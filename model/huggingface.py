"""Weight names and layout of Hugging Face's LlamaForCausalLM, to and from ours.

Ours differ in two ways only: queries, keys and values are one matrix, and so are gate and up. Their rows are stacked in
that order, so the translation is a split or a concatenation.
"""

from torch import Tensor, cat

from model.architecture.config import TransformerConfig

_OUTSIDE_LAYERS = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
_INSIDE_LAYERS = {
    "attention_norm.weight": ["input_layernorm.weight"],
    "attention.qkv.weight": ["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
    "attention.output.weight": ["self_attn.o_proj.weight"],
    "feedforward_norm.weight": ["post_attention_layernorm.weight"],
    "feedforward.gate_up.weight": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "feedforward.down.weight": ["mlp.down_proj.weight"],
}


def names(config: TransformerConfig) -> dict[str, list[str]]:
    """Our name of each weight -> the Hugging Face names whose rows it stacks."""
    table = {ours: [theirs] for ours, theirs in _OUTSIDE_LAYERS.items()}
    if not config.tie_embeddings:
        table["head.weight"] = ["lm_head.weight"]
    for layer in range(config.layers):
        for ours, theirs in _INSIDE_LAYERS.items():
            table[f"layers.{layer}.{ours}"] = [f"model.layers.{layer}.{name}" for name in theirs]
    return table


def to_huggingface(state: dict[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Our state dict -> that of LlamaForCausalLM."""
    queries, keys = config.heads * config.head_size, config.kv_heads * config.head_size
    rows = {"attention.qkv.weight": [queries, keys, keys], "feedforward.gate_up.weight": [config.intermediate_size] * 2}
    translated: dict[str, Tensor] = {}
    for ours, theirs in names(config).items():
        weight = state[ours]
        sizes = rows.get(ours.partition(".")[2].partition(".")[2], [len(weight)])
        translated |= {name: part.contiguous() for name, part in zip(theirs, weight.split(sizes), strict=True)}
    return translated


def from_huggingface(state: dict[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """The state dict of LlamaForCausalLM -> ours. Raises ValueError for a missing or an unknown weight."""
    rest = dict(state)
    if config.tie_embeddings:
        rest.pop("lm_head.weight", None)
    try:
        translated = {ours: cat([rest.pop(name) for name in theirs]) for ours, theirs in names(config).items()}
    except KeyError as missing:
        raise ValueError(f"weight {missing} is missing") from None
    if rest:
        raise ValueError(f"unknown weights {sorted(rest)[:4]}")
    return translated
