"""Equality with a right answer, to the character or by words; and a right answer as whole words inside the answer."""

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer
from sluice.model.evaluation.suites.words import content_words, plain, words


def exact(answer: str, sample: SuiteSample) -> float:
    """Return 1 where the answer is a target but for white space and the width of its characters."""
    return float(plain(answer) in map(plain, sample.targets))


def quasi_exact(answer: str, sample: SuiteSample) -> float:
    """Return 1 where the answer has the words of a target, whatever their case, punctuation and articles.

    An answer or target without a word, such as `?`, is compared to the character.
    """
    found = content_words(answer)
    return float(
        any(found == content_words(target) if found else plain(answer) == plain(target) for target in sample.targets)
    )


def contains(answer: str, sample: SuiteSample) -> float:
    """Return 1 where a target's words stand together in the answer, whatever their case and punctuation."""
    return float(any(_stand_in(words(target), words(answer)) for target in sample.targets))


def _stand_in(wanted: list[str], found: list[str]) -> bool:
    last = len(found) - len(wanted)
    return bool(wanted) and any(found[start : start + len(wanted)] == wanted for start in range(last + 1))


SCORERS = (
    Scorer("exact", "text", exact),
    Scorer("quasi_exact", "text", quasi_exact),
    Scorer("contains", "text", contains),
)
