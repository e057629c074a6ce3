"""`python -m benchmarks.data.pages`: word recall and precision of main text extraction on the labelled pages.

`tests/data/pages` has pages of our own making, three of a kind, and beside each its main text as a reader sees it. The
third of each kind is held out: the extractor was developed without it, but for two rules that docs/data.md names.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from benchmarks.markers import markdown, replace_tables
from benchmarks.report import DOCS, down, libraries
from sluice.data.extraction.extract import extract

PAGES = Path(__file__).resolve().parents[2] / "tests/data/pages"
# Letters of scripts without spaces are words of their own.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True)
class LabelledPage:
    name: str
    html: str
    text: str
    """Main text, as a reader sees it."""

    @property
    def kind(self) -> str:
        return self.name.split("-")[0]

    @property
    def held_out(self) -> bool:
        return self.name.endswith("-3")


@dataclass(frozen=True)
class Overlap:
    """Words of the reference, of the extracted text, and in both; each word as often as it occurs."""

    wanted: int = 0
    found: int = 0
    right: int = 0

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(self.wanted + other.wanted, self.found + other.found, self.right + other.right)

    @property
    def recall(self) -> float:
        return self.right / self.wanted if self.wanted else 1.0

    @property
    def precision(self) -> float:
        return self.right / self.found if self.found else 1.0

    @property
    def f1(self) -> float:
        return 2 * self.right / (self.wanted + self.found) if self.wanted + self.found else 1.0


def labelled_pages() -> list[LabelledPage]:
    return [
        LabelledPage(path.stem, path.read_text(encoding="utf-8"), path.with_suffix(".txt").read_text(encoding="utf-8"))
        for path in sorted(PAGES.glob("*.html"))
    ]


def overlap(reference: str, extracted: str) -> Overlap:
    wanted, found = (Counter(_WORD.findall(normalize("NFKC", text))) for text in (reference, extracted))
    return Overlap(wanted.total(), found.total(), (wanted & found).total())


def by_kind(pages: Iterable[LabelledPage], extractor: Callable[[str], str]) -> dict[str, Overlap]:
    """Words of all pages of each kind."""
    counts: dict[str, Overlap] = {}
    for page in pages:
        counts[page.kind] = counts.get(page.kind, Overlap()) + overlap(page.text, extractor(page.html))
    return counts


def total(counts: Mapping[str, Overlap]) -> Overlap:
    return sum(counts.values(), Overlap())


def ours(html: str) -> str:
    return extract(html, "html")


def peers() -> dict[str, Callable[[str], str]]:
    """Extractors as their documentation shows them. ImportError names the one that is not installed."""
    import justext
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    stop_words = frozenset().union(*map(justext.get_stoplist, justext.get_stoplists()))

    def paragraphs(html: str) -> str:
        return "\n".join(each.text for each in justext.justext(html, stop_words) if not each.is_boilerplate)

    return {
        "trafilatura": lambda html: trafilatura.extract(html) or "",
        "trafilatura, favor_recall": lambda html: trafilatura.extract(html, favor_recall=True) or "",
        "resiliparse": lambda html: extract_plain_text(html, main_content=True),
        "justext": paragraphs,
    }


def main() -> None:
    extractors = {"sluice": ours, **peers()}
    parts = {
        "developed on": [page for page in labelled_pages() if not page.held_out],
        "held out": [page for page in labelled_pages() if page.held_out],
    }
    counts = {part: {name: by_kind(pages, each) for name, each in extractors.items()} for part, pages in parts.items()}
    both = {name: {**counts["developed on"][name]} for name in extractors}
    for name, kinds in both.items():
        for kind, held_out in counts["held out"][name].items():
            kinds[kind] += held_out
    rows = [
        *((kind, *(shares(both[name][kind]) for name in extractors)) for kind in both["sluice"]),
        *(
            (f"**{part}, {len(pages)} pages**", *(shares(total(counts[part][name])) for name in extractors))
            for part, pages in parts.items()
        ),
        ("**all**", *(shares(total(both[name])) for name in extractors)),
    ]
    table = markdown("kind | " + " | ".join(f">{name}" for name in extractors), rows)
    print(table)
    replace_tables(DOCS / "data.md", {"pages": f"{table}\n\n{libraries('trafilatura', 'resiliparse', 'justext')}"})


def shares(counts: Overlap) -> str:
    return f"{down(100 * counts.recall, 1):.1f}, {down(100 * counts.precision, 1):.1f}"


if __name__ == "__main__":
    main()
