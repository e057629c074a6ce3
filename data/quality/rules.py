"""The quality rules: every rule computes a score, and its threshold is applied to the score alone.

In scripts without spaces each letter is a word (sluice.data.writing_systems): `min_words` then counts characters,
repeated n-grams are runs of n characters, and word-length rules do not apply. The stop-word rule does not apply to
languages without a list of stop words. All other rules apply to every language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sluice.data.config import RefineConfig
from sluice.data.quality import c4, fineweb, gopher
from sluice.data.quality.language import identify
from sluice.data.quality.prose import Prose
from sluice.data.quality.stopwords import APPLICABLE
from sluice.data.writing_systems import LANGUAGES_WITHOUT_SPACES

if TYPE_CHECKING:
    from sluice.data.quality.classifier import Classifier


@dataclass(frozen=True, slots=True)
class QualityRule:
    """One bound on one score; `reason` is the name under which dropped documents are counted."""

    reason: str
    score: str
    is_minimum: bool
    setting: str | None
    """The field of RefineConfig with the threshold, null turning the rule off; None: the threshold is always 1."""
    languages: frozenset[str] | None = None
    """Languages that the rule applies to; documents of others pass. None: every language."""
    exempt: frozenset[str] = frozenset()
    """Languages that the rule does not apply to."""

    def bound(self, config: RefineConfig) -> float | None:
        return 1 if self.setting is None else getattr(config, self.setting)

    def applies_to(self, languages: Sequence[str]) -> NDArray[np.bool_]:
        """Whether the rule applies to each of these languages, [languages] bool."""
        if self.languages is None and not self.exempt:
            return np.ones(len(languages), np.bool_)
        included = self.languages
        return np.fromiter(
            ((included is None or each in included) and each not in self.exempt for each in languages),
            np.bool_,
            len(languages),
        )


LANGUAGE = QualityRule("language", "language", True, "languages")
"""The one rule without a bound: the document's language is one of those to keep."""

RULES = (
    QualityRule("empty", "characters", True, None),
    QualityRule("control_characters", "control_character_fraction", False, "max_control_character_fraction"),
    QualityRule("too_few_words", "words", True, "min_words"),
    QualityRule("too_many_words", "words", False, "max_words"),
    # Before the rules about words: a document of another language is dropped for that, not for its long words.
    LANGUAGE,
    QualityRule("uncertain_language", "language_probability", True, "min_language_probability"),
    QualityRule("short_words", "mean_word_length", True, "min_mean_word_length", exempt=LANGUAGES_WITHOUT_SPACES),
    QualityRule("long_words", "mean_word_length", False, "max_mean_word_length"),
    QualityRule("symbols", "symbol_word_ratio", False, "max_symbol_word_ratio"),
    QualityRule("bullet_lines", "bullet_line_fraction", False, "max_bullet_line_fraction"),
    QualityRule("ellipsis_lines", "ellipsis_line_fraction", False, "max_ellipsis_line_fraction"),
    QualityRule("few_alphabetic_words", "alphabetic_word_fraction", True, "min_alphabetic_word_fraction"),
    QualityRule("few_stop_words", "stop_words", True, "min_stop_words", APPLICABLE),
    QualityRule("duplicate_lines", "duplicate_line_fraction", False, "max_duplicate_line_fraction"),
    QualityRule("duplicate_paragraphs", "duplicate_paragraph_fraction", False, "max_duplicate_paragraph_fraction"),
    *(
        QualityRule(f"repeated_{n}gram", f"top_{n}gram_fraction", False, f"max_top_{n}gram_fraction")
        for n in gopher.TOP_NGRAMS
    ),
    *(
        QualityRule(f"repeated_{n}gram", f"duplicate_{n}gram_fraction", False, f"max_duplicate_{n}gram_fraction")
        for n in gopher.DUPLICATE_NGRAMS
    ),
    QualityRule("few_sentences", "sentences", True, "min_sentences"),
    QualityRule("curly_brackets", "curly_brackets", False, "max_curly_brackets"),
    QualityRule("placeholder_text", "placeholder_texts", False, "max_placeholder_texts"),
    QualityRule("javascript_lines", "javascript_lines", False, "max_javascript_lines"),
    QualityRule("policy_lines", "policy_lines", False, "max_policy_lines"),
    QualityRule("unpunctuated_lines", "punctuated_line_fraction", True, "min_punctuated_line_fraction"),
    QualityRule("short_lines", "short_line_fraction", False, "max_short_line_fraction"),
    QualityRule("list_of_lines", "newline_word_ratio", False, "max_newline_word_ratio"),
    QualityRule("low_quality", "quality", True, "min_quality"),
)
"""In order: the first breached rule is the one that drops a document."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores and the language of one document."""

    scores: dict[str, float]
    """By name; every value is exactly representable as float32."""
    language: str


