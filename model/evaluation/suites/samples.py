"""Samples of a suite: the lines of its JSONL file, checked, with their right answers, choices, cluster and metadata."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LETTERED_CHOICES = "lettered_choices"
"""Name in a prompt's template of the choices as lines `A. text`."""
_LONGEST_METADATA = 200  # characters; what is longer is text and no property to slice by


@dataclass(frozen=True)
class SampleFields:
    """The fields of a suite's samples; None for what its scorers do not need."""

    prompt: tuple[str, ...]
    target: str | None = None
    choices: str | None = None
    key: str = "answer"
    cluster: str | None = None
    metadata: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    """Fields that are lists of ids."""
    texts: tuple[str, ...] = ()
    """Fields that are text, which a scorer reads."""
    tolerance: float = 0.0


@dataclass(frozen=True)
class SuiteSample:
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


def read_samples(path: Path, fields: SampleFields) -> tuple[SuiteSample, ...]:
    """Read a JSONL file. ValueError naming file, line and reason for a line that cannot be used, and for no line."""
    samples: list[SuiteSample] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            sample = to_sample(_row(line, is_first=number == 1), fields)
            if sample.id in lines_of:
                raise ValueError(f"id {sample.id!r} is also in line {lines_of[sample.id]}: ids are unique")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        lines_of[sample.id] = number
        samples.append(sample)
    if not samples:
        raise ValueError(f"{path} has no samples: write one JSON object a line")
    return tuple(samples)


def to_sample(row: Mapping[str, Any], fields: SampleFields) -> SuiteSample:
    """Check a row and return its sample. ValueError with the reason, which names no file and line."""
    required = ["id", *fields.prompt, *fields.metadata, *fields.ids, *fields.texts]
    required += [name for name in (fields.target, fields.choices, fields.cluster) if name is not None]
    required += [fields.key] if fields.choices is not None else []
    for name in required:
        if name not in row or row[name] is None:
            raise ValueError(f"has no {name}: every sample of this suite has {', '.join(dict.fromkeys(required))}")
    for name in fields.prompt:
        if not _is_scalar(row[name]):
            raise ValueError(f"{name} is in the prompt, and no text or number")
    for name in fields.texts:
        if not isinstance(row[name], str):
            raise ValueError(f"{name} is {json.dumps(row[name])[:60]}: give a text, which the suite's scorer reads")
    for name in fields.ids:
        if not isinstance(row[name], list) or not row[name] or not all(isinstance(each, str) for each in row[name]):
            raise ValueError(f"{name} is {json.dumps(row[name])[:60]}: give a list of ids")
    if not _is_scalar(row["id"]) or not str(row["id"]).strip():
        raise ValueError(f"id {row['id']!r} is no text or number")
    choices, key = tuple[str, ...](), -1
    if fields.choices is not None:
        choices, key = _choices(row[fields.choices], row[fields.key], fields)
    used = {"id", *fields.prompt, fields.target, fields.choices, fields.key, fields.cluster}
    kept = {
        name: text
        for name, value in row.items()
        if (name in fields.metadata or name not in used)
        and _is_scalar(value)
        and len(text := str(value)) <= _LONGEST_METADATA
    }
    for name in fields.metadata:
        if name not in kept:
            raise ValueError(
                f"{name} is no property to slice by: give a text of at most {_LONGEST_METADATA} characters"
            )
    return SuiteSample(
        id=str(row["id"]),
        fields=dict(row),
        targets=_targets(row[fields.target], fields.target) if fields.target is not None else (),
        choices=choices,
        key=key,
        cluster=str(row[fields.cluster]) if fields.cluster is not None else "",
        metadata=dict(sorted(kept.items())),
        tolerance=fields.tolerance,
    )


def _row(line: bytes, *, is_first: bool) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    try:
        row = json.loads(line.decode("utf-8-sig" if is_first else "utf-8"), parse_constant=refuse)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg}, column {error.colno})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    from sluice.data.document import encodes  # reads documents, which the gate's decision does not

    if not encodes(json.dumps(row, ensure_ascii=False)):
        raise ValueError("half of a surrogate pair, which is no character")
    return row


def _targets(value: Any, name: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(map(_is_scalar, values)):
        raise ValueError(f"{name} is {json.dumps(value)[:60]}: give a text, a number, or a list of them")
    return tuple(map(_written, values))


def _choices(value: Any, key: Any, fields: SampleFields) -> tuple[tuple[str, ...], int]:
    """Return the choices and the index of the key."""
    named = value if isinstance(value, dict) else {}
    texts = list(named.values()) if named else value
    if not isinstance(texts, list) or len(texts) < 2 or not all(map(_is_scalar, texts)):
        raise ValueError(f"{fields.choices} is {json.dumps(value)[:60]}: give a list of at least two texts")
    choices = tuple(map(_written, texts))
    if len(set(choices)) < len(choices) or not all(choices):
        raise ValueError(f"{fields.choices} holds a text twice, or an empty one: none of them could be right")
    letters = [chr(ord("A") + place) for place in range(len(choices))]
    labels = list(named) if named else letters
    if isinstance(key, str) and key in labels:
        return choices, labels.index(key)
    if isinstance(key, int) and not isinstance(key, bool) and not named and 0 <= key < len(choices):
        return choices, key
    allowed = ", ".join(labels) if named else f"0 to {len(choices) - 1}, or {letters[0]} to {letters[-1]}"
    raise ValueError(f"{fields.key} {json.dumps(key)[:60]} is outside the choices: use {allowed}")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _written(value: str | float) -> str:
    return value if isinstance(value, str) else json.dumps(value)
