"""Greedy answers of a model, kept so that a server of the same model can be held to them.

Each answer is kept by token, with the lead of the token over the next best one. A server computes the same sums in
another order, so it may choose otherwise where the two are nearly tied; from there on its answer is another one.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from sluice.core.canonical import canonical_json
from sluice.data.extraction.sections import prompts
from sluice.model.evaluation.evaluated import Message, Prompt

PARITY_FILE = "parity.jsonl"
TIE = 1e-3
"""Lead in logits below which the order of float32 sums may decide: `likelihood.NEAR_TIE`, which has a wide margin."""


@dataclass(frozen=True)
class KeptAnswer:
    """One greedy answer."""

    prompt: Prompt
    max_tokens: int
    tokens: tuple[str, ...]
    """Text of each token; the end token has none, and of a character's tokens only the last has it."""
    leads: tuple[float, ...]
    """Logit of each token less that of the next best one."""

    @property
    def text(self) -> str:
        return "".join(self.tokens)

    def is_matched_by(self, text: str) -> bool:
        """Return whether a served answer is the same, or differs first where the choice of the token was a tie."""
        if text == self.text:
            return True
        beginnings = accumulate(self.tokens)
        # One that goes on behind the kept text differs at the kept one's last token.
        last = len(self.tokens) - 1
        differs = next((place for place, begin in enumerate(beginnings) if not text.startswith(begin)), last)
        # Tokens before it without text may be the beginning of the character that differs.
        first = differs
        while first > 0 and not self.tokens[first - 1]:
            first -= 1
        return min(self.leads[first : differs + 1], default=TIE) < TIE


def parity_prompts(texts: Sequence[str], count: int, *, has_chat: bool) -> list[Prompt]:
    """Return up to `count` prompts from the headings of `texts`, in an order that depends on nothing but themselves.

    With `has_chat`, every other one is a question in the chat template; few headings are asked both ways.
    """
    found = sorted({prompt for text in texts for prompt in prompts(text)}, key=_rank)
    asked = [
        (Message("user", prompt),) if has_chat and place % 2 == 0 else prompt for place, prompt in enumerate(found)
    ]
    other = [prompt if place % 2 == 0 else (Message("user", prompt),) for place, prompt in enumerate(found)]
    return [*asked, *(other if has_chat else ())][:count]


def write_parity(answers: Sequence[KeptAnswer], path: Path) -> None:
    """Write answers as JSON lines."""
    path.write_bytes(b"".join(canonical_json(asdict(answer)) + b"\n" for answer in answers))


def read_parity(path: Path) -> list[KeptAnswer]:
    """Read answers. Raises ValueError naming the line that is none."""
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row: dict[str, Any] = json.loads(line)
            given = row["prompt"]
            prompt = given if isinstance(given, str) else tuple(Message(**message) for message in given)
            found.append(KeptAnswer(prompt, row["max_tokens"], tuple(row["tokens"]), tuple(row["leads"])))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: not a kept answer ({error}); `sluice run` measures again"
            ) from None
    return found


def _rank(prompt: str) -> bytes:
    return hashlib.sha256(prompt.encode()).digest()
