"""config.json <-> TransformerConfig, in the fields of a transformers family or in our own."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from sluice.model.architecture.config import TransformerConfig
from sluice.model.huggingface.bert import BERT
from sluice.model.huggingface.equivalence import differences, fields_without_effect
from sluice.model.huggingface.falcon import FALCON
from sluice.model.huggingface.family import Family
from sluice.model.huggingface.fields import Fields, unknown_settings
from sluice.model.huggingface.gemma import GEMMA, GEMMA2, GEMMA3
from sluice.model.huggingface.gpt2 import GPT2
from sluice.model.huggingface.gpt_neox import GPT_NEOX
from sluice.model.huggingface.granite import GRANITE
from sluice.model.huggingface.inert import is_inert
from sluice.model.huggingface.llama import LLAMA, MISTRAL, QWEN2, QWEN3
from sluice.model.huggingface.mamba2 import MAMBA2
from sluice.model.huggingface.mixtral import MIXTRAL
from sluice.model.huggingface.olmo2 import OLMO2
from sluice.model.huggingface.phi3 import PHI3
from sluice.model.huggingface.qwen3_moe import QWEN3_MOE
from sluice.model.huggingface.smollm3 import SMOLLM3
from sluice.model.huggingface.stablelm import STABLELM
from sluice.model.huggingface.t5 import T5

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL, QWEN3_MOE, PHI3, SMOLLM3, GRANITE, OLMO2),
        *(GEMMA, GEMMA2, GEMMA3, STABLELM, FALCON, GPT_NEOX, GPT2, BERT, T5, MAMBA2),
    )
}
"""Families by model_type; a configuration is written in the first that can express it."""
NATIVE = "sluice"
"""model_type of models that no family can express. In a family's config.json, the field for settings that change no
logit and have no field in transformers, such as dropout.
"""

_QUANTIZATIONS = {"awq": "AWQ", "bitsandbytes": "bitsandbytes", "exl2": "EXL2", "fp8": "fp8", "gptq": "GPTQ"}
"""Names of quantization methods, by `quant_method`; others are named as they are written."""
_SETTABLE = frozenset(TransformerConfig.model_fields)


def read_config(content: Mapping[str, Any], *, own_head: bool | None = None) -> tuple[TransformerConfig, Family | None]:
    """Configuration described by a config.json, and its family; None if it uses our own fields.

    `own_head`: whether the weights contain a head that is not the embedding (None: unknown), which T5's fields do not
    tell. Raises ValueError for a field that is missing, unknown, or set to an unsupported value.
    """
    rest = dict(content)
    name = rest.pop("model_type", None)
    if name == NATIVE:
        own = {key: value for key, value in rest.items() if key in _SETTABLE or not is_inert(key, value)}
        return _validated(own), None
    if name not in FAMILIES:
        raise ValueError(f"config.json: model_type is {name!r}, but only {', '.join(FAMILIES)} and {NATIVE} are known")
    ours = rest.pop(NATIVE, {})
    family, fields = FAMILIES[name], Fields(rest, own_head=own_head)
    if (classes := fields.take("architectures", None)) not in (None, [], [family.architecture]):
        raise ValueError(f"config.json: architectures is {classes!r}, but only {[family.architecture]!r} is supported")
    _refuse_quantized(fields)
    try:
        settings = family.read(fields)
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"config.json: a field of this {name} has the wrong type or size: {error}") from error
    read = _validated(settings, family.fields)
    fields.finish(family.without_effect)
    if not isinstance(ours, dict):
        raise ValueError(f"config.json: {NATIVE} is {ours!r}, not an object")
    config = _validated({**read.model_dump(), **ours}) if ours else read
    wrong = differences(config, read)
    if not wrong:
        # A setting has one place only: our extra fields must not change one of the family's own.
        wanted, written = family.write(config), family.write(read)
        changed = [name for name in {**wanted, **written} if wanted.get(name) != written.get(name)]
        wrong = [f"{name} {wanted.get(name)!r}, not {written.get(name)!r}" for name in changed]
    if wrong:
        raise ValueError(f"config.json: {NATIVE} contradicts the other fields: {wrong[0]}; leave it out of {NATIVE}")
    return config, family


def config_from_huggingface(content: Mapping[str, Any]) -> TransformerConfig:
    """Configuration described by the fields of a config.json, without its weights."""
    return read_config(content)[0]


def write_config(config: TransformerConfig) -> dict[str, Any]:
    """Return the config.json of a configuration; reading it gives an equal one."""
    family = family_of(config)
    if family is None:
        return {"model_type": NATIVE, **config.model_dump(mode="json")}
    fields = family_fields(config, family)
    rest = fields_without_effect(config, read_config(fields)[0])
    return {**fields, **({NATIVE: rest} if rest else {})}


def family_fields(config: TransformerConfig, family: Family) -> dict[str, Any]:
    """The fields of transformers only, as close to the configuration as the family can express."""
    return {"architectures": [family.architecture], "model_type": family.name, **family.write(config)}


def family_of(config: TransformerConfig) -> Family | None:
    """Return the first family that computes exactly this model."""
    return next((family for family in FAMILIES.values() if not obstacles(config, family)), None)


def obstacles(config: TransformerConfig, family: Family) -> list[str]:
    """Descriptions of the settings that a family cannot express.

    A family can express a configuration if reading its own fields back gives an equal one, so no rule is stated twice.
    """
    read = _read_back(config, family)
    return [read] if isinstance(read, str) else differences(config, read)


def _read_back(config: TransformerConfig, family: Family) -> TransformerConfig | str:
    """The configuration that a family's own fields for this one describe, or why they describe none."""
    try:
        return read_config(family_fields(config, family))[0]
    except ValueError as error:
        return str(error).removeprefix("config.json: ")


