"""A plain text file as packed tokens: its beginning is trained on, its end is held out."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from sluice.core.manifest import file_hash
from sluice.data.config import TokenizerConfig
from sluice.data.packing import PackReport, SplitCounts
from sluice.data.packing.shards import ShardWriter
from sluice.data.split import Split
from sluice.data.tokenization import END_OF_TEXT
from sluice.data.tokenization.bpe import train_bpe
from sluice.data.tokenization.bytelevel import byte_level, character_of_byte, token_bytes
from sluice.data.tokenization.encoder import encoder_of
from sluice.data.tokenization.folder import load_tokenizer, save_tokenizer
from sluice.model.text.prompt import start_ids
from sluice.model.training.batches.settings import TextConfig

INDEX = "index.json"
_TOKENS_PER_SHARD = 1 << 26
_CHARACTERS_AT_ONCE = 1 << 16


class Packed(NamedTuple):
    """The inputs of training."""

    tokens: Path
    """Folder of shards with index.json."""
    tokenizer: Path


@dataclass(frozen=True)
class BaseTokens:
    """How the tokens of a model directory are packed."""

    folder: Path
    vocab_size: int
    """Entries of the model, which its tokenizer may exceed."""
    end: int
    """Id after each document."""


def pack_text(
    path: Path, out: Path, config: TextConfig, tokenizer: TokenizerConfig, base: BaseTokens | None = None
) -> Packed:
    """Make tokenizer and shards of a UTF-8 text below `out`, unless they exist for the same text and settings.
    With a `base`, its tokenizer is used where it lies.

    The last `valid_fraction` of its characters is the `valid` side; tokenizers are trained on the rest, but `character`
    has every character of the file, so that the held-out end is encoded without loss. ValueError for a file that is
    missing, no UTF-8 or too short, and for a tokenizer that does not fit it.
    """
    text = read_text(path)
    cut = len(text) - round(len(text) * config.valid_fraction)
    sides: dict[Split, str] = {"train": text[:cut], "valid": text[cut:], "test": ""}
    if not sides["train"] or not sides["valid"]:
        raise ValueError(
            f"data.path {path} has {len(text)} characters, too few to train on a part and hold out another: name a "
            "longer text"
        )
    packed = Packed(out / "pack", out / "tokenizer" if base is None else base.folder)
    source: dict[str, Any] = {"sha256": file_hash(path), "text": config.model_dump(mode="json", exclude={"path"})}
    if base is not None:
        source["base"] = [file_hash(base.folder / "tokenizer.json"), base.vocab_size, base.end]
    elif config.tokenizer == "bpe":
        source["tokenizer"] = tokenizer.model_dump(mode="json")
    note = packed.tokens / "source.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) == source:
        return packed
    note.unlink(missing_ok=True)
    for folder in packed if base is None else (packed.tokens,):
        folder.mkdir(parents=True, exist_ok=True)
    if base is None:
        made = _TOKENIZERS[config.tokenizer](text, sides["train"], tokenizer)
        save_tokenizer(made, (END_OF_TEXT,), packed.tokenizer)
        encoder = encoder_of(made)
        report = _pack(sides, packed.tokens, encoder.encode_batch, encoder.vocab_size, encoder.end_of_text)
    else:
        report = _pack(sides, packed.tokens, _encoded_for(base), base.vocab_size, base.end)
    (packed.tokens / INDEX).write_text(report.model_dump_json(indent=2, exclude={"timings"}), encoding="utf-8")
    # Last: a folder that a killed process left is incomplete without it.
    note.write_text(json.dumps(source), encoding="utf-8")
    return packed


def read_text(path: Path) -> str:
    """ValueError for a file that is missing or no UTF-8."""
    if not path.is_file():
        raise no_text(path)
    try:
        # As bytes: reading as text would make one character of a carriage return and a line feed.
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"data.path {path} is no UTF-8 text: {error.reason} at byte {error.start}") from None


def no_text(path: Path) -> ValueError:
    """The error for a text file that does not exist."""
    return ValueError(f"data.path {path} is no file: name a plain text, or a folder that the pack step made")


def characters(text: str, _: str, __: TokenizerConfig) -> Tokenizer:
    """One token a character of `text`, in code point order after the end of text."""
    vocabulary = {END_OF_TEXT: 0} | {each: i for i, each in enumerate(sorted(set(text)), 1)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=END_OF_TEXT))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def octets(_: str, __: str, ___: TokenizerConfig) -> Tokenizer:
    """One token a byte of UTF-8, after the end of text."""
    names = [END_OF_TEXT, *(character_of_byte()[byte] for byte in range(256))]
    tokenizer = byte_level(models.BPE({name: i for i, name in enumerate(names)}, []))
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def pairs(_: str, training: str, config: TokenizerConfig) -> Tokenizer:
    """Byte-level BPE of `config.vocab_size` tokens, trained on the training side."""
    tokenizer, _library = train_bpe([training], config.vocab_size, config.min_frequency, (END_OF_TEXT,))
    if (size := tokenizer.get_vocab_size()) < config.vocab_size:
        raise ValueError(
            f"tokenizer.vocab_size {config.vocab_size} is more than the text fills ({size}): set "
            "text.tokenizer to byte, or lower it"
        )
    return tokenizer


_TOKENIZERS: dict[str, Callable[[str, str, TokenizerConfig], Tokenizer]] = {
    "character": characters,
    "byte": octets,
    "bpe": pairs,
}


def _encoded_for(base: BaseTokens) -> Callable[[list[str]], list[list[int]]]:
    """Encoder of the pieces of a text with a model's own tokenizer, and what it puts before the first of them."""
    tokenizer = load_tokenizer(base.folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    is_byte_level = token_bytes(tokenizer) is not None
    start = start_ids(tokenizer)

    def encode(pieces: list[str]) -> list[list[int]]:
        # Other tokenizers than byte-level ones put a space before each text.
        texts = pieces if is_byte_level else ["".join(pieces)]
        found = [list(each.ids) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        highest = max((max(ids) for ids in found if ids), default=0)
        if highest >= base.vocab_size:
            raise ValueError(
                f"the text has token {tokenizer.id_to_token(highest)!r} of id {highest}, which is outside the "
                f"vocabulary of 0 to {base.vocab_size - 1} of base.path"
            )
        return [start, *found]

    return encode


def _pack(
    sides: dict[Split, str], out: Path, encode: Callable[[list[str]], list[list[int]]], vocab_size: int, end: int
) -> PackReport:
    dtype: np.dtype[Any] = np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)
    counts: dict[Split, SplitCounts] = {}
    for split, text in sides.items():
        writer = ShardWriter(out, split, dtype, _TOKENS_PER_SHARD)
        if text:
            pieces = [text[at : at + _CHARACTERS_AT_ONCE] for at in range(0, len(text), _CHARACTERS_AT_ONCE)]
            writer.write(np.array([id for ids in encode(pieces) for id in ids], dtype=dtype))
            writer.counts.documents, writer.counts.bytes = 1, len(text.encode())
        counts[split] = writer.close()
    return PackReport(dtype=dtype.name, vocab_size=vocab_size, eos_id=end, splits=counts)
