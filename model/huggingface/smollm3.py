"""SmolLM3: Llama in which some layers have no positions (NoPE)."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields
from sluice.model.huggingface.llama import (
    COPIES,
    FIELDS,
    UNUSED,
    padding_inside,
    read_common,
    read_layer_types,
    weights,
    without_derived_head,
    write_common,
    write_layer_types,
)

_FIELDS = {**FIELDS, "rope_pattern": "no_rope_layers"}


def read(fields: Fields) -> dict[str, Any]:
    ours = read_common(fields, kv_heads=4, theta=2e6, tied=True)
    layers, interval = ours["layers"], fields.count("no_rope_layer_interval", 4)
    # In spite of the name, 1 is a layer that rotates.
    rotates = fields.take("no_rope_layers", None)
    if rotates is None:
        rotates = [int((layer + 1) % interval != 0) for layer in range(layers)]
    if not isinstance(rotates, list) or len(rotates) < layers or not set(rotates) <= {0, 1}:
        raise ValueError(f"config.json: no_rope_layers is {rotates!r}, but must be 0 or 1 for each of {layers} layers")
    slides, window = fields.switch("use_sliding_window", False), fields.take("sliding_window", None)
    types = fields.take("layer_types", None)
    if types is None:
        types = [
            "sliding_attention" if slides and window is not None and not rotates[layer] else "full_attention"
            for layer in range(layers)
        ]
    if not slides and isinstance(types, list) and "sliding_attention" in types:
        raise ValueError("config.json: layer_types has 'sliding_attention', but use_sliding_window is not true")
    return {
        **ours,
        **read_layer_types(types, layers, window),
        "attention_bias": "all" if fields.switch("attention_bias", False) else "none",
        "feedforward_bias": fields.switch("mlp_bias", False),
        "rope_pattern": None if all(rotates[:layers]) else tuple(map(bool, rotates[:layers])),
    }


def write(config: TransformerConfig) -> dict[str, Any]:
    written = {
        **write_common(config),
        **padding_inside(config, 128004),
        "attention_bias": config.attention_bias == "all",
        "layer_types": write_layer_types(config),
        "mlp_bias": config.feedforward_bias,
        "no_rope_layers": [int(config.positions != "rope" or config.rotates(each)) for each in range(config.layers)],
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
    }
    return without_derived_head(written)


SMOLLM3 = Family(
    "smollm3",
    "SmolLM3ForCausalLM",
    read,
    write,
    weights,
    _FIELDS,
    without_effect=frozenset({"max_window_layers"}),
    unused=UNUSED,
    copies=COPIES,
)
