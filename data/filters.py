"""Quality and repetition rules as datatrove blocks. Measuring and keeping are apart: bounds can be cut again alone.

Rules follow Gopher (arXiv 2112.11446, appendix A) where it has one. They look at prose only: in technical documentation
a code block is content, and its brackets would fail every rule made for web pages.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter

from data.config import RefineConfig

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})

_WORD = re.compile(r"\w+")
_MARK = re.compile(r"^(?:#{1,6}|-) +", re.MULTILINE)
_LITERAL = re.compile(r"`[^`\n]*`")
_CODE_LINE = re.compile(r"^    .*$", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Signals:
    """What the rules look at, over the prose of one document."""

    characters: int
    """Of the whole document, code included."""
    words: int
    """Whitespace words: punctuation alone is not a word of its own, as a linguistic tokenizer would have it."""
    mean_word_length: float
    symbol_word_ratio: float
    """Hash signs or ellipses, whichever are more, a word."""
    alphabetic_word_fraction: float
    stop_words: int
    """How many different stop words occur."""
    duplicate_line_fraction: float
    duplicate_paragraph_fraction: float
    top_ngram_fraction: float
    """Share of characters inside the most frequent word 2-gram."""
    control_character_fraction: float
    """Over the whole document, code included."""


def measure(text: str) -> Signals:
    """The signals of one document in the document text contract."""
    prose = _MARK.sub("", _CODE_LINE.sub("", text))
    tokens = prose.split()
    words = [word.lower() for word in _WORD.findall(prose)]
    lines = [line for line in prose.split("\n") if line.strip()]
    paragraphs = [part for part in re.split(r"\n{2,}", prose) if part.strip()]
    # In a literal, `...` and `#` are code.
    spoken = _LITERAL.sub("", prose)
    count = max(len(tokens), 1)
    return Signals(
        characters=len(text),
        words=len(tokens),
        mean_word_length=sum(map(len, words)) / max(len(words), 1),
        symbol_word_ratio=max(spoken.count("#"), spoken.count("...") + spoken.count("…")) / count,
        alphabetic_word_fraction=sum(1 for token in tokens if _LETTER.search(token)) / count,
        stop_words=len(STOP_WORDS.intersection(words)),
        duplicate_line_fraction=_duplicate_fraction(lines),
        duplicate_paragraph_fraction=_duplicate_fraction(paragraphs),
        top_ngram_fraction=_top_ngram_fraction(words),
        control_character_fraction=len(_CONTROL.findall(text)) / max(len(text), 1),
    )


def _duplicate_fraction(parts: list[str]) -> float:
    """Share of characters in parts that occurred before. By characters, because reference pages repeat short labels
    ("Returns", "Default: None") on every entry without being boilerplate."""
    total = sum(map(len, parts))
    return 1 - sum(map(len, set(parts))) / total if total else 0.0


def _top_ngram_fraction(words: list[str]) -> float:
    pairs = Counter(pairwise(words))
    if not pairs:
        return 0.0
    (first, second), times = max(pairs.items(), key=lambda entry: (entry[1] * len("".join(entry[0])), entry[0]))
    # A pair seen once is no repetition, however short the document is.
    return times * (len(first) + len(second)) / sum(map(len, words)) if times > 1 else 0.0


class MeasureSignals(PipelineStep):
    """Puts `Signals` into the metadata, once a document, for every filter after it."""

    type = "📐 - SIGNALS"
    name = "measure"

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        for document in data:
            with self.track_time():
                document.metadata["signals"] = asdict(measure(document.text))
            yield document


@dataclass(frozen=True)
class Rule:
    """One bound on one signal; `reason` counts what it drops."""

    reason: str
    signal: str
    is_minimum: bool
    bound: Callable[[RefineConfig], float]

    def breach(self, signals: dict[str, Any], config: RefineConfig) -> str | None:
        """The comparison that fails, such as `words 12 < 40`, or None if the document passes."""
        value, bound = signals[self.signal], self.bound(config)
        if (value < bound) if self.is_minimum else (value > bound):
            return f"{self.signal} {value:.4g} {'<' if self.is_minimum else '>'} {bound:g}"
        return None


RULES = (
    Rule("empty", "characters", True, lambda _: 1),
    Rule("control_characters", "control_character_fraction", False, lambda c: c.max_control_character_fraction),
    Rule("too_few_words", "words", True, lambda c: c.min_words),
    Rule("too_many_words", "words", False, lambda c: c.max_words),
    Rule("short_words", "mean_word_length", True, lambda c: c.min_mean_word_length),
    Rule("long_words", "mean_word_length", False, lambda c: c.max_mean_word_length),
    Rule("symbols", "symbol_word_ratio", False, lambda c: c.max_symbol_word_ratio),
    Rule("few_alphabetic_words", "alphabetic_word_fraction", True, lambda c: c.min_alphabetic_word_fraction),
    Rule("few_stop_words", "stop_words", True, lambda c: c.min_stop_words),
    Rule("duplicate_lines", "duplicate_line_fraction", False, lambda c: c.max_duplicate_line_fraction),
    Rule("duplicate_paragraphs", "duplicate_paragraph_fraction", False, lambda c: c.max_duplicate_paragraph_fraction),
    Rule("repeated_ngram", "top_ngram_fraction", False, lambda c: c.max_top_ngram_fraction),
)


class SignalFilter(BaseFilter):
    """Drops documents whose signal breaches one rule; the exclusion writer keeps them with reason and comparison."""

    def __init__(self, rule: Rule, config: RefineConfig, exclusion_writer: Any = None) -> None:
        super().__init__(exclusion_writer)
        self.rule = rule
        self.config = config
        self.name = rule.reason

    def filter(self, document: Document) -> bool | tuple[bool, str]:
        breach = self.rule.breach(document.metadata["signals"], self.config)
        if breach is None:
            return True
        document.metadata.update(reason=self.rule.reason, comparison=breach)
        return False, self.rule.reason
