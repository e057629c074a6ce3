"""Short excerpts of what each rule drops, from the masked texts: the personal data in them is not known here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from data.card.decisions import Example
from data.card.folder import Folder, rows
from data.evidence import read_places

EXCERPT_CHARACTERS = 260


@dataclass(frozen=True)
class Excerpt:
    """An example with the beginning of its text; empty where the folder holds no texts."""

    example: Example
    text: str


def excerpts(folder: Folder, examples: Mapping[str, Iterable[Example]]) -> dict[str, list[Excerpt]]:
    """The examples of each rule with their texts, which are read for these documents alone."""
    listed = {rule: list(found) for rule, found in examples.items()}
    texts = _texts(folder, sorted({example.id for found in listed.values() for example in found}))
    return {rule: [Excerpt(each, texts.get(each.id, "")) for each in found] for rule, found in listed.items()}


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


def _texts(folder: Folder, ids: list[str]) -> dict[str, str]:
    """Beginnings of texts by id. Of the other documents' texts those of the same row groups are read."""
    wanted = set(ids)
    found: dict[str, str] = {}
    for path in folder.scores:
        names = (name for batch in rows(path, ["id"]) for name in batch.column(0).to_pylist())
        places = [place for place, name in enumerate(names) if name in wanted]
        for row in read_places(path, places, ["id", "text"]):
            found.setdefault(row["id"], excerpt(row["text"] or ""))
    return found
