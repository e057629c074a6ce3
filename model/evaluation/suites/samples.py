"""A sample of a suite: the fields of one line of its JSONL, with the right answers, choices, cluster and metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One sample. What a scorer reads of it is `targets`, `choices`, `key` and `tolerance`."""

    id: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The line's own fields, which the prompt's template may name."""
    targets: tuple[str, ...] = ()
    """Right answers; one of them suffices."""
    choices: tuple[str, ...] = ()
    key: int = -1
    """Index of the right choice."""
    cluster: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    tolerance: float = 0.0
    """Relative difference that a number may have from its target."""
