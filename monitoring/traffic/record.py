"""The traffic record: one row per request, and how each of its columns is stored and tested for drift.

Standard library only: the gateway imports this.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_type_hints


@dataclass(frozen=True)
class Column:
    """Storage and drift test of one field of the record."""

    parquet: Literal["string", "double", "int32", "int16", "list<float>"] = "string"
    drift: Literal["numeric", "categorical", "embedding"] | None = None
    """Test that the monitor makes between the column's reference and its current values."""
    min_tokens: int = 0
    """Answers of fewer tokens rightly have no value here."""


TEXT = Column()
NUMBER = Column("double")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficRecord:
    """Facts about one request.

    A number that does not exist is None: the first token of a request that failed before it, per_token_ms of a
    one-token answer. Status and completion_tokens tell where it must exist; there, one missing or NaN is a finding.
    `sluice.monitoring.traffic.classify` tells which records judge the version.
    """

    request_id: Annotated[str, TEXT]
    time: Annotated[float, NUMBER]
    """Epoch seconds at which the request arrived."""
    version: Annotated[str, TEXT]
    """Model version that answered."""
    arm: Annotated[Literal["champion", "challenger"], TEXT]
    queue_ms: Annotated[float | None, NUMBER] = None
    first_token_ms: Annotated[float | None, Column("double", drift="numeric", min_tokens=1)] = None
    per_token_ms: Annotated[float | None, Column("double", drift="numeric", min_tokens=2)] = None
    """Mean time between tokens after the first."""
    wait_ms: Annotated[float | None, NUMBER] = None
    """Longest time without news of the answer: until its first token, or after it."""
    total_ms: Annotated[float | None, NUMBER] = None
    prompt_tokens: Annotated[int, Column("int32", drift="numeric")] = 0
    completion_tokens: Annotated[int, Column("int32", drift="numeric")] = 0
    finish_reason: Annotated[str, Column(drift="categorical")] = ""
    status: Annotated[int, Column("int16")]
    """HTTP status."""
    error: Annotated[str, TEXT] = ""
    """Short type name of the error, empty when there was none."""
    prompt_text: Annotated[str, TEXT] = ""
    completion_text: Annotated[str, TEXT] = ""
    embedding: Annotated[Sequence[float], Column("list<float>", drift="embedding")] = ()
    """Pooled hidden state of the prompt, [hidden]."""
    mean_log_probability: Annotated[float | None, Column("double", drift="numeric", min_tokens=1)] = None
    """Mean over the answer's tokens, nats."""
    source: Annotated[Literal["live", "replay", "smoke"], TEXT] = "live"
    session: Annotated[str, TEXT] = ""
    """Salted hash of the user or the session that the client named; empty without one."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.version):
            raise ValueError(f"version {self.version!r} must be letters, digits, '_', '-' and '.'; it names a folder")
        if not (math.isfinite(self.time) and self.time >= 0):
            raise ValueError(f"time {self.time} must be epoch seconds")


COLUMNS: dict[str, Column] = {
    name: next(each for each in hint.__metadata__ if isinstance(each, Column))
    for name, hint in get_type_hints(TrafficRecord, include_extras=True).items()
}
"""Columns by name, in the record's order."""


def tested_columns(kind: Literal["numeric", "categorical", "embedding"]) -> list[str]:
    """Return the columns that get this drift test."""
    return [name for name, column in COLUMNS.items() if column.drift == kind]
