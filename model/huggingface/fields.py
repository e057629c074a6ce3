"""Fields of a config.json, read one by one, so that fields nobody reads are reported as unknown."""

from collections.abc import Mapping, Set
from difflib import get_close_matches
from typing import Any, TypeVar

Value = TypeVar("Value")

_REQUIRED = object()

WITHOUT_EFFECT = frozenset(
    {
        "_attn_implementation_autoset",
        "_name_or_path",
        "bos_token_id",
        "chunk_size_feed_forward",
        "decoder_start_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "problem_type",
        "return_dict",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"""Fields of any family that do not affect the logits and are ignored."""


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
            raise ValueError(f"config.json: field '{name}' is missing; is model_type right?")
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
        """Raise ValueError for fields that were not read and are not known to have no effect."""
        if unknown := self._rest.keys() - without_effect - WITHOUT_EFFECT:
            given = {name: self._rest[name] for name in unknown}
            raise ValueError(f"config.json: {unknown_fields(given, self._read | without_effect)}")

    def _pop(self, name: str, default: Any) -> Any:
        self._read.add(name)
        return self._rest.pop(name, default)


def unknown_fields(given: Mapping[str, Any], known: Set[str]) -> str:
    """Message about unknown fields: each with its value, and the closest or all known names."""
    names = sorted(given)
    shown = ", ".join(f"{name} = {given[name]!r}" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    several = len(names) > 1
    near = get_close_matches(names[0], sorted(known), n=1, cutoff=0.75)
    advice = f"{names[0]} may mean {near[0]}" if near else f"known are {', '.join(sorted(known))}"
    remove = "remove them if they have no effect" if several else "remove it if it has no effect"
    return f"unknown field{'s' * several} {shown}{more}: {remove}; {advice}"


def spelled(table: Mapping[str, Value], value: Value) -> str:
    """The family's word for `value`, or its first word if it has none: reading it back then shows the difference."""
    return next((word for word, meant in table.items() if meant == value), next(iter(table)))
