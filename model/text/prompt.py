"""Encoding of prompts and conversations as token ids, with the model's own chat template."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sluice.data.tokenization import ASSISTANT, CHAT_TEMPLATE, END_OF_TEXT, END_OF_TURN, USER
from sluice.model.directory import CHAT_TEMPLATE_FILE, CONFIG, GENERATION, TOKENIZER_FILES, read_json
from sluice.model.text.chat_template import ChatTemplate, PromptMessage, chat_template, special_texts

_OURS = {"user": USER, "assistant": ASSISTANT}
_ZERO_WIDTH = "\u200b"


def encode_plain(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the token ids of `text`; a special token quoted in it is encoded as ordinary
    characters."""
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    finally:
        tokenizer.encode_special_tokens = before
    return ids


class PromptEncoder:
    """Encoder of users' text as plain text: the spelling of a special token in it stays text.

    Conversations follow the model's chat template. That of models trained here, and of those without one, is
    `<|user|>{question}<|end|><|assistant|>{answer}<|end|>`, turn after turn; it has no system role, so system messages
    are put before the next question, separated by a blank line.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        template: ChatTemplate | None = None,
        stop_ids: Collection[int] = (),
        begin_id: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        """`stop_ids` end an answer beside our own, and `begin_id` begins a document where the tokenizer puts nothing
        before one and lacks our end-of-text token. Ids of `vocab_size` and above are refused when they occur.
        """
        self._special = {text: tokenizer.token_to_id(text) for text in (USER, ASSISTANT, END_OF_TURN, END_OF_TEXT)}
        self.tokenizer = tokenizer
        self._plain = Tokenizer.from_str(tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._template = None if template is None or template.source == CHAT_TEMPLATE else template
        self._vocab_size = vocab_size
        self.start_ids = tuple(start_ids(tokenizer))
        """Tokens that the tokenizer puts before every text, such as bos; empty for models trained here."""
        begin = next((token for token in (self._special[END_OF_TEXT], begin_id) if token is not None), None)
        self._document_start = self.start_ids or (() if begin is None else (begin,))
        ours = (self._special[END_OF_TURN], self._special[END_OF_TEXT])
        self.stop_ids = frozenset(stop_ids) | {token for token in ours if token is not None}
        """Tokens that end an answer."""

    @property
    def document_start(self) -> list[int]:
        """Tokens before the first of a document. Raises ValueError where there are none."""
        if not self._document_start:
            raise ValueError(
                f"the tokenizer has no {END_OF_TEXT} to begin a document with, and the model's files name no bos_token "
                "and no eos_token: add one to tokenizer_config.json"
            )
        return list(self._document_start)

    @property
    def has_chat(self) -> bool:
        """Whether conversations can be encoded."""
        ours = (self._special[text] for text in (USER, ASSISTANT, END_OF_TURN))
        return self.has_template or all(token is not None for token in ours)

    @property
    def has_template(self) -> bool:
        """Whether conversations follow a chat template other than that of models trained here."""
        return self._template is not None

    def encode(self, prompt: str | Sequence[PromptMessage]) -> list[int]:
        """Return the token ids of a text to continue, or of a conversation up to the assistant's turn.

        A text begins with the tokens that the tokenizer puts before one; an empty one becomes what begins a document.
        """
        if isinstance(prompt, str):
            return [*self.start_ids, *self.encode_text(prompt)] or self.document_start
        if self._template is not None:
            special = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
            messages = [PromptMessage(each.role, _as_text(each.content, special)) for each in prompt]
            # The template writes the tokens that begin a text.
            return self._with_special(self._template.render(messages))
        ids: list[int] = []
        instructions: list[str] = []
        for message in prompt:
            if message.role == "system":
                instructions.append(message.content)
                continue
            text = "\n\n".join((*instructions, message.content)) if message.role == "user" else message.content
            ids += [self._id(_OURS[message.role]), *self.encode_text(text), self._id(END_OF_TURN)]
            instructions = [] if message.role == "user" else instructions
        return [*ids, self._id(ASSISTANT)]

    def encode_marked(self, text: str) -> list[int]:
        """Return the token ids of a text to continue in which special tokens may be spelled; those that begin a text
        are added unless they are there.
        """
        ids = self._with_special(text)
        begins = self.start_ids and tuple(ids[: len(self.start_ids)]) == self.start_ids
        return ids if begins else [*self.start_ids, *ids]

    def encode_text(self, text: str) -> list[int]:
        """Return the token ids of plain text."""
        return self._checked(self._plain.encode(text, add_special_tokens=False).ids)

    def _with_special(self, text: str) -> list[int]:
        return self._checked(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def _checked(self, ids: list[int]) -> list[int]:
        if self._vocab_size is not None and ids and (highest := max(ids)) >= self._vocab_size:
            raise ValueError(
                f"the text has token {self.tokenizer.id_to_token(highest)!r} of id {highest}, which is outside the "
                f"model's vocabulary of 0 to {self._vocab_size - 1}"
            )
        return ids

    def _id(self, special: str) -> int:
        token = self._special[special]
        if token is None:
            raise ValueError(
                f"the model has no chat template, and its tokenizer no {special} for a chat without one: "
                "add chat_template.jinja to its folder, or leave out --chat"
            )
        return token


def load_prompt_encoder(folder: Path, tokenizer: Tokenizer, vocab_size: int) -> PromptEncoder:
    """Encoder of a model directory, with its chat template and every token that its files name as an end."""
    settings = _read(folder / TOKENIZER_FILES[1])
    template = folder / CHAT_TEMPLATE_FILE
    named = special_texts(settings)
    begins = [tokenizer.token_to_id(named.get("bos_token", "")), *special_ids(folder, "bos_token_id")]
    ends = [*special_ids(folder, "eos_token_id"), tokenizer.token_to_id(named.get("eos_token", ""))]
    return PromptEncoder(
        tokenizer,
        template=chat_template(settings, template.read_text(encoding="utf-8") if template.is_file() else None),
        stop_ids={token for token in ends if token is not None},
        begin_id=next((token for token in (*begins, *ends) if token is not None), None),
        vocab_size=vocab_size,
    )


def special_ids(folder: Path, name: str) -> list[int]:
    """Ids that generation_config.json, or else config.json, has under `name`, such as eos_token_id."""
    found = (_read(folder / file).get(name) for file in (GENERATION, CONFIG))
    for each in found:
        values = each if isinstance(each, list) else [each]
        if ids := [value for value in values if isinstance(value, int) and not isinstance(value, bool)]:
            return ids
    return []


def document_end(folder: Path, tokenizer: Tokenizer) -> int:
    """Id after each document: the first end that the files name, or else our end-of-text token. ValueError for none."""
    named = special_texts(_read(folder / TOKENIZER_FILES[1])).get("eos_token", "")
    tokens = [*special_ids(folder, "eos_token_id"), *map(tokenizer.token_to_id, (named, END_OF_TEXT))]
    found = next((token for token in tokens if token is not None), None)
    if found is None:
        raise ValueError(f"{folder}: no file names an eos_token_id to end a document with: add it to {CONFIG}")
    return found


def start_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that the tokenizer's post-processor puts before a text, such as bos."""
    for text in ("a", "A", "0", "的"):
        encoded = tokenizer.encode(text)
        if 0 in encoded.special_tokens_mask:
            return list(encoded.ids[: encoded.special_tokens_mask.index(0)])
    return []


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _as_text(content: str, special: Sequence[str]) -> str:
    """`content` with a zero-width space inside each special token that it spells, which so stays text."""
    for token in special:
        content = content.replace(token, f"{token[:1]}{_ZERO_WIDTH}{token[1:]}")
    return content
