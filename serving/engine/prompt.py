"""From a prompt or a conversation to token ids, with the tokenizer's chat template."""

from collections.abc import Sequence

from tokenizers import Tokenizer

from sluice.serving.engine.request import PromptMessage

USER, ASSISTANT, END, END_OF_TEXT = "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"


class PromptEncoder:
    """Encodes what users write as plain text: a special token spelled out in it is text, never control.

    The template is `<|user|>{question}<|end|><|assistant|>{answer}<|end|>`, turn after turn. It has no place for a
    system message, so those open the next question, a blank line apart.
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
        """Token ids of text to continue, or of a conversation up to where the assistant speaks.

        Empty text is the end-of-text token, behind which every training document began.
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
        """Token ids of plain text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _id(self, special: str) -> int:
        token = self._special[special]
        if token is None:
            raise ValueError(f"the model's tokenizer has no {special} token: train it with `sluice run`")
        return token
