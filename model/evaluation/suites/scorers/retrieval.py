"""Retrieval: whether the right source is found, cited, and what of the answer it supports.

The scorers read two fields of a sample: `shown`, the numbered sources of its prompt as {id, text}, and `relevant`, the
ids of those that answer it.
"""

import re
from collections.abc import Collection, Sequence

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer
from sluice.model.evaluation.suites.scorers.rouge import common_length
from sluice.model.evaluation.suites.words import words

_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])[\"')\]]*\s+|(?<=[。！？])|\n+")
_CITATION = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")
_FOUND = 0.8  # of a sentence's words, in their order


def recall_at_k(ranked: Sequence[str], relevant: Collection[str], k: int) -> float | None:
    """Return the share of `relevant` among the first k of `ranked`; None where nothing is relevant."""
    wanted = set(relevant)
    return len(wanted & set(ranked[:k])) / len(wanted) if wanted else None


def reciprocal_rank(ranked: Sequence[str], relevant: Collection[str]) -> float | None:
    """Return 1 / rank of the first relevant source, 0 where none is found; None where nothing is relevant."""
    if not relevant:
        return None
    return next((1 / rank for rank, name in enumerate(ranked, start=1) if name in relevant), 0.0)


def citations(answer: str) -> list[int]:
    """Return the numbers that the answer cites, as in `[1]` or `[1, 3]`, in order and without repetition."""
    found = [int(number) for group in _CITATION.findall(answer) for number in re.findall(r"\d+", group)]
    return list(dict.fromkeys(found))


def cites(answer: str, shown: Sequence[str], relevant: Collection[str]) -> float:
    """Return 1 where the answer cites a relevant source, and none that was not `shown` (numbered from 1)."""
    cited = citations(answer)
    if any(not 1 <= number <= len(shown) for number in cited):
        return 0.0
    return float(any(shown[number - 1] in relevant for number in cited))


def sentences(text: str) -> list[str]:
    """Split a text into its sentences and lines, without citations; those without a word are left out."""
    parts = (_CITATION.sub("", part).strip() for part in _SENTENCE_ENDS.split(text))
    return [part for part in parts if words(part)]


def supported(answer: str, source: str) -> float:
    """Return the share of the answer's sentences of which four fifths of the words stand in the source, in their order.

    0 for an answer without a sentence: what says nothing is not supported.
    """
    theirs = words(source)
    ours = [words(sentence) for sentence in sentences(answer)]
    found = sum(common_length(each, theirs) >= _FOUND * len(each) for each in ours)
    return found / len(ours) if ours else 0.0


def cited_source(answer: str, sample: SuiteSample) -> float | None:
    """Return 1 where the answer cites a relevant source and none that was not shown; None for samples without."""
    if not {"shown", "relevant"} <= sample.fields.keys():
        return None
    return cites(answer, [source["id"] for source in sample.fields["shown"]], sample.fields["relevant"])


def supported_sentences(answer: str, sample: SuiteSample) -> float | None:
    """Return the share of sentences that stand in the sources that the answer cites; 0 for one that cites none."""
    if "shown" not in sample.fields:
        return None
    shown = sample.fields["shown"]
    cited = [shown[number - 1]["text"] for number in citations(answer) if 1 <= number <= len(shown)]
    return supported(answer, "\n\n".join(cited))


SCORERS = (
    Scorer("cited_source", "text", cited_source, needs="nothing"),
    Scorer("supported_sentences", "text", supported_sentences, needs="nothing"),
)
