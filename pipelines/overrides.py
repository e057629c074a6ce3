"""`key=value` of the command line: what is allowed, in our words, and how Hydra is told."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

from sluice.components.workspace import Workspace
from sluice.core.settings.block import Block

_OF_TRAINING = ("tokenizer.algorithm", "tokenizer.vocab_size", "tokenizer.min_frequency")
"""Settings of a tokenizer that is trained."""
_QUOTED_NAME = re.compile(r"""(?<=[{,\s])(?P<quote>['"])(?P<name>.*?)(?P=quote)\s*:""", re.DOTALL)
_DIGITS = "quoted_"
_NEAR = 0.6
"""Of two spellings, as difflib counts: what get_close_matches takes by default."""


def _groups(workspace: Workspace) -> list[str]:
    return sorted(folder.name for folder in workspace.conf.iterdir() if folder.is_dir())


def _options(workspace: Workspace, group: str) -> list[str]:
    return sorted(path.stem for path in (workspace.conf / group).glob("*.yaml"))


def check_form(workspace: Workspace, override: str, known: Mapping[str, type[Block]]) -> None:
    """Hydra's grammar can add, delete and sweep; a run only sets. So the form and the key are checked here, in our
    words.
    """
    match = re.fullmatch(r"([A-Za-z_][\w.]*)=(.*)", override, flags=re.DOTALL)
    if not match:
        plain = override.lstrip("+")
        needless = f"{plain} sets it, a + is not needed; " if plain != override and "=" in plain else ""
        raise ValueError(f"'{override}' is not key=value: {needless}for example pretrain.steps=100 or profile=tiny")
    key, value = match.groups()
    groups = _groups(workspace)
    if key in groups and "." not in key:
        options = _options(workspace, key)
        if value not in options:
            raise ValueError(f"{key}={value}: allowed are {', '.join(options)}")
        return
    block, _, field = key.partition(".")
    if block not in known:
        raise ValueError(
            f"unknown key '{key}': {did_you_mean(key, known, groups)}allowed are "
            f"{', '.join(dict.fromkeys([*known, *groups]))}"
        )
    if not field:
        settable = ", ".join(f"{key}.{name}" for name in known[block].model_fields)
        raise ValueError(f"'{key}' is a block of settings: set one of {settable}")
    if field.split(".")[0] not in known[block].model_fields:
        allowed = ", ".join(known[block].model_fields)
        raise ValueError(f"unknown key '{key}': {did_you_mean(key, {block: known[block]})}allowed are {allowed}")


def did_you_mean(wrong: str, known: Mapping[str, type[Block]], groups: Sequence[str] = ()) -> str:
    """The keys that a wrong one may have meant, as they are typed, in a question; empty where none is near.

    A bare key is looked for among the settings of all blocks.
    """
    dotted = [f"{block}.{field}" for block, model in known.items() for field in model.model_fields]
    found = [key for key in dotted if key.partition(".")[2] == wrong]
    if not found and "." in wrong:
        found = _near_in_both(wrong, dotted)
    if not found and "." not in wrong:
        near = difflib.get_close_matches(wrong, [*groups, *known, *(key.partition(".")[2] for key in dotted)], n=1)
        found = [name for name in (*groups, *known) if name in near] or [
            key for key in dotted if key.partition(".")[2] in near
        ]
    return f"did you mean {' or '.join(repr(key) for key in dict.fromkeys(found))}? " if found else ""


def _near_in_both(wrong: str, dotted: Sequence[str]) -> list[str]:
    """The nearest key whose block and field are each near: a shared block alone makes no two keys alike."""
    block, _, field = wrong.partition(".")

    def near(key: str) -> float:
        return min(
            difflib.SequenceMatcher(None, mine, theirs).ratio()
            for mine, theirs in zip((block, field), key.split(".", 1), strict=True)
        )

    best = max(dotted, key=near, default=None)
    return [best] if best is not None and near(best) >= _NEAR else []


def check_once(overrides: Sequence[str]) -> dict[str, str]:
    """Key -> value. ValueError for a key that is given twice."""
    given: dict[str, str] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in given:
            raise ValueError(f"{key} is given twice, as {given[key]} and as {value}: say once what it shall be")
        given[key] = value
    return given


def check_together(overrides: Sequence[str]) -> None:
    """ValueError for a key that is given twice, and for one that another leaves without effect."""
    given = check_once(overrides)
    if given.get("tokenizer.path", "null") not in {"null", ""}:
        for name in _OF_TRAINING:
            if name in given:
                raise ValueError(
                    f"{name}={given[name]} has no effect beside tokenizer.path: a tokenizer that is given is not "
                    "trained; leave one of the two out"
                )


def to_hydra(override: str, known: Mapping[str, type[Block]]) -> list[str]:
    """What Hydra is asked for one `key=value`, whose form is checked.

    A setting is set whatever stood there: Hydra itself asks for another spelling where a mapping has no such key yet,
    and which keys there may be is for the blocks to say. A mapping with names of the user's own is replaced whole; its
    quoted names travel as hexadecimal digits, because Hydra's grammar has no quotes there.
    """
    key, _, value = override.partition("=")
    block, _, field = key.partition(".")
    if not field:
        return [override]
    if value.startswith("~/"):
        # A shell leaves the tilde of `key=~/texts` alone, and Hydra's grammar has none.
        value = str(Path(value).expanduser())
    if not _is_mapping(known[block], field):
        return [f"++{key}={value}"]
    return [f"++{key}=null", f"++{key}={_QUOTED_NAME.sub(_as_digits, value)}"]


def keys_as_typed(value: Any) -> Any:
    """A composed value with the quoted names of its mappings as the user typed them."""
    if isinstance(value, Mapping):
        return {_from_digits(name): keys_as_typed(held) for name, held in value.items()}
    return [keys_as_typed(each) for each in value] if isinstance(value, list) else value


def quoted_name_hint(overrides: Sequence[str], known: Mapping[str, type[Block]]) -> str:
    """How names with other signs are written, where one of `overrides` sets a mapping; else empty."""
    for key in (override.partition("=")[0] for override in overrides):
        block, _, field = key.partition(".")
        if block in known and _is_mapping(known[block], field):
            return f"quote a name that holds more than letters, digits and / . * - : {key}={{'a b.txt': ..}}"
    return ""


def _is_mapping(model: type[Block], field: str) -> bool:
    return field in model.model_fields and get_origin(model.model_fields[field].annotation) is dict


def _as_digits(match: re.Match[str]) -> str:
    return f"{_DIGITS}{match['name'].encode().hex()}:"


def _from_digits(name: Any) -> Any:
    if isinstance(name, str) and name.startswith(_DIGITS):
        return bytes.fromhex(name.removeprefix(_DIGITS)).decode()
    return name