def why_none(config: TransformerConfig) -> str:
    """One line naming the settings that the closest families cannot express."""
    read = {name: _read_back(config, family) for name, family in FAMILIES.items()}
    # Fields that cannot be read say little about the distance.
    every = {name: differences(config, each) for name, each in read.items() if not isinstance(each, str)}
    against = {name: found for name, found in every.items() if not any(each.startswith("kind ") for each in found)}
    against = against or {name: [each] for name, each in read.items() if isinstance(each, str)}
    fewest = min(len(found) for found in against.values())
    near: dict[str, list[str]] = {}
    for name, found in against.items():
        if len(found) == fewest:
            near.setdefault(", ".join(found), []).append(name)
    shown = "; ".join(f"{', '.join(names)}: {found}" for found, names in near.items())
    return f"no family of transformers computes this model ({shown})"


def _refuse_quantized(fields: Fields) -> None:
    """Raise ValueError naming the method for a field that describes quantized weights."""
    for name in ("quantization_config", "quantization", "compression_config"):
        given = fields.take(name, None)
        if not given:
            continue
        written = given if isinstance(given, dict) else {}
        method = str(written.get("quant_method") or ("MLX" if name == "quantization" else "unknown"))
        if any(part in key for key in written for part in ("load_in_4bit", "load_in_8bit")):
            method = "bitsandbytes"
        bits = f" ({written['bits']} bits)" if "bits" in written else ""
        raise ValueError(
            f"config.json: the weights are quantized by {_QUANTIZATIONS.get(method, method)}{bits}, which is not read: "
            "take the model that they were made from, or dequantize them first"
        )


def _validated(given: Mapping[str, Any], theirs: Mapping[str, str] = MappingProxyType({})) -> TransformerConfig:
    """Configuration with these fields. Errors use the file's field names: `theirs` maps our name to the file's."""
    try:
        return TransformerConfig(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "value_error":
            # One of our validators, whose message names fields itself; a nested block names them without its prefix.
            within = {name.removeprefix(f"{where}."): there for name, there in theirs.items()}
            message = first["msg"].removeprefix("Value error, ")
            if within:
                # Only where a value follows or a setting is advised: elsewhere heads and window are plain English.
                names = "|".join(re.escape(each) for each in within)
                with_value = rf"(?<![\w.])(?:{names})(?= (?:[-\d'\"(\[{{]|(?i:true|false|none)\b))"
                advised = rf"(?<=\bset )(?:{names})\b"
                message = re.sub(f"{with_value}|{advised}", lambda found: within[found[0]], message)
            raise ValueError(f"config.json: {message}") from None
        if first["type"] == "extra_forbidden":
            raise ValueError(f"config.json: {unknown_settings({where: first['input']}, _SETTABLE)}") from None
        if first["type"] == "missing":
            raise ValueError(f"config.json: field '{theirs.get(where, where)}' is missing") from None
        rule = first["msg"].replace("Input should be", "must be")
        raise ValueError(f"config.json: {theirs.get(where, where)} {rule}, not {first['input']!r}") from None
