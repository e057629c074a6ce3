"""Prompts in the format that a model trained here was tuned on; as plain text for the tokenizers of other models."""

from tokenizers import Tokenizer

from sluice.data.tokenization import ASSISTANT, END_OF_TEXT, END_OF_TURN, USER
from sluice.model.text.prompt import encode_plain, start_ids
from sluice.model.tuning.chat import ChatTurn, render

_OTHER_STARTS = ("<s>", "<|begin_of_text|>", "<bos>", "<|startoftext|>", "[CLS]", "</s>", "<|im_end|>", "<eos>")
_OTHER_ENDS = ("</s>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<eos>", "[SEP]")
"""Names that special tokens have in other families."""


def document_start(tokenizer: Tokenizer) -> list[int]:
    """Ids before a document: those that the tokenizer's post-processor adds, or else its end-of-text token.

    Raises ValueError for a tokenizer without one.
    """
    if found := start_ids(tokenizer):
        return found
    named = (tokenizer.token_to_id(token) for token in (END_OF_TEXT, *_OTHER_STARTS))
    token = next((each for each in named if each is not None), None)
    if token is None:
        raise ValueError(f"the tokenizer has no {END_OF_TEXT} to begin a document with; train it again")
    return [token]


def special_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of the special tokens, which no answer may contain."""
    return frozenset(token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special)


def chat_prompt(tokenizer: Tokenizer, content: str, max_tokens: int | None = None) -> list[int]:
    """Encode `<|user|>content<|end|><|assistant|>`; the content is cut so that there are at most `max_tokens` ids.

    A tokenizer without these tokens asks for the continuation of `content` and an empty line.
    """
    answer = tokenizer.token_to_id(ASSISTANT)
    if answer is None or any(tokenizer.token_to_id(token) is None for token in (USER, END_OF_TURN)):
        start, content_ids = document_start(tokenizer), encode_plain(tokenizer, f"{content}\n\n")
        return [*start, *(content_ids if max_tokens is None else content_ids[: max_tokens - len(start)])]
    *content_ids, end = render(tokenizer, [ChatTurn("user", content)]).ids
    if max_tokens is not None:
        content_ids = content_ids[: max_tokens - 2]
    return [*content_ids, end, answer]


def completion_prompt(tokenizer: Tokenizer, text: str, max_tokens: int | None = None) -> list[int]:
    """Encode `<|endoftext|>text`, the beginning of a document."""
    ids = [*document_start(tokenizer), *encode_plain(tokenizer, text)]
    return ids if max_tokens is None else ids[:max_tokens]


def stop_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that end an answer."""
    named = (tokenizer.token_to_id(token) for token in (END_OF_TEXT, END_OF_TURN, *_OTHER_ENDS))
    return frozenset(token for token in named if token is not None)
