"""Whether an incident happens again: the answer has what was expected, and not what is forbidden."""

import re

from sluice.data.privacy import KINDS, mask
from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer
from sluice.model.evaluation.suites.words import plain, words

_PLACEHOLDER = re.compile(f"<(?:{'|'.join(KINDS)})>")


def incident(answer: str, sample: SuiteSample) -> float | None:
    """Return 1 where the answer has the sample's `expected` and nothing of its `forbidden`, word by word, in any case.

    An empty answer is 0: silence mends nothing. A placeholder such as <EMAIL> stands for any value of its kind. None
    for a sample that says neither.
    """
    expected, forbidden = sample.fields.get("expected"), sample.fields.get("forbidden")
    if expected is None and forbidden is None:
        return None
    if not answer.strip():
        return 0.0
    return float(
        (expected is None or has_phrase(answer, str(expected)))
        and (forbidden is None or not has_phrase(answer, str(forbidden)))
    )


def has_phrase(text: str, phrase: str) -> bool:
    """Return whether the words of `phrase` follow each other in `text`, so that 11 is not in 711."""
    if _PLACEHOLDER.search(phrase):
        return plain(phrase).casefold() in plain(mask(text)[0]).casefold()
    wanted, found = words(phrase), words(text)
    if not wanted:
        return plain(phrase).casefold() in plain(text).casefold()
    return any(found[start : start + len(wanted)] == wanted for start in range(len(found) - len(wanted) + 1))


SCORERS = (Scorer("incident", "text", incident, needs="nothing"),)
