"""The base class of all settings blocks."""

from collections.abc import Iterator
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, model_validator


class Block(BaseModel):
    """A block of params.yaml. An unknown key is an error, and a validated block does not change."""

    # No threshold means NaN or infinity, and JSON has neither: null turns a threshold off.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    block_name: ClassVar[str]
    """Key of the block in params.yaml; a block inside another one has none."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_bool_for_number(cls, values: Any) -> Any:
        """`true` counts as 1 in Python, and nobody who writes it means 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields:
                members = annotation_members(cls.model_fields[name].annotation)
                if not any(each in (bool, Any) or isinstance(each, bool) for each in members):
                    raise ValueError(f"{name} {str(value).lower()} is no number: give one, or null where it may be off")
        return values

    def shown(self) -> dict[str, Any]:
        """The settings as they may be written into reports: plain values, and no secrets."""
        return self.model_dump(mode="json")


def annotation_members(annotation: Any) -> Iterator[Any]:
    """An annotation and all that it is composed of, at any depth."""
    yield annotation
    for each in get_args(annotation):
        yield from annotation_members(each)
