"""The base class of all settings blocks."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Block(BaseModel):
    """A block of params.yaml. An unknown key is an error, and a validated block does not change."""

    # NaN and infinity have no place in JSON, and no threshold means them: null is off.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any) -> Any:
        """`true` counts as 1 in Python, and nobody who writes it means 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if (
                isinstance(value, bool)
                and name in cls.model_fields
                and not _takes_truth(cls.model_fields[name].annotation)
            ):
                raise ValueError(f"{name} {str(value).lower()} is no number: give one, or null where it may be off")
        return values

    def shown(self) -> dict[str, Any]:
        """The settings as they may be written into reports: plain values, and no secrets."""
        return self.model_dump(mode="json")


def _takes_truth(annotation: Any) -> bool:
    """Whether true and false are among a field's values."""
    return annotation in (bool, Any) or any(each is bool or isinstance(each, bool) for each in _flat(annotation))


def _flat(annotation: Any) -> Iterator[Any]:
    for each in get_args(annotation):
        yield each
        yield from _flat(each)
