"""Policies for spans shared with evaluation sets: which spans they apply to, and how many there are."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from sluice.data.config import ContaminationPolicy, ContaminationSign, RefineConfig
from sluice.data.decontamination.sets import set_names
from sluice.data.decontamination.spans import SharedSpan
from sluice.data.deduplication.spans import merged
from sluice.data.report import Overlap


def set_policies(config: RefineConfig) -> dict[str, ContaminationPolicy]:
    """Return the policy of each evaluation set by its name."""
    policies = {Path(each.path): each.policy or config.contamination_policy for each in config.evaluation_sets}
    return {name: policies[path] for name, path in set_names(list(policies)).items()}


def actionable(spans: Sequence[SharedSpan], sign: ContaminationSign) -> list[SharedSpan]:
    """Return the spans that policies apply to, disjoint for each set: those of the items' longest n-grams, or any."""
    by_set: dict[str, list[SharedSpan]] = {}
    for span in spans:
        if sign == "any" or span.is_longest:
            by_set.setdefault(span.set, []).append(span)
    return sorted(
        SharedSpan(start, end, name, max(span.ngram for span in of_set if start <= span.first_word < end))
        for name, of_set in by_set.items()
        for start, end in merged([(span.first_word, span.last_word) for span in of_set])
    )


def count_documents(documents: Iterable[Sequence[SharedSpan]], sign: ContaminationSign) -> dict[str, int]:
    """Count by set the documents, given as their spans, that share something with it that policies apply to."""
    counts = Counter(name for spans in documents for name in {span.set for span in actionable(spans, sign)})
    return dict(sorted(counts.items()))


def count_ngrams(documents: Iterable[Sequence[SharedSpan]]) -> dict[str, dict[int, Overlap]]:
    """Count by set and n the documents that share n-grams of n words with it, and their spans."""
    found: dict[str, dict[int, Overlap]] = {}
    for spans in documents:
        covered: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for span in spans:
            covered.setdefault((span.set, span.ngram), []).append((span.first_word, span.last_word))
        for (name, ngram), shared in covered.items():
            counts = found.setdefault(name, {}).setdefault(ngram, Overlap())
            counts.documents += 1
            counts.spans += len(merged(shared))
    return {name: dict(sorted(found[name].items())) for name in sorted(found)}
