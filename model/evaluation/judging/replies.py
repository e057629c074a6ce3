"""Read a judge's reply: one JSON object, plain or in a fence. Whatever leaves room for doubt is an error, no score."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

from sluice.model.evaluation.judging.rubric import Scale

Preference = Literal["first", "second", "tie"]

_FENCED = re.compile(r"^[ \t]*```[\w-]*[ \t]*\n(.*?)^[ \t]*```[ \t]*$", re.MULTILINE | re.DOTALL)
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
"""Reasoning that some models write before their reply."""
_SHOWN = 80


class ReplyError(Exception):
    """A reply that is no judgement."""


def read_score(reply: str, scale: Scale) -> float:
    """Return the score of a reply. ReplyError for one without a number on the scale."""
    value = _field(reply, "score")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReplyError(f"score {_short(value)} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not scale.low <= number <= scale.high:
        raise ReplyError(f"score {number:g} is not on the scale from {scale.low:g} to {scale.high:g}")
    if scale.whole and number != round(number):
        raise ReplyError(f"score {number:g} is no whole number")
    return number


def read_preference(reply: str) -> Preference:
    """Return which answer a reply prefers. ReplyError for one that names neither `first`, `second` nor `tie`."""
    value: Any = _field(reply, "better")
    if value in ("first", "second", "tie"):
        return value
    raise ReplyError(f"better {_short(value)} is none of first, second, tie")


def _field(reply: str, name: str) -> Any:
    text = _THOUGHTS.sub("", reply, count=1).strip()
    if not text:
        raise ReplyError("the reply is empty")
    blocks = _FENCED.findall(text)
    if len(blocks) > 1:
        raise ReplyError(f"{len(blocks)} fenced blocks, where one is the judgement")
    try:
        content = json.loads(blocks[0] if blocks else text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ReplyError(f"no JSON object: {_short(reply)}") from None
    if not isinstance(content, Mapping):
        raise ReplyError(f"no JSON object but {_short(content)}")
    if name not in content:
        raise ReplyError(f"no field {name} in {_short(dict(content))}")
    return content[name]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ReplyError("a field is given twice")
    return content


def _refuse(constant: str) -> Any:
    raise ReplyError(f"{constant} is no number")


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}.."
