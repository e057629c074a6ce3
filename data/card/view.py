"""The content of the card: figures, tables and charts of a refined folder, ready for the template."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.data.card.attachments import Attachment, read_attachment
from sluice.data.card.decisions import Observed, observe
from sluice.data.card.examples import Excerpt, excerpts
from sluice.data.card.folder import RefinedFolder
from sluice.data.card.funnel import funnel, group_of, ordered_drops
from sluice.data.card.licences import Licences, amount_of, shown
from sluice.data.card.numbers import count, label, share, size
from sluice.data.card.overlaps import OverlapRow, overlap_rows
from sluice.data.card.passes import Passed, RulePasses, rule_passes
from sluice.data.card.plots import (
    amount_bars,
    bound_text,
    group_bars,
    language_bars,
    length_histogram,
    score_charts,
    similarity_histogram,
)
from sluice.data.report import IngestReport, RefineReport, Tally

_COLUMNS = 5
"""Sources or languages in the table of pass rates."""


@dataclass(frozen=True)
class SourceRow:
    """Counts of one source."""

    name: str
    licences: frozenset[str]
    """Licences of its documents."""
    bytes_read: int | None
    """UTF-8 bytes of text, markup included; None where not known."""
    documents_in: int
    bytes_in: int
    """UTF-8 bytes of extracted text."""
    joined_lines: int
    """Lines of hard-wrapped plain text that were joined."""
    page_words: int
    words_left_out: int
    """Words of web pages, and those of them beside the main content."""
    documents_kept: int
    bytes_kept: int

    @property
    def licence(self) -> str:
        return shown(self.licences)


@dataclass(frozen=True)
class DropRow:
    """Counts of what one rule dropped."""

    rule: str
    group: str
    documents: int
    size_bytes: int


@dataclass(frozen=True)
class HeatRow:
    """Pass rates of a rule: of all documents, then of each column."""

    rule: str
    bound: str
    rates: list[Passed]


@dataclass(frozen=True)
class Heat:
    """Pass rates of the rules that some document breaks, by source or language."""

    title: str
    columns: list[str]
    rows: list[HeatRow]


@dataclass(frozen=True)
class Card:
    """Everything that the page shows."""

    content_sha256: str
    report: RefineReport
    summary: str
    figures: list[tuple[str, str, str]]
    """Name, figure, note."""
    funnel: str
    sources: list[SourceRow]
    drops: list[DropRow]
    rejects: str
    heats: list[Heat]
    unbroken: list[str]
    """Rules in force that every document passed."""
    histograms: list[tuple[str, str, str]]
    """Title, note, chart."""
    examples: dict[str, list[Excerpt]]
    languages: str
    lengths: str
    similarity: str
    groups: str
    contamination: str
    overlaps: list[OverlapRow]
    masked: str
    settings: list[tuple[str, str]]
    tokenizer: Attachment | None
    packed: Attachment | None


def make_card(folder: RefinedFolder, tokenizer: Path | None, packed: Path | None) -> Card:
    """Read the evidence and draw the charts, as SVG, or empty where there is nothing to draw."""
    report, observed, passes = folder.report, observe(folder), rule_passes(folder)
    sources = _sources(folder, observed)
    licences = Licences.of([row.licences for row in sources])
    drops = ordered_drops(report.dropped)
    rejects = folder.ingested.rejects if folder.ingested else {}
    return Card(
        content_sha256=folder.content_sha256,
        report=report,
        summary=f"{count(report.documents_kept)} documents, {size(report.bytes_kept)} of clean text from "
        f"{licences.summary}.",
        figures=_figures(report, folder.ingested, licences),
        funnel=funnel(report),
        sources=sources,
        drops=[DropRow(rule, group_of(rule), n, report.dropped_bytes.get(rule, 0)) for rule, n in drops],
        rejects=amount_bars(rejects, "Rejects", "Files and lines not read, by reason", "soft"),
        heats=_heats([each for each in passes if not _is_unbroken(each)], report),
        unbroken=[label(each.rule.reason) for each in passes if _is_unbroken(each)],
        histograms=score_charts(passes),
        examples=excerpts(folder, {rule: observed.examples.get(rule, []) for rule, _ in drops}),
        languages=language_bars(report),
        lengths=length_histogram(observed),
        similarity=similarity_histogram(observed, folder.thresholds.get("min_jaccard")),
        groups=group_bars(observed),
        contamination=amount_bars(report.contaminated, "Evaluation sets", "Documents that share text", "contaminated"),
        overlaps=overlap_rows(report, folder.thresholds.get("contamination_ngrams") or ()),
        masked=amount_bars(report.masked, "Personal data", "Values replaced by a placeholder, by kind", "masked"),
        settings=sorted(_flat(folder.parameters).items()),
        tokenizer=read_attachment(tokenizer, ("report.json",)) if tokenizer else None,
        packed=read_attachment(packed, ("index.json", "report.json")) if packed else None,
    )


def _figures(report: RefineReport, ingested: IngestReport | None, licences: Licences) -> list[tuple[str, str, str]]:
    groups = {"duplicate": 0, "quality": 0, "contaminated": 0}
    for rule, amount in report.dropped.items():
        groups[group_of(rule)] += amount
    cut = [amount_of(report.pieces_removed, "piece"), amount_of(report.substrings_cut, "run")]
    came = f"{size(ingested.bytes)} of text read" if ingested else f"{size(report.bytes_in)} of extracted text"
    whole = report.documents_in
    return [
        ("Documents read", count(whole), f"{came} from {amount_of(licences.sources, 'source')}"),
        ("Documents kept", count(report.documents_kept), f"{share(report.documents_kept, whole)} of those read"),
        ("Clean text", size(report.bytes_kept), f"{share(report.bytes_kept, report.bytes_in)} of the extracted text"),
        (
            "Licences known",
            count(licences.known),
            licences.unknown if licences.unknown_sources else "kept with every document",
        ),
        ("Below quality", count(groups["quality"]), share(groups["quality"], whole)),
        ("Duplicates", count(groups["duplicate"]), f"{cut[0]} and {cut[1]} cut out besides"),
        ("Contaminated", count(sum(report.contaminated.values())), "documents with text of an evaluation set"),
        ("Values masked", count(sum(report.masked.values())), "personal data and secrets"),
    ]


def _sources(folder: RefinedFolder, observed: Observed) -> list[SourceRow]:
    """List the sources by bytes kept, including those of which everything was rejected."""
    read = folder.ingested.sources if folder.ingested else {}
    found = []
    for name in sorted({*folder.report.by_source, *read}):
        licences = observed.licences.get(name) or ({read[name].licence} if name in read else ())
        tally = folder.report.by_source.get(name) or Tally(documents_in=read[name].documents)
        found.append(
            SourceRow(
                name=name,
                licences=frozenset(licences),
                bytes_read=read[name].bytes if name in read else None,
                documents_in=tally.documents_in,
                bytes_in=tally.bytes_in,
                joined_lines=tally.joined_lines,
                page_words=tally.page_words,
                words_left_out=tally.words_left_out,
                documents_kept=tally.documents_kept,
                bytes_kept=tally.bytes_kept,
            )
        )
    return sorted(found, key=lambda row: (-row.bytes_kept, row.name))


def _heats(passes: list[RulePasses], report: RefineReport) -> list[Heat]:
    """Make a table by source and one by language, of the largest of each; none without a rule."""
    heats = []
    for tallies, kind in ((report.by_source, "by_source"), (report.by_language, "by_language")):
        names = sorted(tallies, key=lambda name: (-tallies[name].documents_in, name))[:_COLUMNS]
        lines = []
        for each in passes:
            groups: Mapping[str, Passed] = getattr(each, kind)
            cells = [groups.get(name, Passed()) for name in names]
            lines.append(HeatRow(each.rule.reason, bound_text(each), [each.total, *cells]))
        if lines and names:
            heats.append(Heat(label(kind).capitalize(), names, lines))
    return heats


def _is_unbroken(each: RulePasses) -> bool:
    return each.total.passed == each.total.documents


def _flat(parameters: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Format the settings by dotted key."""
    found: dict[str, str] = {}
    for key, value in parameters.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = "off" if value is None else str(value)
    return found
