"""Incremental decoding: complete characters only, and no text that may be the start of a stop string."""

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

from tokenizers import Tokenizer

from sluice.data.tokenization.bytelevel import token_bytes

_REPLACEMENT = "\ufffd"
_WINDOW = 64
_OVERLAPS = range(8, 12)
"""Numbers of tokens that a window may keep; a character has up to four bytes, each a token in byte fallback."""


class TextStream(Protocol):
    """Decodes one answer, token by token; special tokens have no text."""

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain, often none."""
        ...

    def flush(self) -> str:
        """Return the rest of the text; bytes of an incomplete character become U+FFFD."""
        ...


def text_streams(tokenizer: Tokenizer) -> Callable[[], TextStream]:
    """Return what makes the stream of an answer; tables of the tokenizer are computed once."""
    plain = token_bytes(tokenizer)
    if plain is None:
        return lambda: WindowStream(tokenizer)
    added = tokenizer.get_added_tokens_decoder().items()
    table = plain | {index: b"" if token.special else token.content.encode() for index, token in added}
    return lambda: ByteStream(table)


class ByteStream:
    """Stream of a byte-level tokenizer."""

    def __init__(self, bytes_of: dict[int, bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        # A vocabulary size rounded up for the hardware leaves ids without a token.
        return self._decoder.decode(self._bytes_of.get(token, b""))

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)


class WindowStream:
    """Stream of any tokenizer: decodes the last tokens again at each step, and returns what is new.

    The window keeps tokens whose text is out, because decoders strip the first space of a text and put one before each
    word but the first. Text that ends in U+FFFD waits: byte fallback may still complete the character. (If bytes are no
    UTF-8, what came before the fault is out as it was.)
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._given = 0
        """Characters of the window's text that are out."""

    def push(self, token: int) -> str:
        self._window.append(token)
        text = self._decode(self._window)
        new = self._release(text.rstrip(_REPLACEMENT))
        if len(self._window) > _WINDOW and self._given == len(text) and not text.endswith(_REPLACEMENT):
            # Drop the first tokens, unless that changes the text of the others: byte fallback decodes a run of bytes
            # that begins inside a character as U+FFFD to its end.
            for size in _OVERLAPS:
                rest = self._decode(self._window[-size:])
                if text.endswith(rest):
                    self._window, self._given = self._window[-size:], len(rest)
                    break
        return new

    def flush(self) -> str:
        return self._release(self._decode(self._window))

    def _release(self, certain: str) -> str:
        new = certain[self._given :]
        self._given = max(self._given, len(certain))
        return new

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text


class Detokenizer:
    """Incremental decoder of one answer that ends before a stop string."""

    def __init__(self, stream: TextStream, stop: Sequence[str] = ()) -> None:
        self._stream, self._stop = stream, tuple(stop)
        self._held = ""
        self.stopped = False
        """A stop string has appeared; the returned text ends before it."""

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain, often none."""
        return self._release(self._stream.push(token), final=False)

    def flush(self) -> str:
        """Return the rest of the text; bytes of an incomplete character become U+FFFD."""
        return self._release(self._stream.flush(), final=True)

    def _release(self, text: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        self._held = ""
        found = [position for stop in self._stop if (position := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        if not final:
            keep = max((_overlap(text, stop) for stop in self._stop), default=0)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return text


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
