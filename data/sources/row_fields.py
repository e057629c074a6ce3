"""Fields of a row beside its text: which of them become metadata of the document, and a row's turns as text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from sluice.data.document import encodes, printable

TURN_FIELDS = ("messages", "conversations")
"""Fields that hold a list of turns, of which the first one there is read where the text field is not in the row."""
LONGEST_PLAIN = 2_000
"""Characters; a longer string is kept only where `fields` names it, because it is another text, not metadata."""
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant"}
"""Names of speakers in ShareGPT's rows (`from`, `value`) -> those of chat templates."""
_TURN_KEYS = {"role", "from", "content", "value"}
_MOST_DEPTH = 16


@dataclass(frozen=True)
class FieldChoice:
    """Selects the fields that are kept."""

    names: tuple[str, ...] | None = None
    """None: all plain ones, that is strings, numbers, booleans and times."""
    id_field: str | None = None
    """Field that is kept as `id`."""

    def kept(self, row: Mapping[str, Any], text_field: str) -> "RowFields":
        """Return the metadata of a row. A nested object `metadata` counts as fields of the row, as in datatrove."""
        inner = row.get("metadata")
        flat = {**inner, **row} if isinstance(inner, dict) and not self._names("metadata") else dict(row)
        found = RowFields()
        for name, value in flat.items():
            if name == text_field or value is None or (name == "metadata" and isinstance(value, dict)):
                continue
            if self.names is not None and not self._names(name):
                continue
            plain = _json_value(value, 0 if self.names is None else _MOST_DEPTH)
            is_long = self.names is None and isinstance(plain, str) and len(plain) > LONGEST_PLAIN
            if plain is None or is_long or not encodes(name) or not name.strip():
                found.left_out.append(printable(name) or "(no name)")
            else:
                found.values[name] = plain
        if self.id_field is not None:
            if self.id_field in found.values:
                found.values["id"] = str(found.values.pop(self.id_field))
            elif self.id_field not in found.left_out:
                found.left_out.append(self.id_field)
        return found

    def _names(self, name: str) -> bool:
        return self.names is not None and (name in self.names or name == self.id_field)


@dataclass
class RowFields:
    """Metadata of a row, and the names of the fields that are none."""

    values: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def _json_value(value: Any, depth: int) -> Any:
    """Return the value as JSON has it, with at most `depth` levels of lists and objects; None where it has none."""
    match value:
        case bool() | int():
            return value
        case str():
            return value if encodes(value) else None
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case list() | tuple() if depth:
            return [_json_value(each, depth - 1) for each in value]
        case dict() if depth:
            return {str(name): _json_value(each, depth - 1) for name, each in value.items() if encodes(str(name))}
    return None


def turns_of(row: Mapping[str, Any]) -> tuple[str, list[dict[str, str]]] | None:
    """Return the name of the field with the row's turns, and these as role and content; None if it has none.

    Content is a string or a list of parts, of which those with a text count.
    """
    for name in TURN_FIELDS:
        turns = as_turns(row.get(name))
        if turns is not None:
            return name, turns
    return None


def as_turns(value: Any) -> list[dict[str, str]] | None:
    """Return a list of turns with `role` and `content`, from `role`/`content` or `from`/`value`; None for others."""
    if not isinstance(value, list) or not value:
        return None
    turns = []
    for turn in value:
        if not isinstance(turn, dict):
            return None
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if isinstance(content, list):
            parts = [each.get("text") for each in content if isinstance(each, dict)]
            content = "\n".join(part for part in parts if isinstance(part, str))
        if not isinstance(role, str) or not (content is None or isinstance(content, str)):
            return None
        turns.append({"role": _ROLES.get(role, role), "content": content or ""})
    return turns


def left_out_of_turns(name: str, value: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of what turns have beside role and text, such as `messages.tool_calls`, each once."""
    found: dict[str, None] = {}
    for turn in value:
        found |= {f"{name}.{key}": None for key, held in turn.items() if held and key not in _TURN_KEYS}
        parts = turn.get("content", turn.get("value"))
        if isinstance(parts, list) and not all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in parts):
            found[f"{name}.content"] = None
    return list(found)


def render_turns(turns: Sequence[Mapping[str, str]]) -> str:
    """Render turns as `role: content`, with a blank line between them; turns without content are left out."""
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns if turn["content"].strip())
