"""Fields of a config.json, read one by one, so that fields nobody reads are reported as unknown."""

from collections.abc import Mapping, Set
from difflib import get_close_matches
from typing import Any, TypeVar

from sluice.model.huggingface.inert import is_inert

Value = TypeVar("Value")

_REQUIRED = object()


class Fields:
    """Reader of a config.json that records which fields are used."""

    def __init__(self, content: Mapping[str, Any], *, own_head: bool | None = None) -> None:
        """`own_head`: whether the weights contain an output head that is not the embedding; None if unknown."""
        self._rest = dict(content)
        self._read: set[str] = set()
        self.own_head = own_head

    def __contains__(self, name: str) -> bool:
        return name in self._rest

    def take(self, name: str, default: Any = _REQUIRED, *, nullable: bool = False) -> Any:
        """Value of a field. `default` is transformers' default for an absent field; null is allowed only if the default
        is null too, or if `nullable`.
        """
        value = self._pop(name, default)
        if value is _REQUIRED:
            raise ValueError(f"config.json: field '{name}' is missing or ignored; is model_type right?")
        if value is None and default is not None and not nullable:
            raise ValueError(f"config.json: {name} is null, but this family needs a value")
        return value

    def fixed(self, name: str, allowed: Any) -> None:
        """Check an optional field of which only one value is supported."""
        value = self._pop(name, allowed)
        # 1 is not True here: a count and a switch mean different things.
        if value != allowed or isinstance(value, bool) != isinstance(allowed, bool):
            raise ValueError(f"config.json: {name} is {value!r}, but only {allowed!r} is supported")

    def switch(self, name: str, default: bool) -> bool:
        """Value of a boolean field; a quoted "false" is refused, because it would count as true."""
        value = self._pop(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"config.json: {name} is {value!r}, but must be true or false")
        return value

    def count(self, name: str, default: Any = _REQUIRED) -> Any:
        """Value of a field that sizes are computed from: an integer of at least 1, or null if that is the default."""
        value = self.take(name, default)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"config.json: {name} is {value!r}, but must be a whole number of at least 1")
        return value

    def positive(self, name: str, default: float) -> float:
        """Value of a field that a computation divides by: a number above 0."""
        value = self.take(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise ValueError(f"config.json: {name} is {value!r}, but must be a number above 0")
        return value

    def choice(self, name: str, table: Mapping[str, Value], default: str) -> Value:
        """Entry of a table for the field's value, one of its keys."""
        value = self._pop(name, default)
        if not isinstance(value, str) or value not in table:
            allowed = ", ".join(repr(each) for each in table)
            raise ValueError(f"config.json: {name} is {value!r}, but only {allowed} are supported")
        return table[value]

    def refuse(self, name: str, why: str) -> None:
        """Raise ValueError if a field is present and not null."""
        if (value := self._rest.pop(name, None)) is not None:
            raise ValueError(f"config.json: {name} is {value!r}, but {why}")

    def finish(self, without_effect: Set[str]) -> None:
        """Raise ValueError for fields that were not read and could change the logits."""
        rest = {name: value for name, value in self._rest.items() if name not in without_effect}
        if unknown := {name: value for name, value in rest.items() if not is_inert(name, value)}:
            raise ValueError(f"config.json: {could_matter(unknown, self._read)}")

    def _pop(self, name: str, default: Any) -> Any:
        self._read.add(name)
        return self._rest.pop(name, default)


def could_matter(unknown: Mapping[str, Any], known: Set[str]) -> str:
    """Message about unknown fields that could change the logits, with the closest known name if one is close."""
    options = " ".join(f"--ignore {name}" for name in sorted(unknown))
    return f"{_named(unknown, known)} could change the logits: import with {options} if not"


def unknown_settings(given: Mapping[str, Any], known: Set[str]) -> str:
    """Message about fields that our own configuration does not have."""
    return f"{_named(given, known)}: remove {'it' if len(given) == 1 else 'them'}"


def _named(given: Mapping[str, Any], known: Set[str]) -> str:
    names = sorted(given)
    shown = ", ".join(f"{name} = {_short(given[name])}" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    near = get_close_matches(names[0], sorted(known), n=1, cutoff=0.75)
    meant = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown field{'s' * (len(names) > 1)} {shown}{more}{meant}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def spelled(table: Mapping[str, Value], value: Value) -> str:
    """The family's word for `value`, or its first word if it has none: reading it back then shows the difference."""
    return next((word for word, meant in table.items() if meant == value), next(iter(table)))
