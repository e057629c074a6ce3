"""The text to measure on: real documentation, and more of it made from its paragraphs."""

import json
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from itertools import count, islice
from pathlib import Path

from benchmarks.data.clock import utf8_bytes
from sluice.data.config import IngestConfig
from sluice.data.document import Document, read_documents
from sluice.data.extraction.extract import extract
from sluice.data.sources.ingest import ingest

_REPLACED_EVERY = 12
"""Words: with one of 12 changed, no line of 12 and no run of 64 words stands as it did in another pass."""
PACK_BYTES = 5_000_000
"""Bytes of the paragraphs of one pass: even the smallest size compared consists of whole passes."""
_WORD = re.compile(r"\w+")
_DOCUMENTS_A_FILE = 1000
_PAGE = "<!doctype html><html><head><title>{title}</title></head><body><nav>Home</nav><main>{body}</main></body></html>"
NEAR_EVERY, EXACT_EVERY = 50, 100
"""Every so many-th document is an earlier one without a paragraph, or exactly an earlier one."""


def documentation(config: IngestConfig, cache: Path) -> tuple[list[Document], str]:
    """The raw documents of the pinned packages, and what they are; without an index, of the installed packages."""
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
        report = ingest(config, Path(folder), cache=cache)
        documents = list(read_documents(Path(folder)))
    kind = "the packages installed here" if report.fallback_reason else f"{len(report.sources)} pinned packages"
    return documents, kind


def extracted(documents: Sequence[Document]) -> list[str]:
    return [extract(document.text, document.metadata["markup"]) for document in documents]


def sample(texts: Sequence[str], size_bytes: int) -> list[str]:
    """Texts from all over, about `size_bytes` of UTF-8 in all."""
    shuffled = sorted(texts)
    random.Random(0).shuffle(shuffled)
    chosen, size = [], 0
    for text in shuffled:
        if size >= size_bytes:
            break
        chosen.append(text)
        size += len(text.encode())
    return chosen


def by_markup(raw: Sequence[Document], size_bytes: int) -> dict[str, list[str]]:
    """About `size_bytes` of each: reStructuredText of `raw` and the same read as plain text; Markdown of the long
    descriptions of the installed packages, and web pages made from those.
    """
    from markdown_it import MarkdownIt

    found = set()
    for each in distributions():
        text = str(each.metadata.json.get("description") or "")
        if text.strip() and "markdown" in str(each.metadata.json.get("description_content_type") or ""):
            found.add(text)
    rst = sample([document.text for document in raw if document.metadata["markup"] == "rst"], size_bytes)
    markdown = sample(sorted(found), size_bytes)
    renderer = MarkdownIt()
    pages = [_PAGE.format(title="description", body=renderer.render(text)) for text in markdown]
    return {"rst": rst, "md": markdown, "html": pages, "txt": rst}


def write_files(documents: Sequence[Document], folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, document in enumerate(documents):
        (folder / f"{number:05d}.{document.metadata['markup']}").write_text(document.text, encoding="utf-8")


def recombined(texts: Sequence[str], pack_bytes: int = PACK_BYTES) -> Iterator[str]:
    """Documents without end, as long as the real ones are, of their paragraphs in another order; always the same.

    The paragraphs are dealt like a pack of cards that is shuffled when it is used up. In each pass one word of twelve
    is another one, the same one in paragraphs that are equal: so what repeats in the real text repeats within a pass,
    and nothing does across passes. The tenth pass is as hard as the first, and documents of any size are of one kind.
    """
    generator = random.Random(0)
    divided = [text.strip("\n").split("\n\n") for text in sample(texts, pack_bytes)]
    lengths = [len(paragraphs) for paragraphs in divided]
    pack = [paragraph for paragraphs in divided for paragraph in paragraphs]
    vocabulary = [word for paragraph in pack for word in _WORD.findall(paragraph)]
    dealt, dealt_lengths = _deal(pack, vocabulary, generator), _deal_lengths(lengths, random.Random(1))
    number, last = 0, ["", ""]
    while True:
        number += 1
        if number % EXACT_EVERY == 0:
            paragraphs = last
        elif number % NEAR_EVERY == 0:
            paragraphs = [*last[: len(last) // 2], *last[len(last) // 2 + 1 :]]
        else:
            paragraphs = last = list(islice(dealt, next(dealt_lengths)))
        yield "\n\n".join(paragraphs) + "\n"


def _deal(pack: list[str], vocabulary: list[str], generator: random.Random) -> Iterator[str]:
    for number in count():
        generator.shuffle(pack)
        for paragraph in pack:
            yield _edited(paragraph, vocabulary, random.Random(f"{number} {paragraph}"))


def _deal_lengths(lengths: list[int], generator: random.Random) -> Iterator[int]:
    """Each length once a pass: drawn one by one, few documents would be longer or shorter than many are."""
    pack = list(lengths)
    while True:
        generator.shuffle(pack)
        yield from pack


def _edited(paragraph: str, vocabulary: list[str], generator: random.Random) -> str:
    """The paragraph with one word of twelve replaced, from one of the first twelve on, in code as in prose."""
    words = list(_WORD.finditer(paragraph))
    start = int(generator.random() * min(_REPLACED_EVERY, len(words)))
    parts, place = [], 0
    for word in words[start::_REPLACED_EVERY]:
        parts += [paragraph[place : word.start()], vocabulary[int(generator.random() * len(vocabulary))]]
        place = word.end()
    return "".join([*parts, paragraph[place:]])


def write_recombined(texts: Sequence[str], size_bytes: int, folder: Path) -> int:
    """JSONL files in `folder` with at least `size_bytes` of UTF-8 text; the bytes it came to."""
    folder.mkdir(parents=True)
    documents, written, number = recombined(texts), 0, 0
    while written < size_bytes:
        with (folder / f"{number:04d}.jsonl").open("w", encoding="utf-8") as file:
            for text in islice(documents, _DOCUMENTS_A_FILE):
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
                written += utf8_bytes([text])
                if written >= size_bytes:
                    break
        number += 1
    return written
