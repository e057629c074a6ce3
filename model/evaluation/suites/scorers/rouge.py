"""ROUGE-L: F1 of the longest common subsequence of words (Lin, 2004).

As rouge-score computes it for English; that package splits text at everything beyond a-z and 0-9, so that Chinese or
accented words would be empty, and takes seconds to import.
"""

from collections.abc import Sequence

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer
from sluice.model.evaluation.suites.words import words


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence."""
    best = [0] * (len(second) + 1)
    for each in first:
        diagonal = 0
        for index, other in enumerate(second, start=1):
            above = best[index]
            best[index] = diagonal + 1 if each == other else max(above, best[index - 1])
            diagonal = above
    return best[-1]


def rouge_l(answer: str, sample: SuiteSample) -> float:
    """Return the ROUGE-L F1 with the nearest target; 0 where answer or target has no word."""
    ours = words(answer)
    scores = [0.0]
    for target in sample.targets:
        theirs = words(target)
        if ours and theirs:
            scores.append(2 * common_length(ours, theirs) / (len(ours) + len(theirs)))
    return max(scores)


SCORERS = (Scorer("rouge_l", "text", rouge_l),)
