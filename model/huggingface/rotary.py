"""Rotary settings: transformers' `rope_parameters`, and the older `rope_theta` beside `rope_scaling`."""

from typing import Any

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.fields import Fields

_TYPES = "'default', 'linear', 'yarn'"
_KEYS = {
    "default": set[str](),
    "linear": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor"},
}


def read_rotary(fields: Fields, context: Any, default_theta: float) -> dict[str, Any]:
    """Our rope_theta and rope_scaling."""
    alone = "rope_theta" in fields
    theta = fields.take("rope_theta", default_theta)
    given = {name: fields.take(name, None) for name in ("rope_scaling", "rope_parameters")}
    # As in transformers, an empty one counts as absent.
    read = {name: _read_one(name, rope, context, theta) for name, rope in given.items() if rope not in (None, {})}
    for name, one in read.items():
        if alone and one["rope_theta"] != theta:
            raise ValueError(
                f"config.json: {name}.rope_theta is {one['rope_theta']!r} and rope_theta {theta!r}: leave one out"
            )
    if len(read) == 2 and read["rope_scaling"] != read["rope_parameters"]:
        raise ValueError(
            f"config.json: rope_scaling is {given['rope_scaling']!r} and rope_parameters "
            f"{given['rope_parameters']!r}: leave one out"
        )
    return next(iter(read.values()), {"rope_theta": theta})


def _read_one(name: str, rope: Any, context: Any, theta: Any) -> dict[str, Any]:
    """Settings of one field; `theta` is used if it contains none."""
    if not isinstance(rope, dict):
        raise ValueError(f"config.json: {name} is {rope!r}, not an object")
    rest = dict(rope)
    older = rest.pop("type", None)
    kind = rest.pop("rope_type", older or "default")
    if older not in (None, kind):
        raise ValueError(f"config.json: {name} has rope_type {kind!r} and type {older!r}: leave one out")
    theta = rest.pop("rope_theta", theta)
    if kind not in _KEYS:
        raise ValueError(f"config.json: {name} has rope_type {kind!r}, but only {_TYPES} are supported")
    if rest.get("truncate") is True:
        del rest["truncate"]
    rest = {key: value for key, value in rest.items() if value is not None}
    if unknown := sorted(rest.keys() - _KEYS[kind]):
        value = rest[unknown[0]]
        raise ValueError(f"config.json: {name}.{unknown[0]} is {value!r}, which rope_type {kind!r} does not have here")
    if kind == "default":
        return {"rope_theta": theta}
    if "factor" not in rest:
        raise ValueError(f"config.json: {name} has rope_type {kind!r} but no factor")
    original = rest.pop("original_max_position_embeddings", context)
    if kind == "yarn":
        rest["original_context"] = original
    return {"rope_theta": theta, "rope_scaling": {"kind": kind, **rest}}


def write_rotary(config: TransformerConfig) -> dict[str, Any]:
    """Return `rope_parameters`; NTK-aware scaling has no type in transformers and is written as none."""
    scaling = config.rope_scaling
    theta = {"rope_theta": config.rope_theta}
    if scaling is None or scaling.kind == "ntk":
        return {"rope_parameters": {"rope_type": "default", **theta}}
    if scaling.kind == "linear":
        return {"rope_parameters": {"rope_type": "linear", "factor": scaling.factor, **theta}}
    yarn: dict[str, Any] = {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
    if scaling.attention_factor is not None:
        yarn["attention_factor"] = scaling.attention_factor
    yarn["original_max_position_embeddings"] = scaling.trained_context(config.context)
    return {"rope_parameters": {"rope_type": "yarn", "factor": scaling.factor, **yarn, **theta}}
