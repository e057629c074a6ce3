"""Prompts as the tuned model was taught to read them."""

from tokenizers import Tokenizer

from sluice.data.tokenization import ASSISTANT, END_OF_TEXT, END_OF_TURN
from sluice.model.evaluation.likelihood import encode
from sluice.model.tuning.chat import Message, render


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of a special token; ValueError for a tokenizer without it."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token}; train it again")
    return int(found)


def chat_prompt(tokenizer: Tokenizer, content: str, max_tokens: int | None = None) -> list[int]:
    """`<|user|>content<|end|><|assistant|>` as ids; the content is cut so that no more than `max_tokens` result."""
    *asked, end = render(tokenizer, [Message("user", content)]).ids
    if max_tokens is not None:
        asked = asked[: max_tokens - 2]
    return [*asked, end, special_id(tokenizer, ASSISTANT)]


def completion_prompt(tokenizer: Tokenizer, text: str, max_tokens: int | None = None) -> list[int]:
    """`<|endoftext|>text` as ids: the beginning of a document."""
    ids = [special_id(tokenizer, END_OF_TEXT), *encode(tokenizer, text)]
    return ids if max_tokens is None else ids[:max_tokens]


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Tokens that end an answer."""
    return frozenset((special_id(tokenizer, END_OF_TEXT), special_id(tokenizer, END_OF_TURN)))
