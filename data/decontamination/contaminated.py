"""Which items of an evaluation set stand in documents: those of which a document contains the longest n-grams."""

from collections.abc import Iterable, Mapping, Sequence

from sluice.data.decontamination.sets import EvaluationSets, find
from sluice.data.deduplication.words import word_hashes


def contaminated_items(
    items: Mapping[str, Sequence[str]], documents: Iterable[str], ngrams: Sequence[int] = (13, 8)
) -> tuple[set[str], set[str]]:
    """Search `documents` for `items`, given as their strings by name.

    Returns the names of the items that were found, and of those that are too short to be searched for.
    """
    index = EvaluationSets.of_items({name: [strings] for name, strings in items.items()}, ngrams)
    found = {span.set for text in documents for span in find(word_hashes(text), index) if span.is_longest}
    return found, {name for name, ignored in index.ignored.items() if ignored}
