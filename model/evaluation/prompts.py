"""Prompts in the format that the model was tuned on."""

from tokenizers import Tokenizer

from sluice.data.tokenization import ASSISTANT, END_OF_TEXT, END_OF_TURN
from sluice.model.evaluation.likelihood import encode
from sluice.model.tuning.chat import ChatTurn, render


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a special token; ValueError for a tokenizer without it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}; train it again")
    return int(found)


def chat_prompt(tokenizer: Tokenizer, content: str, max_tokens: int | None = None) -> list[int]:
    """Encode `<|user|>content<|end|><|assistant|>`; the content is cut so that there are at most `max_tokens` ids."""
    *content_ids, end = render(tokenizer, [ChatTurn("user", content)]).ids
    if max_tokens is not None:
        content_ids = content_ids[: max_tokens - 2]
    return [*content_ids, end, special_id(tokenizer, ASSISTANT)]


def completion_prompt(tokenizer: Tokenizer, text: str, max_tokens: int | None = None) -> list[int]:
    """Encode `<|endoftext|>text`, the beginning of a document."""
    ids = [special_id(tokenizer, END_OF_TEXT), *encode(tokenizer, text)]
    return ids if max_tokens is None else ids[:max_tokens]


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that end an answer."""
    return frozenset((special_id(tokenizer, END_OF_TEXT), special_id(tokenizer, END_OF_TURN)))
