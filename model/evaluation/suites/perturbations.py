"""Perturbed prompts: what they ask is the same, so a robust model answers the same."""

import random
import re
from collections.abc import Callable, Sequence

from sluice.model.evaluation.suites.words import words

_TYPO_RATE = 0.1  # of the words that may have one
_WORD = re.compile(r"[^\W\d_]{4,}")


def typos(text: str, seed: str) -> str:
    """Swap two neighbouring inner letters in a tenth of the words of four letters or more, at least in one."""
    draw = random.Random(seed)
    places = [match.span() for match in _WORD.finditer(text) if len(set(text[match.start() + 1 : match.end() - 1])) > 1]
    letters = list(text)
    for start, end in draw.sample(places, max(1, round(_TYPO_RATE * len(places)))) if places else ():
        inner = [at for at in range(start + 1, end - 2) if letters[at] != letters[at + 1]]
        at = draw.choice(inner)
        letters[at : at + 2] = letters[at + 1], letters[at]
    return "".join(letters)


def case(text: str, seed: str) -> str:
    """Write the text in lower case, or in upper case where it is in lower case already."""
    lowered = text.lower()
    return lowered if lowered != text else text.upper()


def layout(text: str, seed: str) -> str:
    """Put every paragraph on a line of its own between empty lines, with spaces doubled."""
    return "\n\n" + "\n\n".join(line.replace(" ", "  ") for line in text.split("\n") if line.strip()) + "\n\n"


PERTURBATIONS: dict[str, Callable[[str, str], str]] = {"typos": typos, "case": case, "format": layout}
"""(text, seed) -> perturbed text, by name in a suite's YAML."""


def agreement(plain: Sequence[str], perturbed: Sequence[str]) -> list[float]:
    """Return 1 for each pair of answers that are the same words, or both without a word; right or wrong does not
    matter.
    """
    return [float(words(ours) == words(theirs)) for ours, theirs in zip(plain, perturbed, strict=True)]
