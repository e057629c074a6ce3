"""Mamba-2: state space layers only, without attention or feed-forward networks."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.state_space_config import StateSpaceConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.weights import WeightRow, copied

_CONTEXT = 2**20
"""Context in tokens: a recurrent state sets no limit, and config.json has no field for one."""
_TOP = {
    "embedding.weight": "backbone.embeddings.weight",
    "norm.weight": "backbone.norm_f.weight",
    "head.weight": "lm_head.weight",
}
_MIXER = (
    "A_log",
    "D",
    "dt_bias",
    "conv1d.weight",
    "conv1d.bias",
    "in_proj.weight",
    "in_proj.bias",
    "norm.weight",
    "out_proj.weight",
    "out_proj.bias",
)
_LAYER = {"state_space_norm.weight": "norm.weight", **{f"state_space.{name}": f"mixer.{name}" for name in _MIXER}}
_FIELDS = {
    "layers": "num_hidden_layers",
    "norm_eps": "layer_norm_epsilon",
    "state_space.state_size": "state_size",
    "state_space.head_size": "head_dim",
    "state_space.expand": "expand",
    "state_space.groups": "n_groups",
    "state_space.conv_width": "conv_kernel",
    "state_space.chunk": "chunk_size",
}


def weights(config: TransformerConfig) -> list[WeightRow]:
    rows = copied(_TOP)
    for layer in range(config.layers):
        rows += copied(_LAYER, f"layers.{layer}.", f"backbone.layers.{layer}.")
    return rows


def read(fields: Fields) -> dict[str, Any]:
    fields.fixed("hidden_act", "silu")
    limit = fields.take("time_step_limit", [0.0, float("inf")])
    # transformers may write infinity as an object.
    ends = [each.get("__float__") if isinstance(each, dict) else each for each in limit]
    numbers = [float(each) if isinstance(each, int | float) or each == "Infinity" else None for each in ends]
    if numbers != [0.0, float("inf")]:
        raise ValueError(f"config.json: time_step_limit is {limit!r}, but only 0 to infinity is supported")
    hidden, expand = fields.count("hidden_size"), fields.count("expand", 2)
    heads, head_size = fields.count("num_heads", 128), fields.count("head_dim", 64)
    if heads * head_size != hidden * expand:
        wanted = f"hidden_size x expand / head_dim = {hidden} x {expand} / {head_size}"
        raise ValueError(f"config.json: num_heads is {heads}, but must be {wanted}")
    return {
        "vocab_size": fields.take("vocab_size"),
        "hidden_size": hidden,
        "layers": fields.take("num_hidden_layers"),
        "heads": 1,
        "kv_heads": 1,
        "context": _CONTEXT,
        "pattern": ("state_space",),
        "positions": "none",
        "norm_eps": fields.take("layer_norm_epsilon", 1e-5),
        "tie_embeddings": fields.switch("tie_word_embeddings", False),
        "state_space": {
            "state_size": fields.take("state_size", 128),
            "head_size": head_size,
            "expand": expand,
            "groups": fields.take("n_groups", 8),
            "conv_width": fields.take("conv_kernel", 4),
            "conv_bias": fields.switch("use_conv_bias", True),
            "bias": fields.switch("use_bias", False),
            "chunk": fields.take("chunk_size", 256),
        },
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    space = config.state_space or StateSpaceConfig.model_validate({})
    return {
        "chunk_size": space.chunk,
        "conv_kernel": space.conv_width,
        "expand": space.expand,
        "head_dim": space.head_size,
        "hidden_size": config.hidden_size,
        "layer_norm_epsilon": config.norm_eps,
        "n_groups": space.groups,
        "num_heads": config.hidden_size * space.expand // space.head_size,
        "num_hidden_layers": config.layers,
        "state_size": space.state_size,
        "tie_word_embeddings": config.tie_embeddings,
        "use_bias": space.bias,
        "use_conv_bias": space.conv_bias,
        "vocab_size": config.vocab_size,
    }


MAMBA2 = Family(
    "mamba2",
    "Mamba2ForCausalLM",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset(
        {
            "norm_before_gate",
            "rescale_prenorm_residual",
            "residual_in_fp32",
            "rms_norm",
            "time_step_floor",
            "time_step_max",
            "time_step_min",
            "time_step_rank",
        }
    ),
    copies={"lm_head.weight": "backbone.embeddings.weight"},
)
