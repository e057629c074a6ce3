"""Special tokens, which plain text never encodes to: ends of documents and turns of a chat."""

import re

from sluice.data.config import TokenizerConfig

END_OF_TEXT = "<|endoftext|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END_OF_TURN = "<|end|>"
SPECIAL_TOKENS = (END_OF_TEXT, USER, ASSISTANT, END_OF_TURN)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('role must be user or assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def special_tokens(config: TokenizerConfig) -> tuple[str, ...]:
    """Return our special tokens, then those of the settings. ValueError for other forms than `<|name|>`, or repeats."""
    every = (*SPECIAL_TOKENS, *config.special_tokens)
    # Pre-tokenization splits this form, so that no plain token of the vocabulary can be equal to it.
    bad = sorted({token for token in every if not re.fullmatch(r"<\|[a-z0-9_]*[a-z0-9][a-z0-9_]*\|>", token)})
    if bad:
        raise ValueError(
            f"tokenizer.special_tokens {bad}: a special token is <|name|>, of lower-case letters, digits and _"
        )
    twice = sorted({token for token in every if every.count(token) > 1})
    if twice:
        raise ValueError(
            f"tokenizer.special_tokens {twice} are listed twice: {', '.join(SPECIAL_TOKENS)} are always included"
        )
    return every
