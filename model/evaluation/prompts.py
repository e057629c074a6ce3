"""Prompts of the default evaluation: a document's beginning, and a question in the model's own chat template."""

from tokenizers import Tokenizer

from sluice.model.text.chat_template import PromptMessage
from sluice.model.text.prompt import PromptEncoder


def special_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of the special tokens, which no answer may contain."""
    return frozenset(token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special)


def chat_prompt(encoder: PromptEncoder, content: str, max_tokens: int | None = None) -> list[int]:
    """Encode a question in the model's template, such as `<|user|>content<|end|><|assistant|>`; the content is cut so
    that there are at most `max_tokens` ids.

    A model without a chat template is asked for the continuation of `content` and an empty line. Raises ValueError
    where the template alone has more ids than that.
    """
    if not encoder.has_chat:
        ids = [*encoder.document_start, *encoder.encode_text(f"{content}\n\n")]
        return ids if max_tokens is None else ids[:max_tokens]
    ids = encoder.encode([PromptMessage("user", content)])
    if max_tokens is None or len(ids) <= max_tokens:
        return ids
    content_ids = encoder.encode_text(content)
    if not encoder.has_template:
        user, end, assistant = encoder.encode([PromptMessage("user", "")])
        return [user, *content_ids[: max_tokens - 3], end, assistant]
    while len(ids) > max_tokens and content_ids:
        content_ids = content_ids[: max_tokens - len(ids)]
        ids = encoder.encode([PromptMessage("user", encoder.tokenizer.decode(content_ids))])
    if len(ids) > max_tokens:
        raise ValueError(f"the chat template alone has {len(ids)} tokens, more than the {max_tokens} of a prompt")
    return ids


def completion_prompt(encoder: PromptEncoder, text: str, max_tokens: int | None = None) -> list[int]:
    """Encode `text` as the beginning of a document, cut to `max_tokens` ids."""
    return [*encoder.document_start, *encoder.encode_text(text)][:max_tokens]
