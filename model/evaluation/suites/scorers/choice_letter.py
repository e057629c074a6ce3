"""Multiple choice by text: the letter that a generated answer names, for models that only generate."""

import re

from sluice.model.evaluation.suites.samples import SuiteSample
from sluice.model.evaluation.suites.scorer import Scorer
from sluice.model.evaluation.suites.words import plain, words

_STATED = re.compile(r"(?i:\b(?:answer|choice|option)(?:\s+is)?\s*:?\s*)[(\[*]*([A-Z])\b(?!['’])")
_MARKED = re.compile(r"[(\[*]+([A-Z])[)\]*]+")
_FIRST = re.compile(r"[(\[*]*([A-Z])[)\]*]*(?:[.:,]|$)")


def named_choice(answer: str, choices: tuple[str, ...]) -> int | None:
    """Return the index of the choice that `answer` names, by letter or by its whole text; None if it names none or
    several.

    A letter counts where it is said to be the answer, stands in brackets or begins the answer, because `A` and `I` are
    words. What is said to be the answer outranks what is only mentioned.
    """
    text = plain(answer)
    begins = _FIRST.match(text)
    for letters in (_STATED.findall(text), begins.groups() if begins else (), _MARKED.findall(text)):
        named = {ord(letter) - ord("A") for letter in letters} & set(range(len(choices)))
        if letters:
            return named.pop() if len(named) == 1 else None
    said = words(answer)
    spelled = [index for index, choice in enumerate(choices) if said and words(choice) == said]
    return spelled[0] if len(spelled) == 1 else None


def choice_letter(answer: str, sample: SuiteSample) -> float:
    """Return 1 where the answer names the key."""
    return float(named_choice(answer, sample.choices) == sample.key)


SCORERS = (Scorer("choice_letter", "text", choice_letter, needs="choices"),)
