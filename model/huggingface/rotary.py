"""Rotary settings: transformers' `rope_parameters`, and the older `rope_theta` beside `rope_scaling`."""

import math
from collections.abc import Mapping
from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.architecture.rope_scaling_config import RopeScaling
from sluice.model.huggingface.fields import Fields

_ORIGINAL = "original_max_position_embeddings"
_FACTORS = {"factor": "factor", _ORIGINAL: "original_context", "attention_factor": "attention_factor"}
# rope_type -> key of config.json -> our field.
_KEYS: dict[str, dict[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "yarn": {**_FACTORS, "beta_fast": "beta_fast", "beta_slow": "beta_slow"},
    "llama3": {
        "factor": "factor",
        _ORIGINAL: "original_context",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
    },
    "longrope": {**_FACTORS, "short_factor": "short_factors", "long_factor": "long_factors"},
}


def read_rotary(
    fields: Fields,
    context: Any,
    default_theta: float,
    *,
    fraction: float | None = None,
    names: tuple[str, str] = ("rope_theta", "partial_rotary_factor"),
    original: int | None = None,
) -> dict[str, Any]:
    """Our rope_theta, rope_scaling and rope_fraction, and the context where the scaling determines it.

    `fraction` is the family's default for an absent partial_rotary_factor; None: it rotates whole heads only. `names`
    are its names of the two fields outside of the rotary settings; `original` is its default for an absent
    original_max_position_embeddings there.
    """
    alone = names[0] in fields
    theta = fields.take(names[0], default_theta)
    inherited = {"rope_theta": theta}
    if fraction is not None:
        inherited["partial_rotary_factor"] = fields.take(names[1], fraction)
    original = fields.count(_ORIGINAL, original)
    given = {name: fields.take(name, None) for name in ("rope_scaling", "rope_parameters")}
    # As in transformers, an empty one counts as absent.
    read = {
        name: read_rope(name, rope, context, inherited, original)
        for name, rope in given.items()
        if rope not in (None, {})
    }
    for name, one in read.items():
        if alone and one["rope_theta"] != theta:
            raise ValueError(
                f"config.json: {name}.rope_theta is {one['rope_theta']!r} and {names[0]} {theta!r}: leave one out"
            )
    if len(read) == 2 and read["rope_scaling"] != read["rope_parameters"]:
        raise ValueError(
            f"config.json: rope_scaling is {given['rope_scaling']!r} and rope_parameters "
            f"{given['rope_parameters']!r}: leave one out"
        )
    return next(iter(read.values()), read_rope("rope_parameters", {}, context, inherited))


def read_rope(name: str, rope: Any, context: Any, inherited: Mapping[str, Any], original: Any = None) -> dict[str, Any]:
    """Settings of one object of config.json. `inherited` has the values of keys that it may lack, and `original` is the
    field original_max_position_embeddings outside of it, which goes before its own.
    """
    if not isinstance(rope, dict):
        raise ValueError(f"config.json: {name} is {rope!r}, not an object")
    rest = {**inherited, **{key: value for key, value in rope.items() if value is not None}}
    older = rest.pop("type", None)
    kind = rest.pop("rope_type", older or "default")
    # The first name of LongRoPE.
    older, kind = ("longrope" if each == "su" else each for each in (older, kind))
    if older not in (None, kind):
        raise ValueError(f"config.json: {name} has rope_type {kind!r} and type {older!r}: leave one out")
    if kind not in _KEYS:
        types = ", ".join(repr(each) for each in _KEYS)
        raise ValueError(f"config.json: {name} has rope_type {kind!r}, but only {types} are supported")
    read = {"rope_theta": rest.pop("rope_theta")}
    fraction = rest.pop("partial_rotary_factor", 1.0)
    if "partial_rotary_factor" in inherited:
        read["rope_fraction"] = fraction
    elif fraction != 1:
        raise ValueError(f"config.json: {name}.partial_rotary_factor is {fraction!r}, but only 1.0 is supported")
    if rest.get("truncate") is True:
        del rest["truncate"]
    if kind == "yarn":
        # DeepSeek's two temperatures give the attention factor.
        mscale, every, factor = rest.pop("mscale", None), rest.pop("mscale_all_dim", None), rest.get("factor")
        if mscale and every and "attention_factor" not in rest and factor and factor > 1:
            rest["attention_factor"] = (0.1 * mscale * math.log(factor) + 1) / (0.1 * every * math.log(factor) + 1)
    if unknown := sorted(rest.keys() - _KEYS[kind].keys() - ({_ORIGINAL} if kind == "dynamic" else set())):
        value = rest[unknown[0]]
        raise ValueError(f"config.json: {name}.{unknown[0]} is {value!r}, which rope_type {kind!r} does not have here")
    if kind == "default":
        return read
    if _ORIGINAL in _KEYS[kind]:
        rest[_ORIGINAL] = original or rest.get(_ORIGINAL, context)
    if kind == "longrope":
        rest.setdefault("factor", max(1.0, context / rest[_ORIGINAL]))
    if "factor" not in rest:
        raise ValueError(f"config.json: {name} has rope_type {kind!r} but no factor")
    scaling = {"kind": kind, **{_KEYS[kind][key]: value for key, value in rest.items() if key in _KEYS[kind]}}
    if kind == "dynamic":
        # transformers calls the context of the training max_position_embeddings, and sets no limit beyond it.
        read["context"] = round(context * scaling["factor"])
        scaling["original_context"] = context
    return {**read, "rope_scaling": scaling}


def write_rotary(config: TransformerConfig, *, partial: bool = False) -> dict[str, Any]:
    """Return `rope_parameters`, and `max_position_embeddings` where the scaling changes it. `partial`: whether the
    family has partial_rotary_factor.
    """
    rope = write_rope(config.rope_theta, config.rope_scaling, config.context)
    if partial:
        rope["partial_rotary_factor"] = config.rope_fraction
    written: dict[str, Any] = {"rope_parameters": rope}
    if config.rope_scaling is not None and config.rope_scaling.kind == "dynamic":
        written["max_position_embeddings"] = config.rope_scaling.trained_context(config.context)
    return written


def write_rope(theta: float, scaling: RopeScaling | None, context: int) -> dict[str, Any]:
    """One object of rotary settings; NTK-aware scaling has no type in transformers and is written as none."""
    if scaling is None or scaling.kind == "ntk":
        return {"rope_type": "default", "rope_theta": theta}
    written: dict[str, Any] = {"rope_type": scaling.kind, "rope_theta": theta}
    for key, field in _KEYS[scaling.kind].items():
        value = scaling.trained_context(context) if key == _ORIGINAL else getattr(scaling, field)
        if value is not None:
            written[key] = list(value) if isinstance(value, tuple) else value
    if scaling.kind == "longrope" and scaling.factor == max(1.0, context / written[_ORIGINAL]):
        del written["factor"]  # transformers' default
    return written
