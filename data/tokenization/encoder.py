"""Encode text with the fastest library that produces the ids of tokenizer.json.

`Tokenizers` is the Hugging Face library, and correct for every tokenizer. `Tiktoken` encodes byte-level BPE about four
times as fast, and is used where `ranks_of` proves that both agree; a sample is compared at load as well.
"""

from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer, models

from sluice.core.cpus import available_cores
from sluice.data.tokenization.bytelevel import byte_level, described, token_bytes
from sluice.data.tokenization.folder import load_tokenizer
from sluice.data.tokenization.special import END_OF_TEXT, SPECIAL_TOKENS

# The regular expressions of tiktoken keep a state for each character of a run of white space, a million at most.
LONGEST_FOR_TIKTOKEN = 250_000
"""Characters of a text; longer ones are encoded by the other library."""

_SAMPLE = [
    "",
    " \n\t  \n\n  x = [1, 22, 333]\r\n\tif y:\n        return 'it''s' + \"we'LL\"",
    "naïve Ångström e\u0301 日本語 🎉👩‍👩‍👧 עברית ۱۲۳ Ⅷ ½ ſ 'ſ \u0130'S \u200b\u00a0\u3000\x00\x85",
    f"a {SPECIAL_TOKENS[0]} b{SPECIAL_TOKENS[1]}c {SPECIAL_TOKENS[3]}",
    "https://example.org/a_b?c=d&e=f#g -- ... ===== ____ aaaa aaaaa abababa " + "x" * 600,
    *(chr(start) + " ".join(map(chr, range(start, start + 64))) for start in (0x20, 0x370, 0x2C00, 0xA640, 0x1E900)),
]


class TextEncoder(Protocol):
    """Encodes plain text: a special token inside it is encoded as plain characters, and none is added."""

    name: str
    """Library behind it."""
    vocab_size: int
    """One more than the largest id, the rows of an embedding."""
    end_of_text: int
    """Id of the token after each document."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text. Raises ValueError for invalid Unicode (a lone surrogate)."""
        ...


class Tokenizers:
    """The Hugging Face library, on all cores."""

    name = "tokenizers"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.vocab_size = 1 + max(tokenizer.get_vocab().values())
        end_of_text = tokenizer.token_to_id(END_OF_TEXT)
        if end_of_text is None:
            raise ValueError(f"the tokenizer has no {END_OF_TEXT} to end a document with; run the tokenizer step again")
        self.end_of_text = int(end_of_text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        _refuse_surrogates(texts)
        return [list(each.ids) for each in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


class Tiktoken:
    """tiktoken with the merges of tokenizer.json as ranks, on all cores; the other library encodes very long texts."""

    name = "tiktoken"

    def __init__(self, tokenizer: Tokenizer, split: str, ranks: dict[bytes, int]) -> None:
        import tiktoken

        self._whole = Tokenizers(tokenizer)
        self.vocab_size, self.end_of_text = self._whole.vocab_size, self._whole.end_of_text
        self._encoding = tiktoken.Encoding("tokenizer", pat_str=split, mergeable_ranks=ranks, special_tokens={})
        self._threads = available_cores()

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        _refuse_surrogates(texts)
        short = ["" if len(text) > LONGEST_FOR_TIKTOKEN else text for text in texts]
        found = self._encoding.encode_ordinary_batch(short, num_threads=self._threads)
        for number, text in enumerate(texts):
            if len(text) > LONGEST_FOR_TIKTOKEN:
                found[number] = self._whole.encode_batch([text])[0]
        return found


def load_encoder(folder: Path) -> TextEncoder:
    """Load the fastest encoder for a folder's tokenizer. ValueError without a tokenizer or an end-of-text token."""
    return encoder_of(load_tokenizer(folder))


def encoder_of(tokenizer: Tokenizer) -> TextEncoder:
    """Return the fastest encoder with the ids of `tokenizer`, which is set to encode special tokens as plain text."""
    tokenizer.encode_special_tokens = True
    reference = Tokenizers(tokenizer)
    ranks = ranks_of(tokenizer)
    if ranks is None:
        return reference
    split: str = described(tokenizer)["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    fast = Tiktoken(tokenizer, split, ranks)
    return fast if fast.encode_batch(_SAMPLE) == reference.encode_batch(_SAMPLE) else reference


def ranks_of(tokenizer: Tokenizer) -> dict[bytes, int] | None:
    """Return bytes -> id of each token, with which tiktoken produces the ids of `tokenizer`; None where it might not.

    tokenizer.json lists pairs to merge; tiktoken merges any two neighbours that together are a token, the lowest id
    first. Both agree if (1) ids increase along the merges, (2) each token but the bytes is made by one pair of earlier
    tokens, and (3) each token's bytes alone encode to that token. Proof: take the first step where tiktoken merges a
    pair (u, v) to t that is not listed, after all merges before t. None of them crossed the edges of uv, so what they
    did inside is what they do to the bytes of t alone, and by (3) that leaves exactly the listed pair of t.
    """
    content = described(tokenizer)
    tokens = token_bytes(tokenizer)
    plain, ours = content["model"], described(byte_level(models.BPE()))
    extras = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback")
    if (
        tokens is None
        # Nothing but a split that both libraries read alike and BPE without extras.
        or plain["type"] != "BPE"
        or any(plain.get(extra) for extra in (*extras, "ignore_merges"))
        or content["pre_tokenizer"] != ours["pre_tokenizer"]
        or any(content[part] for part in ("normalizer", "truncation", "padding"))
        or not all(added["special"] for added in content["added_tokens"])
    ):
        return None
    names = {name: index for name, index in content["model"]["vocab"].items() if index in tokens}
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in content["model"]["merges"])
    made = [(names.get(a), names.get(b), names.get(a + b)) for a, b in pairs]
    singles = {index for index, token in tokens.items() if len(token) == 1}
    last = -1
    for left, right, result in made:
        if left is None or right is None or result is None or result <= last:
            return None
        if any(part not in singles and part >= result for part in (left, right)):
            return None
        last = result
    if len(singles) != 256 or len(made) + 256 != len(tokens) or len(set(tokens.values())) != len(tokens):
        return None
    model = tokenizer.model
    if any([each.id for each in model.tokenize(name)] != [index] for name, index in names.items()):
        return None
    return {token: index for index, token in tokens.items()}


def _refuse_surrogates(texts: list[str]) -> None:
    for number, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"text {number} of the batch is not Unicode: {error.reason} at character {error.start}; "
                "repair its encoding first"
            ) from error
