"""The quality rules: every rule computes a score, and its threshold is applied to the score alone.

In scripts without spaces each letter is a word (sluice.data.writing_systems): `min_words` then counts characters,
repeated n-grams are runs of n characters, and word-length rules do not apply. The stop-word rule does not apply to
languages without a list of stop words. Code is kept whatever languages are wanted, and rules about the form of words do
not apply to it. All other rules apply to every language.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sluice.data.config import CODE, RefineConfig
from sluice.data.quality import c4, fineweb, gopher
from sluice.data.quality.language import identify, is_wanted
from sluice.data.quality.prose import Prose
from sluice.data.quality.rule import QualityRule

if TYPE_CHECKING:
    from sluice.data.quality.classifier import Classifier


_CODE = frozenset({CODE})
LANGUAGE = QualityRule("language", "language", True, "languages")
"""The one rule without a bound: the document's language is one of those to keep, or code."""

RULES = (
    *gopher.FIRST_RULES,
    # Before the rules about words: a document of another language is dropped for that, not for its long words.
    LANGUAGE,
    QualityRule("uncertain_language", "language_probability", True, "min_language_probability", exempt=_CODE),
    *gopher.RULES,
    *c4.RULES,
    *fineweb.RULES,
    QualityRule("low_quality", "quality", True, "min_quality"),
)
"""In order: the first breached rule is the one that drops a document.

To add a rule, compute its score and list it in `gopher`, `c4` or `fineweb`, and add its threshold to RefineConfig.
"""


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
            values, wanted = languages, config.languages or []
            drops = np.fromiter((not is_wanted(language, wanted) for language in languages), np.bool_, len(languages))
        else:
            if rule.score not in columns:
                raise ValueError(
                    f"{rule.setting} is set, but the documents have no score {rule.score}: score the documents again"
                )
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
