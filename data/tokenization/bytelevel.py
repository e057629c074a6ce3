"""The byte-level base of our tokenizers: the pre-tokenization pattern, and bytes as printable characters.

Every byte has a token, so nothing is unknown and every text survives the round trip (GPT-2, Radford et al. 2019).
"""

import json
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

# The pattern of GPT-4 and Llama 3, with numbers in pairs of digits: a small vocabulary cannot spare 1000 triples.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(model: models.Model, split: str = SPLIT) -> Tokenizer:
    """Make a tokenizer of `model` over the bytes of the pieces that `split` matches."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


@cache
def byte_of_character() -> dict[str, int]:
    """Return printable character -> byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


@cache
def character_of_byte() -> dict[int, str]:
    """Return byte -> printable character."""
    return {byte: character for character, byte in byte_of_character().items()}


def written(token: bytes) -> str:
    """Write the bytes of a token in printable characters, as in tokenizer.json."""
    characters = character_of_byte()
    return "".join(characters[byte] for byte in token)


def token_bytes(tokenizer: Tokenizer) -> dict[int, bytes] | None:
    """Return id -> bytes of every token that is not an added one; None if the tokenizer is not byte-level."""
    if type(tokenizer.decoder).__name__ != "ByteLevel":
        return None
    alphabet, added = byte_of_character(), tokenizer.get_added_tokens_decoder()
    plain = {token: index for token, index in tokenizer.get_vocab().items() if index not in added}
    try:
        return {index: bytes(alphabet[character] for character in token) for token, index in plain.items()}
    except KeyError:
        return None


def described(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the content of tokenizer.json."""
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content
