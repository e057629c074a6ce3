"""Count differences of two answers to one prompt that show without knowing the right answer.

They say "look", not "bad": fluent and wrong answers show none of them.
"""

import re
from bisect import insort
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import lru_cache

from sluice.data.quality.language import identify
from sluice.data.quality.prose import Prose
from sluice.model.evaluation.safety.refusal import is_refusal
from sluice.serving.evidence import Pairs, quantile_below

LENGTH_FACTOR = 1.5
"""An answer is longer, or shorter, than the other one if they differ by more than this factor."""
LEAST_LANGUAGE_LETTERS, LEAST_LANGUAGE_PROBABILITY = 40, 0.9
"""Shorter text, or a less certain language, tells no language: most answers of a few words would be misjudged."""
LEAST_LOOP_CHARACTERS = 24
UNLIKELY_SHARE, UNLIKELY_FACTOR = 0.05, 1.5
"""An answer is unlikely if its surprisal exceeds `UNLIKELY_FACTOR` times this upper quantile of the champion's own."""
_LOOP = re.compile(r"(\S.{0,79}?)\1{3,}", re.DOTALL)


@dataclass(frozen=True)
class AnswerText:
    """One arm's answer to a replayed prompt."""

    text: str
    finish_reason: str
    """stop or length."""


class TextTotals:
    """Counts of pairs of answers by kind of difference (`signals.KINDS`), by whose answer has it."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, list[int]] = defaultdict(lambda: [0] * 4)
        self._languages: Counter[str] = Counter()
        """Languages of the champion's answers so far."""
        self._surprisals: list[float] = []
        """Surprisals of the champion's answers so far, sorted."""

    @property
    def pairs(self) -> dict[str, Pairs]:
        """The counts so far."""
        return {kind: Pairs(*counts) for kind, counts in self._counts.items()}

    def add(self, prompt: str, champion: AnswerText, challenger: AnswerText) -> None:
        """Count the answers of both arms to one prompt."""
        arms = (challenger, champion)
        self._count("empty", *(not arm.text.strip() for arm in arms))
        self._count("cut", *(arm.finish_reason == "length" for arm in arms))
        if not all(arm.text.strip() for arm in arms):
            return
        self._count("repeated", *(repeats(arm.text) for arm in arms))
        self._count("refused", *(is_refusal(arm.text) for arm in arms))
        ours, theirs = len(challenger.text), len(champion.text)
        is_longer = ours > LENGTH_FACTOR * theirs, theirs > LENGTH_FACTOR * ours
        self._count("longer", *is_longer)
        self._count("shorter", *reversed(is_longer))
        self._compare_languages(prompt, champion.text, challenger.text)

    def _count(self, kind: str, challenger: bool, champion: bool) -> None:
        self._counts[kind][challenger + 2 * champion] += 1

    def _compare_languages(self, prompt: str, champion: str, challenger: str) -> None:
        """Compare both with the language of the prompt or, of a short one, with the champion's most frequent one."""
        found = language(champion), language(challenger)
        wanted = language(prompt) or next((name for name, _ in self._languages.most_common(1)), "")
        if wanted and all(found):
            self._count("language", found[1] != wanted, found[0] != wanted)
        if found[0]:
            self._languages[found[0]] += 1

    def add_surprisals(self, champion: float, challenger: float) -> None:
        """Count the mean nats per token that the champion needs for the answers of both arms to one prompt."""
        if (bound := quantile_below(self._surprisals, UNLIKELY_SHARE)) is not None:
            self._count("surprising", challenger > UNLIKELY_FACTOR * bound, champion > bound)
        insort(self._surprisals, champion)


def repeats(text: str) -> bool:
    """Return whether a third of the text is one sequence of up to 80 characters, four times or more in a row."""
    longest = max((match.end() - match.start() for match in _LOOP.finditer(text) if _has_letter(match[1])), default=0)
    return longest >= max(LEAST_LOOP_CHARACTERS, len(text) / 3)


@lru_cache(maxsize=4_096)
def language(text: str) -> str:
    """Return the ISO 639 code of the text's language; empty for code, and where it cannot be told with confidence."""
    if sum(map(str.isalpha, text)) < LEAST_LANGUAGE_LETTERS:
        return ""
    found = identify(Prose.of(text))
    return found.code if found.probability >= LEAST_LANGUAGE_PROBABILITY and len(found.code) in (2, 3) else ""


def _has_letter(text: str) -> bool:
    return any(map(str.isalnum, text))
