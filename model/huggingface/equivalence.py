"""Comparison of configurations by the settings that affect logits, so that two spellings of one model are equal."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.rope_scaling_config import RopeScaling

_ATTENTION = (
    "heads",
    "kv_heads",
    "head_size",
    "qk_norm",
    "qk_norm_over",
    "attention_scale",
    "attention_soft_cap",
    "attention_bias",
    "positions",
    "rope_theta",
    "rope_scaling",
    "rope_fraction",
    "rope_pattern",
    "window_rope_theta",
    "window",
    "global_tokens",
)
_FEEDFORWARD = ("feedforward", "feedforward_bias", "intermediate_size", "mixture")
_RELATIVE = ("relative_buckets", "relative_distance")
# Settings for training or speed only, the length limit, which changes no logit below it, and a number that the
# encoder's pattern already contains.
_NO_LOGIT = ("encoder_layers", "context", "dropout", "attention_dropout", "intermediate_multiple")


def logit_fields(config: TransformerConfig) -> dict[str, Any]:
    """Fields that affect the logits, with derived values filled in and fields without effect left out."""
    fields = config.model_dump()
    for name in _NO_LOGIT:
        del fields[name]
    fields["pattern"], fields["encoder_pattern"] = config.layer_kinds, config.encoder_kinds
    fields["head_size"], fields["intermediate_size"] = config.head_width, config.feedforward_width
    fields["attention_scale"] = config.attention_scale or config.head_width**-0.5
    if config.positions == "learned":
        fields["context"] = config.context
    elif config.positions != "relative":
        fields = {name: value for name, value in fields.items() if name not in _RELATIVE}
    if config.rope_scaling is not None:
        fields["rope_scaling"] = _rope_scaling(config.rope_scaling, config.context)
    fields["rope_fraction"] = config.rope_width / config.head_width
    if config.positions == "rope":
        fields["rope_pattern"] = tuple(config.rotates(layer) for layer in range(config.layers))
    else:
        # Follows from the positions, whose difference is the one to name.
        del fields["rope_pattern"]
    if config.window_rope_theta is None and "window" in config.layer_kinds and config.rope_scaling is None:
        fields["window_rope_theta"] = config.rope_theta
    if config.mixture is not None:
        fields["intermediate_size"] = config.mixture.intermediate_size or config.feedforward_width
        for name in ("intermediate_size", "balance_weight", "z_weight", "capacity_factor"):
            del fields["mixture"][name]
    if config.state_space is not None:
        del fields["state_space"]["chunk"]
    if not config.has_attention:
        fields = {name: value for name, value in fields.items() if name not in _ATTENTION}
    if not config.has_attention and not config.state_space_feedforward:
        fields = {name: value for name, value in fields.items() if name not in _FEEDFORWARD}
    return fields


def _rope_scaling(scaling: RopeScaling, context: int) -> dict[str, Any]:
    """Fields of a scaling that affect the logits, with derived values filled in."""
    fields = scaling.model_dump()
    if scaling.kind not in ("linear", "ntk"):
        fields["original_context"] = scaling.trained_context(context)
    if scaling.kind == "longrope":
        # The factor only determines the attention's.
        fields["attention_factor"] = scaling.attention_scale(context)
        del fields["factor"]
    return fields


def differences(config: TransformerConfig, other: TransformerConfig) -> list[str]:
    """Descriptions of the settings in which `config` differs from `other`; empty if both give the same logits."""
    first, second = logit_fields(config), logit_fields(other)
    found = []
    # A field that only one of them uses (the distances of relative positions) follows from one that both have.
    for name in (name for name in first if name in second):
        mine, theirs = first[name], second[name]
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += [_words(f"{name}.{part}", mine[part], theirs[part]) for part in mine if mine[part] != theirs[part]]
        elif mine != theirs:
            found.append(_words(name, mine, theirs))
    return found


def _words(name: str, mine: Any, theirs: Any) -> str:
    return f"{name} {_short(mine)}, not {_short(theirs)}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def fields_without_effect(config: TransformerConfig, read: TransformerConfig) -> dict[str, Any]:
    """Fields of `config` whose values differ from `read`, a configuration with the same logits."""
    mine, theirs = config.model_dump(mode="json"), read.model_dump(mode="json")
    return {name: value for name, value in mine.items() if value != theirs[name]}
