"""Short excerpts of what each rule drops, from the masked texts: the personal data in them is not known here."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sluice.data.card.decisions import Example
from sluice.data.card.folder import Folder, columns_of, rows
from sluice.data.card.shared import Part, shared_parts
from sluice.data.config import ContaminationSign
from sluice.data.decontamination.policy import actionable
from sluice.data.decontamination.spans import Span
from sluice.data.refining.tables import read_rows

EXCERPT_CHARACTERS = 260


@dataclass(frozen=True)
class Excerpt:
    """An example with what it shares with an evaluation set, if that is why, or else the beginning of its text; empty
    where the folder holds no texts."""

    example: Example
    parts: list[Part]


def excerpts(folder: Folder, examples: Mapping[str, Iterable[Example]]) -> dict[str, list[Excerpt]]:
    """The examples of each rule with their texts, which are read for these documents alone."""
    listed = {rule: list(found) for rule, found in examples.items()}
    texts = _texts(folder, sorted({example.id for found in listed.values() for example in found}))
    sign: ContaminationSign = folder.thresholds.get("contamination_sign", "longest")
    return {
        rule: [Excerpt(each, _parts(texts.get(each.id, {}), rule, sign)) for each in found]
        for rule, found in listed.items()
    }


def excerpt(text: str, characters: int = EXCERPT_CHARACTERS) -> str:
    """The beginning of a text, cut between words, blank lines closed up."""
    # A bounded prefix first: a document may be long, and only its beginning is shown.
    lines = [line.rstrip() for line in text[: 8 * characters].splitlines()]
    start = "\n".join(line for line in lines if line)
    if len(start) <= characters:
        return start if len(text) <= 8 * characters else f"{start} …"
    cut = start[:characters]
    space = max(cut.rfind(" "), cut.rfind("\n"))
    return f"{cut[:space] if space > characters // 2 else cut} …"


def _parts(row: Mapping[str, Any], rule: str, sign: ContaminationSign) -> list[Part]:
    text = row.get("text") or ""
    spans = [Span(**each) for each in json.loads(row.get("contamination") or "[]")] if rule == "contaminated" else []
    if text and (shared := actionable(spans, sign)):
        return shared_parts(text, shared)
    return [Part(excerpt(text))] if text else []


def _texts(folder: Folder, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Texts and shared spans by id. Of the other documents' texts those of the same row groups are read."""
    wanted = set(ids)
    found: dict[str, dict[str, Any]] = {}
    for path in folder.scores:
        names = (name for batch in rows(path, ["id"]) for name in batch.column(0).to_pylist())
        places = [place for place, name in enumerate(names) if name in wanted]
        # An older run's parts say nothing of evaluation sets.
        columns = [name for name in columns_of(path) if name in ("id", "text", "contamination")]
        for row in read_rows(path, places, columns):
            found.setdefault(row["id"], row)
    return found
