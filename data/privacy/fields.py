"""Mask metadata: the fields of a row beside its text."""

from collections.abc import Collection
from typing import Any

from sluice.data.privacy.mask import mask

_SHORTEST_NUMBER = 1_000_000
"""A smaller number has fewer digits than a phone number."""


def mask_field(name: str, value: Any, kinds: Collection[str] | None) -> Any:
    """Return the value of a field with placeholders for personal data; a number that is any becomes its placeholder.

    The name is read with the value, because a phone number or password is recognized by the word before it. Lists and
    objects are masked value by value.
    """
    match value:
        case str():
            return _masked(name, value, value, kinds)
        case int() if abs(value) >= _SHORTEST_NUMBER:
            return _masked(name, str(value), value, kinds)
        case list():
            return [mask_field(name, each, kinds) for each in value]
        case dict():
            return {inner: mask_field(inner, each, kinds) for inner, each in value.items()}
    return value


def _masked(name: str, text: str, value: Any, kinds: Collection[str] | None) -> Any:
    lead = f"{name}: "
    found, counts = mask(lead + text, kinds)
    if not any(counts.values()):
        return value
    return found.removeprefix(lead) if found.startswith(lead) else mask(text, kinds)[0]
