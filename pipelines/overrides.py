"""`key=value` on the command line: which keys there are, and how a value is read."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_origin

import yaml

from sluice.core.settings.block import Block
from sluice.core.settings.files import NamesFile

_TOKENIZER_TRAINING = ("tokenizer.algorithm", "tokenizer.vocab_size", "tokenizer.min_frequency")
_QUOTED_OR_COLON = re.compile(r"""('[^']*'|"[^"]*")|:(?=\S)""")


def check_once(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value. ValueError for a key that is given twice."""
    given: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in given:
            raise ValueError(f"{key} is given twice, as {given[key]} and as {value}: say once what it shall be")
        given[key] = value
    return given


def check_overrides(
    overrides: Sequence[str], kinds: Mapping[str, type[Block]], groups: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Key -> value. ValueError for an unknown key, one given twice, and one that another leaves without effect.

    `groups` are the folders of conf/ with their options.
    """
    for override in overrides:
        match = re.fullmatch(r"([A-Za-z_][\w.]*)=(.*)", override, flags=re.DOTALL)
        if not match:
            plain = override.lstrip("+")
            needless = f"{plain} sets it, a + is not needed; " if plain != override and "=" in plain else ""
            raise ValueError(f"'{override}' is not key=value: {needless}for example pretrain.steps=100 or profile=tiny")
        key, value = match.groups()
        block, _, field = key.partition(".")
        if key in groups:
            if value not in groups[key]:
                raise ValueError(f"{key}={value}: allowed are {', '.join(groups[key])}")
        elif block not in kinds:
            allowed = ", ".join(dict.fromkeys([*kinds, *groups]))
            raise ValueError(f"unknown key '{key}': {did_you_mean(key, kinds, list(groups))}allowed are {allowed}")
        elif not field:
            settable = ", ".join(f"{key}.{name}" for name in kinds[block].model_fields)
            raise ValueError(f"'{key}' is a block of settings: set one of {settable}")
        elif field.split(".")[0] not in kinds[block].model_fields:
            hint = did_you_mean(key, {block: kinds[block]})
            raise ValueError(f"unknown key '{key}': {hint}allowed are {', '.join(kinds[block].model_fields)}")
    given = check_once(overrides)
    ignored = [key for key in _TOKENIZER_TRAINING if key in given]
    if ignored and given.get("tokenizer.path", "null") not in {"null", ""}:
        raise ValueError(
            f"{ignored[0]}={given[ignored[0]]} has no effect beside tokenizer.path: a given tokenizer is not trained; "
            "leave one of the two out"
        )
    return given


def did_you_mean(wrong: str, kinds: Mapping[str, type[Block]], groups: Sequence[str] = ()) -> str:
    """A question that names the keys nearest to a wrong one, or the empty string; a bare key may be any block's."""
    block, _, field = wrong.rpartition(".")
    keys: dict[str, list[str]] = {}
    for each in get_close_matches(block, kinds, n=1) if block else kinds:
        for name in kinds[each].model_fields:
            keys.setdefault(name, []).append(f"{each}.{name}")
    if not block:
        keys |= {name: [name] for name in (*groups, *kinds)}
    near = [field] if field in keys else get_close_matches(field, keys, n=1)
    return f"did you mean {' or '.join(map(repr, keys[near[0]]))}? " if near else ""


def is_mapping(kind: type[Block], field: str) -> bool:
    """Return whether the names in a field's mapping are the user's own."""
    return field in kind.model_fields and get_origin(kind.model_fields[field].annotation) is dict


def read_value(kind: type[Block], field: str, text: str) -> Any:
    """The value of `field=text` in OmegaConf's grammar, such as 3, null, [a, b] and {weight: 2}; else ValueError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    # A shell leaves the tilde of `key=~/texts` alone, and the grammar has none. Interpolation waits for all values.
    text = str(Path(text).expanduser()) if text.startswith("~/") else text
    if not text or "${" in text:
        return text
    markers = kind.model_fields[field].metadata if field in kind.model_fields else []
    if names_path := any(isinstance(marker, NamesFile) for marker in markers):
        # One path as it stands, unless it is null, a list or a quotation that is no file's name.
        with suppress(OSError):  # A list may be longer than the name of any file.
            if (text != "null" and text[0] not in "[{'\"") or Path(text).exists():
                return text
    try:
        if text.startswith("{") and is_mapping(kind, field):
            # OmegaConf knows no quoted names; YAML does, and wants a space after the colon of `{name:value}`.
            spaced = _QUOTED_OR_COLON.sub(lambda match: match[1] or ": ", text)
            return yaml.load(spaced, yaml.BaseLoader)  # noqa: S506  It makes strings, lists and mappings alone.
        return OmegaConf.create({"text": text, "value": "${oc.decode:${text}}"}).value
    except (OmegaConfBaseException, yaml.YAMLError):
        with suppress(yaml.YAMLError):
            if names_path and isinstance(listed := yaml.load(text, yaml.BaseLoader), list):  # noqa: S506
                return listed
        raise ValueError(
            f"{kind.block_name}.{field}={text} cannot be read: quote a name or text that holds more than letters, "
            "digits and / . * - :"
        ) from None