def score(text: str, quality: "Classifier | None" = None) -> Scored:
    """Compute every score of one document in the document text contract; `quality` only with a classifier."""
    prose = Prose.of(text)
    language = identify(prose)
    scores = gopher.scores(prose, language.code) | c4.scores(prose) | fineweb.scores(prose)
    scores["language_probability"] = language.probability
    if quality is not None:
        scores["quality"] = quality.score(prose)
    # Scores are stored in 32 bits, and a stored score must be on the same side of every threshold as a new one.
    stored = np.fromiter(scores.values(), np.float32, len(scores)).tolist()
    return Scored(dict(zip(scores, stored, strict=True)), language.code)


@dataclass(frozen=True, slots=True)
class Breaches:
    """The rules that many documents break."""

    alone: dict[str, NDArray[np.bool_]]
    """By reason, for every rule with a threshold: what it would drop as the only rule, [documents] bool."""
    first: list[tuple[str, str] | None]
    """Reason and comparison of the first breached rule of each document, such as ("too_few_words", "words 12 < 40");
    None if it passes.
    """


def breaches(columns: Mapping[str, ArrayLike], languages: Sequence[str], config: RefineConfig) -> Breaches:
    """Apply the rules to many documents; `columns` are the scores, [documents] each.

    A value at its threshold passes; NaN never does. Raises ValueError for a threshold whose score is missing.
    """
    alone: dict[str, NDArray[np.bool_]] = {}
    first: list[tuple[str, str] | None] = [None] * len(languages)
    passing = np.ones(len(languages), np.bool_)
    for rule in RULES:
        bound = rule.bound(config)
        if bound is None:
            continue
        values: Sequence[str] | NDArray[np.float32]
        if rule is LANGUAGE:
            values, kept = languages, set(config.languages or [])
            drops = np.fromiter((language not in kept for language in languages), np.bool_, len(languages))
        else:
            if rule.score not in columns:
                hint = "set quality_model too" if rule.score == "quality" else "score the documents again"
                raise ValueError(f"{rule.setting} is set, but the documents have no score {rule.score}: {hint}")
            values, limit = np.asarray(columns[rule.score], np.float32), np.float32(bound)
            drops = rule.applies_to(languages) & ~(values >= limit if rule.is_minimum else values <= limit)
        alone[rule.reason] = drops
        for document in np.flatnonzero(drops & passing).tolist():
            first[document] = (rule.reason, _comparison(rule, values[document], config))
        passing &= ~drops
    return Breaches(alone, first)


def _comparison(rule: QualityRule, value: float | str, config: RefineConfig) -> str:
    if isinstance(value, str):
        return f"language {value} not in {', '.join(config.languages or [])}"
    bound = rule.bound(config)
    assert bound is not None
    if np.isnan(value):
        return f"{rule.score} nan, {'at least' if rule.is_minimum else 'at most'} {bound:g}"
    # As many digits as it takes to see on which side of the threshold the value lies.
    digits = next((digits for digits in range(4, 9) if f"{value:.{digits}g}" != f"{bound:.{digits}g}"), 9)
    shown = f"{value:.0f}" if float(value).is_integer() else f"{value:.{digits}g}"
    return f"{rule.score} {shown} {'<' if rule.is_minimum else '>'} {bound:.9g}"
