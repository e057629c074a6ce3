"""Short excerpts of documents that each rule dropped, from the masked texts."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sluice.data.card.decisions import Example
from sluice.data.card.folder import RefinedFolder, columns_of, rows
from sluice.data.card.shared import Part, shared_parts
from sluice.data.config import ContaminationSign
from sluice.data.decontamination.policy import actionable
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.refining.tables import read_rows

EXCERPT_CHARACTERS = 260


@dataclass(frozen=True)
class Excerpt:
    """An example with the text it shares with an evaluation set, if dropped for that, or else its beginning; without
    parts where the folder has no texts."""

    example: Example
    parts: list[Part]


def excerpts(folder: RefinedFolder, examples: Mapping[str, Iterable[Example]]) -> dict[str, list[Excerpt]]:
    """Add excerpts to the examples of each rule, reading the texts of these documents only."""
    listed = {rule: list(found) for rule, found in examples.items()}
    wanted = {example.id for found in listed.values() for example in found}
    texts: dict[str, dict[str, Any]] = {}
    for path in folder.scores:
        names = (name for batch in rows(path, ["id"]) for name in batch.column(0).to_pylist())
        places = [place for place, name in enumerate(names) if name in wanted]
        # Scores of older versions have no column of evaluation sets.
        columns = [name for name in columns_of(path) if name in ("id", "text", "contamination")]
        for row in read_rows(path, places, columns):
            texts.setdefault(row["id"], row)
    sign: ContaminationSign = folder.thresholds.get("contamination_sign", "longest")
    return {
        rule: [Excerpt(each, _parts(texts.get(each.id, {}), rule, sign)) for each in found]
        for rule, found in listed.items()
    }


def excerpt(text: str, characters: int = EXCERPT_CHARACTERS) -> str:
    """Return the beginning of a text, truncated between words, without blank lines."""
    # Split a bounded prefix only: a document may be long.
    lines = [line.rstrip() for line in text[: 8 * characters].splitlines()]
    start = "\n".join(line for line in lines if line)
    if len(start) <= characters:
        return start if len(text) <= 8 * characters else f"{start} …"
    cut = start[:characters]
    space = max(cut.rfind(" "), cut.rfind("\n"))
    return f"{cut[:space] if space > characters // 2 else cut} …"


def _parts(row: Mapping[str, Any], rule: str, sign: ContaminationSign) -> list[Part]:
    text = row.get("text") or ""
    spans = (
        [SharedSpan(**each) for each in json.loads(row.get("contamination") or "[]")] if rule == "contaminated" else []
    )
    if text and (shared := actionable(spans, sign)):
        return shared_parts(text, shared)
    return [Part(excerpt(text))] if text else []
