"""Encoding of prompts and conversations as token ids, with the chat template."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from sluice.serving.engine.request import PromptMessage

USER, ASSISTANT, END, END_OF_TEXT = "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"


class PromptEncoder:
    """Encoder of users' text as plain text: the spelling of a special token in it stays text.

    The template is `<|user|>{question}<|end|><|assistant|>{answer}<|end|>`, turn after turn. It has no system role, so
    system messages are put before the next question, separated by a blank line.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._special = {text: tokenizer.token_to_id(text) for text in (USER, ASSISTANT, END, END_OF_TEXT)}
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.encode_special_tokens = True

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        ends = (self._special[END], self._special[END_OF_TEXT])
        return frozenset(token for token in ends if token is not None)

    def encode(self, prompt: str | Sequence[PromptMessage]) -> list[int]:
        """Return the token ids of a text to continue, or of a conversation up to the assistant's turn.

        Empty text becomes the end-of-text token, which precedes every document in training.
        """
        if isinstance(prompt, str):
            return self.encode_text(prompt) or [self._id(END_OF_TEXT)]
        ids: list[int] = []
        instructions: list[str] = []
        for message in prompt:
            if message.role == "system":
                instructions.append(message.content)
            elif message.role == "user":
                ids += [self._id(USER), *self.encode_text("\n\n".join((*instructions, message.content))), self._id(END)]
                instructions = []
            else:
                ids += [self._id(ASSISTANT), *self.encode_text(message.content), self._id(END)]
        return [*ids, self._id(ASSISTANT)]

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of plain text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _id(self, special: str) -> int:
        token = self._special[special]
        if token is None:
            raise ValueError(f"the model's tokenizer has no {special} token: train it with `sluice run`")
        return token
