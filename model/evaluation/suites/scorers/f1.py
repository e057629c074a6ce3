"""F1 of the words that answer and target share, each as often as in both (SQuAD, arXiv 1606.05250)."""

from collections import Counter

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer
from sluice.model.evaluation.suites.words import content_words, plain


def word_f1(answer: str, target: str) -> float:
    """Return 2PR/(P + R) of the shared words; texts without a word are compared to the character."""
    ours, theirs = content_words(answer), content_words(target)
    if not ours and not theirs:
        return float(plain(answer) == plain(target))
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


def f1(answer: str, sample: SuiteSample) -> float:
    """Return the F1 with the nearest target."""
    return max((word_f1(answer, target) for target in sample.targets), default=0.0)


SCORERS = (Scorer("f1", "text", f1),)
