"""A conversation as token ids, with a mask of the part that the model learns.

The layout is that of the tokenizer's chat template: `<|user|>question<|end|><|assistant|>answer<|end|>`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from sluice.data.tokenization import ASSISTANT, END_OF_TEXT, END_OF_TURN, USER
from sluice.model.text.prompt import encode_plain
from sluice.model.training.batches.batch import Batch

_ROLES = {"user": USER, "assistant": ASSISTANT}


@dataclass(frozen=True)
class ChatTurn:
    """One turn."""

    role: str
    """user or assistant."""
    content: str


@dataclass(frozen=True)
class Rendered:
    """A conversation as the model reads it."""

    ids: list[int]
    learned: list[bool]
    """For each id, whether it is part of an answer of the assistant, its end token included."""


def render(tokenizer: Tokenizer, messages: Sequence[ChatTurn], max_tokens: int | None = None) -> Rendered:
    """Ids of `messages`, cut after `max_tokens`. A special token quoted in a text is read as its characters.

    Raises ValueError for a role other than user and assistant, and a tokenizer without the special tokens.
    """
    ids: list[int] = []
    learned: list[bool] = []
    end = _special(tokenizer, END_OF_TURN)
    for message in messages:
        if message.role not in _ROLES:
            raise ValueError(f"role {message.role!r} must be one of {sorted(_ROLES)}")
        content = encode_plain(tokenizer, message.content)
        ids += [_special(tokenizer, _ROLES[message.role]), *content, end]
        # The mark of the role is given to the model, what follows it is the model's.
        learned += [False, *[message.role == "assistant"] * (len(content) + 1)]
    return Rendered(ids[:max_tokens], learned[:max_tokens])


def render_pair(tokenizer: Tokenizer, question: str, answer: str, max_tokens: int | None = None) -> Rendered:
    """A question and its answer. Where both do not fit, the question keeps at most half of the tokens."""
    asked, answered = (
        render(tokenizer, [ChatTurn("user", question)]),
        render(tokenizer, [ChatTurn("assistant", answer)]),
    )
    if max_tokens is not None and len(asked.ids) > max_tokens // 2 and len(asked.ids) + len(answered.ids) > max_tokens:
        *content, end = asked.ids
        asked = Rendered([*content[: max_tokens // 2 - 1], end], asked.learned[: max_tokens // 2])
    ids, learned = asked.ids + answered.ids, asked.learned + answered.learned
    return Rendered(ids[:max_tokens], learned[:max_tokens])


def collate(conversations: Sequence[Rendered], padding: int) -> Batch:
    """Conversations as a batch [len(conversations), longest - 1], padded on the right; padding is never learned."""
    longest = max(len(each.ids) for each in conversations)
    ids = torch.full((len(conversations), longest), padding)
    learned = torch.zeros(len(conversations), longest, dtype=torch.bool)
    for row, each in enumerate(conversations):
        ids[row, : len(each.ids)] = torch.tensor(each.ids)
        learned[row, : len(each.ids)] = torch.tensor(each.learned)
    # Position i predicts token i + 1, so what counts is whether that one is learned.
    return Batch(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), learned[:, 1:].contiguous())


def padding_id(tokenizer: Tokenizer) -> int:
    """The token that fills up a batch."""
    return _special(tokenizer, END_OF_TEXT)


def _special(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}: train it again")
    return int(found)
