"""Weight names of Hugging Face's LlamaForCausalLM, to and from ours. The layouts are the same."""

from torch import Tensor

from model.architecture.config import TransformerConfig

_LAYER_NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feedforward_norm.weight": "post_attention_layernorm.weight",
    "feedforward.gate.weight": "mlp.gate_proj.weight",
    "feedforward.up.weight": "mlp.up_proj.weight",
    "feedforward.down.weight": "mlp.down_proj.weight",
}


def names(config: TransformerConfig) -> dict[str, str]:
    """Our name of every weight -> its Hugging Face name."""
    table = {"embedding.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    if not config.tie_embeddings:
        table["head.weight"] = "lm_head.weight"
    for layer in range(config.layers):
        table |= {f"layers.{layer}.{ours}": f"model.layers.{layer}.{theirs}" for ours, theirs in _LAYER_NAMES.items()}
    return table


def to_huggingface(state: dict[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """Our state dict -> that of LlamaForCausalLM."""
    return {theirs: state[ours] for ours, theirs in names(config).items()}


def from_huggingface(state: dict[str, Tensor], config: TransformerConfig) -> dict[str, Tensor]:
    """The state dict of LlamaForCausalLM -> ours. Raises ValueError for a missing or an unknown weight."""
    rest = dict(state)
    if config.tie_embeddings:
        rest.pop("lm_head.weight", None)
    try:
        translated = {ours: rest.pop(theirs) for ours, theirs in names(config).items()}
    except KeyError as missing:
        raise ValueError(f"weight {missing} is missing") from None
    if rest:
        raise ValueError(f"unknown weights {sorted(rest)[:4]}")
    return translated
