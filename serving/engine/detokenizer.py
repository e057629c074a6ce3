"""Incremental decoding: complete characters only, and no text that may be the start of a stop string."""

import codecs
from collections.abc import Sequence

from tokenizers import Tokenizer


def _byte_of_character() -> dict[str, int]:
    """Return the alphabet of byte-level BPE: one printable character per byte (GPT-2, Radford et al. 2019)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(256 + index): byte for index, byte in enumerate(others)}


class TokenBytes:
    """Bytes of every token of a byte-level BPE tokenizer; special tokens have none."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if type(tokenizer.decoder).__name__ != "ByteLevel":
            raise ValueError(
                f"tokenizer.json: decoder {type(tokenizer.decoder).__name__} is not supported, only ByteLevel"
            )
        alphabet = _byte_of_character()
        added = tokenizer.get_added_tokens_decoder()
        self._bytes: dict[int, bytes] = {}
        for token, index in tokenizer.get_vocab(with_added_tokens=True).items():
            if index in added:
                self._bytes[index] = b"" if added[index].special else token.encode()
            else:
                self._bytes[index] = bytes(alphabet[character] for character in token)

    def __getitem__(self, token: int) -> bytes:
        # A vocabulary size rounded up for the hardware leaves ids without a token.
        return self._bytes.get(token, b"")


class Detokenizer:
    """Incremental decoder of one answer."""

    def __init__(self, token_bytes: TokenBytes, stop: Sequence[str] = ()) -> None:
        self._token_bytes, self._stop = token_bytes, tuple(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False
        """A stop string has appeared; the returned text ends before it."""

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain, often none."""
        return self._release(self._decoder.decode(self._token_bytes[token]), final=False)

    def flush(self) -> str:
        """Return the rest of the text; bytes of an incomplete character become U+FFFD."""
        return self._release(self._decoder.decode(b"", final=True), final=True)

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
